//! What every request works with: configuration, storage, registry, limits, metrics.
//!
//! Made once by `Server::start`. Invariant: nothing here is replaced while the server runs.

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use meta::Status;
use tokio_util::sync::CancellationToken;

use crate::admission::outside::Outside;
use crate::aggregate::Aggregator;
use crate::alloc::Services;
use crate::authn::KnownTokens;
use crate::authz::Authorizer;
use crate::config::Config;
use crate::custom::definitions::Definitions;
use crate::flow::Flow;
use crate::leases::Leases;
use crate::metrics::Metrics;
use crate::object::Object;
use crate::registry::Registry;
use crate::storage::Storage;

pub struct Shared {
    pub config: Config,
    pub registry: Registry,
    pub storage: Storage,
    pub flow: Flow,
    pub authorizer: Box<dyn Authorizer>,
    pub metrics: Metrics,
    pub services: Arc<Services>,
    pub leases: Leases,
    pub definitions: Definitions,
    pub aggregator: Aggregator,
    pub outside: Outside,
    pub tokens: KnownTokens,
    /// Cancelled when the server stops: watches and streams end.
    pub shutdown: CancellationToken,
    /// The default objects exist.
    pub ready: AtomicBool,
    pub address: OnceLock<SocketAddr>,
}

impl Shared {
    /// An object at the store's newest state.
    pub async fn find(
        &self,
        group: &str,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Object>>, Status> {
        let Some(served) = self.registry.stored(group, resource) else { return Ok(None) };
        self.storage.get(&served, &served.key(namespace, name)).await
    }

    /// A namespace: as the cache has it, or at the store's newest state where it may only just have been created.
    pub async fn namespace(&self, name: &str) -> Result<Option<Arc<Object>>, Status> {
        match self.peek("", "namespaces", "", name) {
            Some(found) => Ok(Some(found)),
            None => self.find("", "namespaces", "", name).await,
        }
    }

    /// An object as the cache has it, which may lag behind.
    pub fn peek(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let served = self.registry.stored(group, resource)?;
        served.cache.get(&served.key(namespace, name))
    }
}
