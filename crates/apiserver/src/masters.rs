//! Which API servers there are, and the endpoints of `kubernetes`, which lead to all of them.
//!
//! Reads and writes `/registry/masterleases/IP`, each with a lease that its server keeps alive, as upstream's lease
//! reconciler does. Invariant: a server stands in the endpoints from its start on, and no longer than its lease lives; the
//! last one is never taken out.

use std::sync::Arc;
use std::time::Duration;

use meta::{Reason, Status, json};
use store::{Op, RangeRequest, Txn, WatchRequest, prefix_end};

use crate::bootstrap::reconcile_seen;
use crate::config::family;
use crate::shared::Shared;
use crate::storage::store_error;

const PREFIX: &str = "/registry/masterleases/";
const TTL_S: u64 = 15;
const EVERY: Duration = Duration::from_secs(10);
/// How often the endpoints are worked out anew because another server was faster.
const MAX_ATTEMPTS: usize = 8;
/// How long a server that stops waits for the store to hear of it; its lease ends by itself.
const REVOKE_LIMIT: Duration = Duration::from_secs(2);

/// This server among the others.
#[derive(Default)]
pub struct Place {
    lease: i64,
}

/// The port that the endpoints name; `None` when nobody outside of this process can reach us.
pub fn port(shared: &Shared) -> Option<u16> {
    match shared.config.advertise_port {
        0 => shared.address.get().map(|a| a.port()),
        port => Some(port),
    }
}

impl Place {
    /// Says that this server lives, and brings the endpoints in line with who does.
    pub async fn take(&mut self, shared: &Arc<Shared>) -> Result<(), Status> {
        for _ in 1..MAX_ATTEMPTS {
            match self.attempt(shared).await {
                // Another server wrote what it knows, which may be more.
                Err(status) if matches!(status.reason, Reason::Conflict | Reason::AlreadyExists) => {}
                done => return done,
            }
        }
        self.attempt(shared).await
    }

    async fn attempt(&mut self, shared: &Arc<Shared>) -> Result<(), Status> {
        // Endpoints take no loopback addresses: nobody but this machine could reach them.
        let Some(port) = port(shared).filter(|_| !shared.config.advertise.is_loopback()) else { return Ok(()) };
        let own = shared.config.advertise.to_string();
        // Seen before the servers are counted: so nobody's older count replaces a newer one.
        let endpoints_seen = shared.find("", "endpoints", "default", "kubernetes").await?;
        let slice_seen = shared.find("discovery.k8s.io", "endpointslices", "default", "kubernetes").await?;
        let mut all = servers(shared).await?;
        let lives = self.lease != 0 && shared.storage.store.lease_keep_alive(self.lease).await.is_ok();
        if !lives || !all.contains(&own) {
            self.enter(shared, &own).await?;
            all = servers(shared).await?;
        }
        let of_family = family(shared.config.advertise);
        all.retain(|ip| ip.parse().is_ok_and(|ip| family(ip) == of_family));
        all.sort();
        let ports = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
        let addresses: Vec<_> = all.iter().map(|ip| json!({"ip": ip.as_str()})).collect();
        let endpoints = json!({
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
            "subsets": [{"addresses": addresses, "ports": ports.clone()}],
        });
        reconcile_seen(shared, "", "endpoints", endpoints_seen, endpoints, &["subsets"]).await?;
        let each = |ip: &String| json!({"addresses": [ip.as_str()], "conditions": {"ready": true}});
        let slice = json!({
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": of_family,
            "endpoints": all.iter().map(each).collect::<Vec<_>>(),
            "ports": ports,
        });
        reconcile_seen(shared, "discovery.k8s.io", "endpointslices", slice_seen, slice, &["endpoints", "ports"]).await
    }

    async fn enter(&mut self, shared: &Shared, ip: &str) -> Result<(), Status> {
        let store = &shared.storage.store;
        self.lease = store.lease_grant(0, TTL_S).await.map_err(|e| store_error(&e))?.id;
        let value =
            json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {}, "subsets": [{"addresses": [{"ip": ip}]}]});
        let key = format!("{PREFIX}{ip}").into();
        let put = Op::Put { key, value: value.to_vec().into(), lease: self.lease };
        store.txn(Txn { success: vec![put], ..Txn::default() }).await.map_err(|e| store_error(&e))?;
        Ok(())
    }

    /// Keeps this server among the others until it stops; then they take it out of the endpoints.
    pub async fn keep(mut self, shared: Arc<Shared>) {
        let store = &shared.storage.store;
        let all =
            || WatchRequest { start: PREFIX.into(), end: prefix_end(PREFIX.as_bytes()), ..WatchRequest::default() };
        let (mut tick, mut watch) = (tokio::time::interval(EVERY), None);
        loop {
            if watch.is_none() {
                watch = store.watch(all()).await.ok();
            }
            let change = async {
                match &mut watch {
                    Some(watch) => watch.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shared.shutdown.cancelled() => break,
                _ = tick.tick() => {}
                change = change => match change {
                    Some(Ok(batch)) if batch.events.is_empty() => continue,
                    Some(Ok(_)) => {}
                    _ => {
                        watch = None;
                        tick.tick().await;
                    }
                },
            }
            if let Err(status) = self.take(&shared).await {
                tracing::warn!("cannot keep the endpoints of the kubernetes service: {status}");
            }
        }
        if self.lease != 0 {
            let _ = tokio::time::timeout(REVOKE_LIMIT, store.lease_revoke(self.lease)).await;
        }
    }
}

async fn servers(shared: &Shared) -> Result<Vec<String>, Status> {
    let request = RangeRequest {
        start: PREFIX.into(),
        end: prefix_end(PREFIX.as_bytes()),
        keys_only: true,
        ..RangeRequest::default()
    };
    let found = shared.storage.store.range(request).await.map_err(|e| store_error(&e))?;
    let names = found.kvs.iter().filter_map(|kv| std::str::from_utf8(kv.key.get(PREFIX.len()..)?).ok());
    Ok(names.map(String::from).collect())
}
