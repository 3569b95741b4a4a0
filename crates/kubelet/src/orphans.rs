//! What is left of pods that the API does not have any more: pods deleted by force while the kubelet was away.
//!
//! Stops and removes their containers, sandboxes, volumes, cgroups, logs and files. Invariant: acts only on this kubelet's
//! own (by label, or below its directories), and only after the list of pods was read once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::agent::Agent;
use crate::labels;
use crate::observed;
use crate::terminate::{remove_dir, remove_traces};

/// Grace for containers that do not say.
const DEFAULT_GRACE_SECONDS: u64 = 30;

/// Ends one pod that the API does not have.
pub async fn end(agent: &Agent, uid: &str) -> Result<(), String> {
    let selector = labels::pod_selector(&agent.config.owner, uid);
    let words = |error: cri::Error| error.to_string();
    let containers = agent.cri.container_list(selector.clone()).await.map_err(words)?;
    let sandboxes = agent.cri.sandbox_list(selector).await.map_err(words)?;
    let named = containers.first().map(|one| &one.labels).or_else(|| sandboxes.first().map(|one| &one.labels));
    let label = |key: &str| named.and_then(|labels| labels.get(key)).cloned();
    let pod = Pod {
        metadata: ObjectMeta {
            name: label(labels::POD_NAME),
            namespace: label(labels::POD_NAMESPACE),
            uid: Some(uid.to_string()),
            ..ObjectMeta::default()
        },
        ..Pod::default()
    };
    tracing::info!(pod = %crate::spec::described(&pod), "ending a pod that the API does not have");
    let stops = containers.iter().map(|container| {
        let grace = container.annotations.get(labels::POD_GRACE).and_then(|text| text.parse().ok());
        agent.cri.container_stop(&container.id, Duration::from_secs(grace.unwrap_or(DEFAULT_GRACE_SECONDS).max(2)))
    });
    for stopped in join_all(stops).await {
        stopped.map_err(words)?;
    }
    for sandbox in &sandboxes {
        agent.cri.sandbox_stop(&sandbox.id).await.map_err(words)?;
    }
    agent.volumes.unmount(uid).await.map_err(|error| error.to_string())?;
    agent.cgroups.remove_pod(uid).map_err(|error| error.to_string())?;
    remove_traces(agent, &pod, uid).await.map_err(words)
}

/// Removes directories and cgroups of pods that neither the API nor the runtime has.
pub async fn sweep(agent: &Arc<Agent>) {
    let Ok(running) = observed::fingerprints(&agent.cri, &agent.config.owner).await else { return };
    let mut keep: HashSet<String> = running.into_keys().collect();
    keep.extend(agent.registry.cells().iter().map(|cell| cell.uid.clone()));
    agent.volumes.clean_orphans(&keep).await;
    for uid in agent.cgroups.pods().into_iter().filter(|uid| !keep.contains(uid)) {
        if let Err(error) = agent.cgroups.remove_pod(&uid) {
            tracing::debug!(uid, %error, "cgroup of a pod that is gone not removed yet");
        }
    }
    let config = &agent.config;
    for (dir, uid) in directories(&config.data_dir.join("pods"), |name| Some(name.to_string())) {
        // what still holds volumes stays until they are unmounted
        if !keep.contains(&uid) && !dir.join("volumes").exists() {
            remove_dir(&dir);
        }
    }
    let by_last = |name: &str| name.rsplit_once('_').map(|(_, uid)| uid.to_string());
    for (dir, uid) in directories(&config.pod_logs_dir, by_last) {
        if !keep.contains(&uid) {
            remove_dir(&dir);
        }
    }
}

fn directories(of: &std::path::Path, uid: impl Fn(&str) -> Option<String>) -> HashMap<std::path::PathBuf, String> {
    let entries = std::fs::read_dir(of).into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| Some((entry.path(), uid(entry.file_name().to_str()?)?)));
    named.collect()
}
