//! Makes Services reachable: cluster IPs, node ports, external and load balancer IPs, balanced over ready endpoints by nftables.
//! Reads: Service, EndpointSlice. Writes: one nftables table, stale UDP flows, a few kernel parameters.
//! Invariant: only the table named in the configuration is touched, so that several clusters share a machine.
//!
//! The way of a change: informer -> `fragment` (pure, one Service) -> `engine` (difference) -> `nft -f -`.

mod conntrack;
mod endpoints;
pub mod engine;
pub mod fragment;
mod host;
pub mod rules;
mod table;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client::{Informer, Informers};
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use sys::nft::{Nft, NftError};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::fragment::{Context, Fragment};
pub use meta::cidr::Cidr;

const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
const BY_SERVICE: &str = "proxy-service";
/// Longest wait after a refused transaction.
const RETRY_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub struct Config {
    /// Name of our nftables table (family inet).
    pub table: String,
    /// Endpoints on this node are local ones.
    pub node_name: String,
    /// Ranges of all pods in the cluster. Service traffic from elsewhere is masqueraded.
    pub pod_cidrs: Vec<Cidr>,
    /// Masquerade what pods send to the world outside `pod_cidrs`.
    pub masquerade_egress: bool,
    /// Masquerade all traffic to cluster IPs.
    pub masquerade_all: bool,
    /// Node ports answer only at local addresses in these ranges; empty: at every local address.
    pub node_port_addresses: Vec<Cidr>,
    /// Node ports answer at 127.0.0.1 too (IPv4; sets route_localnet).
    pub localhost_node_ports: bool,
    pub ipv4: bool,
    pub ipv6: bool,
    /// Changes closer together than this are applied as one; the first one goes at once.
    pub min_sync_interval: Duration,
    /// How often to look whether our table is still there.
    pub check_interval: Duration,
    /// Another network namespace to work in, by its file; kernel parameters are then left alone.
    pub network_namespace: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            table: "knarr-proxy".to_owned(),
            node_name: String::new(),
            pod_cidrs: Vec::new(),
            masquerade_egress: true,
            masquerade_all: false,
            node_port_addresses: Vec::new(),
            localhost_node_ports: true,
            ipv4: true,
            ipv6: true,
            min_sync_interval: Duration::from_millis(50),
            check_interval: Duration::from_secs(60),
            network_namespace: None,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("nftables table name {0:?} is not usable; take letters, digits, - and _, beginning with a letter")]
    TableName(String),
    #[error("cannot set {name} to {value}: {source}; without it {consequence}. Run as root, or set it yourself")]
    Sysctl { name: &'static str, value: &'static str, consequence: &'static str, source: std::io::Error },
    #[error("cannot write the rules of Services into table {table}: {source}")]
    Rules { table: String, source: NftError },
}

fn check_table(name: &str) -> Result<(), Error> {
    let letters = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let sound = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.len() <= 63 && name.chars().all(letters);
    if sound { Ok(()) } else { Err(Error::TableName(name.to_owned())) }
}

fn nft_of(namespace: Option<&PathBuf>) -> Nft {
    namespace.map_or_else(Nft::new, |path| Nft::in_namespace(path))
}

/// Removes our table from this network namespace; no error if it is not there.
pub async fn cleanup(table: &str) -> Result<(), Error> {
    cleanup_in(table, None).await
}

/// Removes our table from a network namespace.
pub async fn cleanup_in(table: &str, namespace: Option<&PathBuf>) -> Result<(), Error> {
    check_table(table)?;
    let removed = nft_of(namespace).delete_table("inet", table).await;
    removed.map_err(|source| Error::Rules { table: table.to_owned(), source })
}

/// An engine for a configuration, with the kernel prepared for it.
pub async fn engine(mut config: Config) -> Result<Engine, Error> {
    check_table(&config.table)?;
    if config.network_namespace.is_none() && !host::prepare(&config).await? {
        config.masquerade_all = true;
    }
    let context = Context {
        node_name: config.node_name.clone(),
        pod_cidrs: config.pod_cidrs.clone(),
        masquerade_all: config.masquerade_all,
        v4: config.ipv4,
        v6: config.ipv6,
    };
    let nft = nft_of(config.network_namespace.as_ref());
    Ok(Engine::new(config, context, nft))
}

/// Services whose rules may have changed since the last look.
#[derive(Clone, Default)]
struct Dirty {
    keys: Arc<Mutex<BTreeSet<String>>>,
    bell: Arc<Notify>,
}

impl Dirty {
    fn mark(&self, key: String) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        self.bell.notify_one();
    }

    fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn service_key(slice: &EndpointSlice) -> Option<String> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    Some(format!("{}/{name}", slice.metadata.namespace.as_deref().unwrap_or_default()))
}

/// Keeps the rules in step with the API until shutdown. The rules stay in force afterwards; see `cleanup`.
pub fn run(
    config: Config,
    _client: kube::Client,
    informers: Informers,
    shutdown: CancellationToken,
) -> BoxFuture<'static, Result<(), Error>> {
    // Boxed, so that it is compiled here and not in the binary.
    async move {
        let (interval, check, table) = (config.min_sync_interval, config.check_interval, config.table.clone());
        let mut engine = engine(config).await?;
        let services: Informer<Service> = informers.of();
        let slices: Informer<EndpointSlice> = informers.of();
        slices.add_index(BY_SERVICE, |slice| service_key(slice).into_iter().collect());
        let dirty = Dirty::default();
        let marks = dirty.clone();
        services.on_event(move |event| marks.mark(client::Key::of(event.object().as_ref()).to_string()));
        let marks = dirty.clone();
        slices.on_event(move |event| {
            if let client::Event::Modified { old, .. } = event
                && let Some(key) = service_key(old)
            {
                marks.mark(key);
            }
            if let Some(key) = service_key(event.object()) {
                marks.mark(key);
            }
        });
        tokio::select! {
            () = async { services.synced().await; slices.synced().await } => {}
            () = shutdown.cancelled() => return Ok(()),
        }
        let follow = follow(&mut engine, &dirty, &services, &slices, interval, check, &table);
        tokio::select! {
            () = follow => {}
            () = shutdown.cancelled() => {}
        }
        Ok(())
    }
    .boxed()
}

async fn follow(
    engine: &mut Engine,
    dirty: &Dirty,
    services: &Informer<Service>,
    slices: &Informer<EndpointSlice>,
    interval: Duration,
    check: Duration,
    table: &str,
) {
    let mut retry = interval;
    let mut next_check = Instant::now() + check;
    loop {
        let keys = dirty.take();
        if !keys.is_empty() || engine.is_lost() {
            let changes = keys.into_iter().map(|key| change(engine.context(), key, services, slices)).collect();
            let started = Instant::now();
            match engine.sync(changes).await {
                Ok(()) => {
                    tracing::debug!(took_ms = started.elapsed().as_millis() as u64, "rules are in step");
                    retry = interval;
                }
                Err(error) => {
                    retry = (retry * 2).min(RETRY_MAX);
                    tracing::error!(table, %error, again_in_ms = retry.as_millis() as u64, "cannot write the rules of Services; the old ones stay");
                }
            }
            tokio::time::sleep(retry).await;
            continue;
        }
        tokio::select! {
            () = dirty.bell.notified() => {}
            () = tokio::time::sleep_until(next_check) => {
                next_check = Instant::now() + check;
                if let Err(error) = engine.check().await {
                    tracing::warn!(table, %error, "cannot look at our table");
                }
            }
        }
    }
}

fn change(
    context: &Context,
    key: String,
    services: &Informer<Service>,
    slices: &Informer<EndpointSlice>,
) -> (String, Option<Fragment>) {
    let (namespace, name) = key.split_once('/').unwrap_or(("", &key));
    let fragment = services
        .get(namespace, name)
        .map(|service| fragment::plan(context, &service, &slices.by_index(BY_SERVICE, &key)))
        .filter(|f| *f != Fragment::default());
    (key, fragment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_names() {
        for (name, good) in
            [("knarr-proxy", true), ("k_1", true), ("", false), ("1k", false), ("a b", false), ("a;b", false)]
        {
            assert_eq!(check_table(name).is_ok(), good, "{name}");
        }
    }
}
