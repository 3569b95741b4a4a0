//! Taking a node down: stops and removes this kubelet's sandboxes, containers, mounts and cgroups, with the pods' grace
//! periods.
//!
//! Reads the owner label, so other clusters in the same runtime are left alone. Invariant: what is not this owner's is
//! never stopped.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::join_all;

use crate::cgroups::Cgroups;
use crate::{Config, Error, labels, volumes};

/// No container gets longer than this when everything is taken down.
const LONGEST_GRACE_SECONDS: u64 = 30;

/// Sandboxes removed at once: each runs the network plugins.
const AT_ONCE: usize = 8;

/// A runtime that has just been started is given this long to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

pub(crate) async fn all(config: &Config) -> Result<(), Error> {
    let cri = cri::Client::new(&config.cri_endpoint);
    let selector = labels::owner_selector(&config.owner);
    let runtime = |source: cri::Error| Error::Runtime { endpoint: config.cri_endpoint.clone(), source };
    let containers = containers(&cri, &selector).await.map_err(runtime)?;
    let stops = containers.iter().map(|container| {
        let grace = container.annotations.get(labels::POD_GRACE).and_then(|text| text.parse::<u64>().ok());
        let grace = grace.unwrap_or(LONGEST_GRACE_SECONDS).clamp(2, LONGEST_GRACE_SECONDS);
        cri.container_stop(&container.id, Duration::from_secs(grace))
    });
    for stopped in join_all(stops).await {
        stopped.map_err(runtime)?;
    }
    let removals = cri.sandbox_list(selector).await.map_err(runtime)?.into_iter().map(|sandbox| {
        let cri = cri.clone();
        async move {
            cri.sandbox_stop(&sandbox.id).await?;
            cri.sandbox_remove(&sandbox.id).await
        }
    });
    let mut removals = futures::stream::iter(removals).buffer_unordered(AT_ONCE);
    while let Some(removed) = removals.next().await {
        removed.map_err(runtime)?;
    }
    let data_dir = config.data_dir.clone();
    let released = tokio::task::spawn_blocking(move || volumes::release_all(&data_dir)).await;
    if let Err(error) = released.map_err(std::io::Error::other).flatten() {
        tracing::warn!(data_dir = %config.data_dir.display(), %error, "not all volumes of pods were unmounted");
    }
    let cgroups = Cgroups::new(&config.cgroup_root);
    for uid in cgroups.pods() {
        if let Err(error) = cgroups.remove_pod(&uid) {
            // Busy while the runtime is still making the sandbox: the caller looks again.
            tracing::debug!(uid, %error, "cgroup not removed");
        }
    }
    if let Err(error) = cgroups.remove_base() {
        tracing::debug!(%error, "cgroup parents not removed");
    }
    Ok(())
}

/// This owner's containers; waits for a runtime that is still starting.
async fn containers(cri: &cri::Client, selector: &BTreeMap<String, String>) -> cri::Result<Vec<cri::v1::Container>> {
    let begun = Instant::now();
    loop {
        match cri.container_list(selector.clone()).await {
            Err(error) if error.is_starting() && begun.elapsed() < ANSWER_LIMIT => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            answer => return answer,
        }
    }
}
