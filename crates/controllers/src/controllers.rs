//! The list of controllers, and what runs the enabled ones.
//! Reads and writes nothing itself. Invariant: `run` returns when everything it started has ended.

use std::sync::Arc;

use client::Informers;
use futures::FutureExt;
use futures::future::BoxFuture;
use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::context::Ctx;
use crate::{Config, Error};
use crate::{
    cronjob, deployment, disruption, endpoints, endpointslice, endpointslice_mirroring, garbage, job, namespace,
    node_ipam, node_lifecycle, pod_gc, replicaset, resourcequota, root_ca, serviceaccount, servicecidr,
    storage_protection, taint_eviction, ttl_after_finished, validatingadmissionpolicy_status,
};

type Start = fn(Ctx) -> BoxFuture<'static, ()>;

/// One line per controller, by upstream's names.
const CONTROLLERS: &[(&str, Start)] = &[
    ("namespace-controller", namespace::start),
    ("serviceaccount-controller", serviceaccount::start),
    ("root-ca-certificate-publisher-controller", root_ca::start),
    ("deployment-controller", deployment::start),
    ("replicaset-controller", replicaset::start),
    ("replicationcontroller-controller", replicaset::start_replication_controllers),
    ("disruption-controller", disruption::start),
    ("job-controller", job::start),
    ("cronjob-controller", cronjob::start),
    ("ttl-after-finished-controller", ttl_after_finished::start),
    ("endpointslice-controller", endpointslice::start),
    ("endpointslice-mirroring-controller", endpointslice_mirroring::start),
    ("endpoints-controller", endpoints::start),
    ("service-cidr-controller", servicecidr::start),
    ("node-ipam-controller", node_ipam::start),
    ("node-lifecycle-controller", node_lifecycle::start),
    ("taint-eviction-controller", taint_eviction::start),
    ("garbage-collector-controller", garbage::start),
    ("pod-garbage-collector-controller", pod_gc::start),
    ("resourcequota-controller", resourcequota::start),
    ("persistentvolumeclaim-protection-controller", storage_protection::start_claims),
    ("persistentvolume-protection-controller", storage_protection::start_volumes),
    ("volumeattributesclass-protection-controller", storage_protection::start_classes),
    ("validatingadmissionpolicy-status-controller", validatingadmissionpolicy_status::start),
];

/// The names of all controllers.
pub fn names() -> impl Iterator<Item = &'static str> {
    CONTROLLERS.iter().map(|(name, _)| *name)
}

/// Runs the enabled controllers until shutdown. Leader election is the caller's.
pub fn run(
    config: Config,
    client: Client,
    informers: Informers,
    shutdown: CancellationToken,
) -> BoxFuture<'static, Result<(), Error>> {
    // Boxed, so that it is compiled here and not in the binary.
    async move {
        check(&config)?;
        let config = Arc::new(config);
        let mut running = JoinSet::new();
        for (name, start) in CONTROLLERS.iter().filter(|(name, _)| config.enabled(name)) {
            running.spawn(start(Ctx {
                name,
                config: config.clone(),
                client: client.clone(),
                informers: informers.clone(),
                shutdown: shutdown.clone(),
            }));
        }
        shutdown.cancelled().await;
        while let Some(ended) = running.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(%error, "a controller panicked");
            }
        }
        Ok(())
    }
    .boxed()
}

fn check(config: &Config) -> Result<(), Error> {
    for entry in &config.controllers {
        let name = entry.strip_prefix('-').unwrap_or(entry);
        if name != "*" && !names().any(|known| known == name) {
            let known = names().collect::<Vec<_>>().join(", ");
            return Err(Error::UnknownController { name: name.to_string(), known });
        }
    }
    for cidr in &config.cluster_cidrs {
        node_ipam::Pool::parse(cidr, config).map_err(|why| Error::ClusterCidr { cidr: cidr.clone(), why })?;
    }
    Ok(())
}
