//! Where the environment's values come from: ConfigMaps and Secrets by GET, services from the shared informer.
//!
//! Invariant: an answer is at most `TTL` old, so a container that starts after a change sees the change, and many
//! containers that start at once ask once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use kube::api::Api;
use serde::de::DeserializeOwned;

use super::{EnvError, Objects, References};

const TTL: Duration = Duration::from_secs(1);
/// Entries kept; when full, the stale ones go.
const MAX_CACHED: usize = 512;
const SYNC_TIMEOUT: Duration = Duration::from_secs(10);

/// Fetches what a container's environment refers to. Cheap to clone.
#[derive(Clone)]
pub struct Sources {
    client: kube::Client,
    services: client::Informer<Service>,
    config_maps: Arc<Cache<ConfigMap>>,
    secrets: Arc<Cache<Secret>>,
}

type Entry<K> = (Instant, Option<Arc<K>>);

struct Cache<K>(Mutex<HashMap<(String, String), Entry<K>>>);

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl Sources {
    pub fn new(client: kube::Client, informers: client::Informers) -> Self {
        Self { client, services: informers.of::<Service>(), config_maps: Arc::default(), secrets: Arc::default() }
    }

    /// The objects by name that exist. One that does not exist is simply missing.
    pub async fn objects(&self, namespace: &str, references: &References) -> Result<Objects, EnvError> {
        let mut objects = Objects::default();
        for name in &references.config_maps {
            if let Some(map) = self.config_maps.get(&self.client, namespace, name).await? {
                objects.config_maps.insert(name.clone(), map);
            }
        }
        for name in &references.secrets {
            if let Some(secret) = self.secrets.get(&self.client, namespace, name).await? {
                objects.secrets.insert(name.clone(), secret);
            }
        }
        Ok(objects)
    }

    /// Services of the pod's namespace and the API server's.
    pub async fn services(&self, namespace: &str) -> Result<Vec<Arc<Service>>, EnvError> {
        if tokio::time::timeout(SYNC_TIMEOUT, self.services.synced()).await.is_err() {
            return Err(EnvError::Fetch(
                "services have not yet been read at least once, cannot construct envvars".into(),
            ));
        }
        let mut services = self.services.list_in(namespace);
        if namespace != "default" {
            services.extend(self.services.get("default", "kubernetes"));
        }
        Ok(services)
    }
}

impl<K> Cache<K>
where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
{
    async fn get(&self, client: &kube::Client, namespace: &str, name: &str) -> Result<Option<Arc<K>>, EnvError> {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some((at, object)) = self.lock().get(&key)
            && at.elapsed() < TTL
        {
            return Ok(object.clone());
        }
        let api: Api<K> = Api::namespaced(client.clone(), namespace);
        let object = api.get_opt(name).await.map_err(|error| EnvError::Fetch(client::message(&error)))?.map(Arc::new);
        let mut entries = self.lock();
        if entries.len() >= MAX_CACHED {
            entries.retain(|_, (at, _)| at.elapsed() < TTL);
        }
        if entries.len() < MAX_CACHED {
            entries.insert(key, (Instant::now(), object.clone()));
        }
        Ok(object)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), Entry<K>>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
