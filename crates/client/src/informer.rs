//! Shared informers: one watch and one cache per kind (and filter) in the process, whoever asks.
//! Reads: list and watch of the API. Writes: memory. Invariant: handlers see every change once, in order, and when a handler
//! runs the cache is at least as new as the event; the watch is mended for ever, until shutdown.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::{Cache, Event, OWNER_INDEX};
use crate::key::Key;
use crate::watch::{self as watching, Sink};

/// Any typed Kubernetes object.
pub trait Object:
    Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static
{
}
impl<K> Object for K where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static
{
}

/// (kind, label selector, field selector)
type Slot = (TypeId, Option<String>, Option<String>);

struct Pool {
    client: Client,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    started: Mutex<HashMap<Slot, Box<dyn Any + Send>>>,
}

/// All informers of the process. Cheap to clone.
#[derive(Clone)]
pub struct Informers(Arc<Pool>);

impl Informers {
    pub fn new(client: Client, shutdown: CancellationToken) -> Self {
        Informers(Arc::new(Pool { client, shutdown, tasks: TaskTracker::new(), started: Mutex::default() }))
    }

    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// The informer of a kind in all namespaces, started on first use. Must be called inside a tokio runtime.
    pub fn of<K: Object>(&self) -> Informer<K> {
        self.filtered(None, None)
    }

    /// An informer of the objects that match the selectors; the same filter again gives the same informer.
    pub fn filtered<K: Object>(&self, labels: Option<&str>, fields: Option<&str>) -> Informer<K> {
        let slot = (TypeId::of::<K>(), labels.map(String::from), fields.map(String::from));
        let mut started = lock(&self.0.started);
        if let Some(informer) = started.get(&slot).and_then(|known| known.downcast_ref::<Informer<K>>()) {
            return informer.clone();
        }
        let (synced, _) = watch::channel(false);
        let informer = Informer(Arc::new(Shared {
            cache: RwLock::new(Cache::new()),
            handlers: Mutex::default(),
            synced,
            revision: AtomicU64::new(0),
            shutdown: self.0.shutdown.clone(),
        }));
        let config = watching::config(labels, fields);
        self.0.tasks.spawn(watching::follow(
            Api::<K>::all(self.0.client.clone()),
            config,
            Feed(informer.clone()),
            self.0.shutdown.clone(),
        ));
        started.insert(slot, Box::new(informer.clone()));
        informer
    }

    /// Returns when every watch task has ended; call it after shutdown was cancelled.
    pub async fn ended(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

type Handler<K> = Box<dyn Fn(&Event<K>) + Send + Sync>;

struct Shared<K> {
    cache: RwLock<Cache<K>>,
    /// Held while events are delivered, so that a handler added meanwhile misses none and sees none twice.
    handlers: Mutex<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
    revision: AtomicU64,
    shutdown: CancellationToken,
}

/// The cache of one kind. Cheap to clone. Objects come without managedFields.
pub struct Informer<K>(Arc<Shared<K>>);

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Informer(self.0.clone())
    }
}

impl<K: Object> Informer<K> {
    /// Waits for the first complete list; returns early when the informers shut down.
    pub async fn synced(&self) {
        let mut synced = self.0.synced.subscribe();
        tokio::select! {
            _ = synced.wait_for(|synced| *synced) => {}
            () = self.0.shutdown.cancelled() => {}
        }
    }

    pub fn has_synced(&self) -> bool {
        *self.0.synced.borrow()
    }

    /// The highest resourceVersion of any object seen. A write answered with a version up to this one is in the cache, or has
    /// been overtaken there: that is how a controller knows that the cache holds what it wrote.
    pub fn revision(&self) -> u64 {
        self.0.revision.load(Ordering::Acquire)
    }

    /// `namespace` is empty for cluster-wide kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.read(|cache| cache.get(namespace, name))
    }

    pub fn get_key(&self, key: &Key) -> Option<Arc<K>> {
        self.get(&key.namespace, &key.name)
    }

    /// All objects, by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.read(Cache::list)
    }

    pub fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        self.read(|cache| cache.list_in(namespace))
    }

    pub fn len(&self) -> usize {
        self.read(Cache::len)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Objects with an owner reference (controller or not) to this uid.
    pub fn by_owner(&self, uid: &str) -> Vec<Arc<K>> {
        self.by_index(OWNER_INDEX, uid)
    }

    /// Objects whose values in the named index hold this one; empty for an index nobody added.
    pub fn by_index(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        self.read(|cache| cache.by_index(name, value))
    }

    /// Adds an index. Informers are shared by the whole process, and so are the names of their indexes: begin a name with
    /// who uses it.
    pub fn add_index(&self, name: &'static str, values_of: fn(&K) -> Vec<String>) {
        self.0.cache.write().unwrap_or_else(PoisonError::into_inner).add_index(name, values_of);
    }

    /// Calls `handler` in order with every change from here on, after `Added` for each object already known. It runs on the
    /// watch task: keep it short, and add no handler to the same informer inside it.
    pub fn on_event(&self, handler: impl Fn(&Event<K>) + Send + Sync + 'static) {
        let mut handlers = lock(&self.0.handlers);
        for object in self.list() {
            handler(&Event::Added(object));
        }
        handlers.push(Box::new(handler));
    }

    fn read<T>(&self, read: impl FnOnce(&Cache<K>) -> T) -> T {
        read(&self.0.cache.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, revision: u64, change: impl FnOnce(&mut Cache<K>) -> Vec<Event<K>>) {
        let handlers = lock(&self.0.handlers);
        let events = change(&mut self.0.cache.write().unwrap_or_else(PoisonError::into_inner));
        self.0.revision.fetch_max(revision, Ordering::AcqRel);
        for event in &events {
            for handler in handlers.iter() {
                // a panicking handler must not end the watch that the others live on
                if catch_unwind(AssertUnwindSafe(|| handler(event))).is_err() {
                    tracing::error!(kind = %K::kind(&()), "an event handler panicked; the event is skipped for it");
                }
            }
        }
    }
}

/// What the watch task writes into.
struct Feed<K>(Informer<K>);

impl<K: Object> Sink<K> for Feed<K> {
    fn replace(&mut self, list: Vec<K>) {
        let revision = list.iter().map(revision_of).max().unwrap_or(0);
        self.0.change(revision, |cache| cache.replace(list));
        self.0.0.synced.send_replace(true);
    }

    fn apply(&mut self, object: K) {
        self.0.change(revision_of(&object), |cache| cache.apply(object));
    }

    fn delete(&mut self, object: K) {
        self.0.change(revision_of(&object), |cache| cache.delete(object));
    }
}

/// The resourceVersion of an object as a number; 0 if it has none. Kubernetes v1.35 and later order them.
pub fn revision_of<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
