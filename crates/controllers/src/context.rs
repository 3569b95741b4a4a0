//! What a controller is given, and the runner that turns watched events into keys and keys into reconciles.
//! Reads: informers. Writes: nothing itself. Invariant: reconcile gets a key, never an event, and runs only after every
//! informer the controller watches has synced.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;

use client::{Action, Event, Informer, Informers, Key, Object, Recorder, WorkQueue};
use futures::future::BoxFuture;
use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::owner;
use crate::selector::Labels;

/// Cheap to clone; made anew for each controller, with its name.
#[derive(Clone)]
pub struct Ctx {
    pub name: &'static str,
    pub config: Arc<Config>,
    pub client: Client,
    pub informers: Informers,
    pub shutdown: CancellationToken,
}

/// What a reconcile can fail with: it is retried with back-off.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what}: {source}")]
    Api { what: String, source: kube::Error },
    #[error("{0}")]
    Other(String),
}

pub type Result<T> = std::result::Result<T, Error>;

/// Names the attempt that failed.
pub trait During<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T>;
    /// `None` when the object of the attempt is gone, which is no failure.
    fn unless_gone(self, what: impl FnOnce() -> String) -> Result<Option<T>>;
    /// `None` when the object of the attempt is gone, or is not as it was known.
    fn unless_changed(self, what: impl FnOnce() -> String) -> Result<Option<T>>;
}

impl<T> During<T> for std::result::Result<T, kube::Error> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Api { what: what(), source })
    }

    fn unless_gone(self, what: impl FnOnce() -> String) -> Result<Option<T>> {
        match self {
            Err(error) if client::is_not_found(&error) => Ok(None),
            other => other.map(Some).during(what),
        }
    }

    fn unless_changed(self, what: impl FnOnce() -> String) -> Result<Option<T>> {
        match self {
            Err(error) if client::is_conflict(&error) => Ok(None),
            other => other.unless_gone(what),
        }
    }
}

impl Ctx {
    /// A recorder whose events name `component` as their source.
    pub fn recorder(&self, component: &str) -> Recorder {
        Recorder::new(self.client.clone(), component, "")
    }
}

/// The queue of a controller while its watches are being set up.
pub struct Work {
    ctx: Ctx,
    queue: WorkQueue<Key>,
    waits: Vec<BoxFuture<'static, ()>>,
}

impl Work {
    pub fn new(ctx: &Ctx) -> Self {
        Work { ctx: ctx.clone(), queue: WorkQueue::new(), waits: Vec::new() }
    }

    /// Waits for the informer to sync before the first reconcile, without reacting to its events.
    pub fn needs<K: Object>(&mut self, informer: &Informer<K>) {
        let informer = informer.clone();
        self.waits.push(Box::pin(async move { informer.synced().await }));
    }

    /// Enqueues every changed object itself.
    pub fn watch_own<K: Object>(&mut self, informer: &Informer<K>) {
        self.watch(informer, |event| vec![Key::of(event.object().as_ref())]);
    }

    /// Enqueues the owner that controls a changed object, and for an orphan all owners that want its labels.
    pub fn watch_dependents<O: Object, K: Object>(
        &mut self,
        owners: &Informer<O>,
        dependents: &Informer<K>,
        wants: fn(&O, Option<&Labels>) -> bool,
    ) {
        let owners = owners.clone();
        self.watch(dependents, move |event| {
            let mut keys = owner_keys(event, &O::group(&()), &O::kind(&()));
            if owner::controller_of(event.object().meta()).is_none() {
                keys.extend(wanting(event, &owners, wants));
            }
            keys
        });
    }

    /// Enqueues what `keys` makes of every event.
    pub fn watch<K: Object>(
        &mut self,
        informer: &Informer<K>,
        keys: impl Fn(&Event<K>) -> Vec<Key> + Send + Sync + 'static,
    ) {
        let queue = self.queue.clone();
        informer.on_event(move |event| {
            for key in keys(event) {
                queue.add(key);
            }
        });
        self.needs(informer);
    }

    /// As [`Work::run`], with a controller and what it does with a key.
    pub fn start<C: Send + Sync + 'static>(
        self,
        count: usize,
        controller: C,
        reconcile: for<'a> fn(&'a C, &'a Key) -> BoxFuture<'a, Result<Action>>,
    ) -> BoxFuture<'static, ()> {
        let controller = Arc::new(controller);
        Box::pin(self.run(count, move |key| {
            let controller = controller.clone();
            async move { reconcile(&controller, &key).await }
        }))
    }

    /// Reconciles until shutdown, `count` keys at a time.
    pub async fn run<F, Fut, E>(self, count: usize, reconcile: F)
    where
        F: Fn(Key) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<Action, E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        futures::future::join_all(self.waits).await;
        let name = self.ctx.name;
        client::run_workers(self.queue, count, self.ctx.shutdown, move |key: Key| {
            let work = reconcile(key.clone());
            async move {
                let outcome = work.await;
                if let Err(error) = &outcome {
                    tracing::debug!(controller = name, %key, %error, "reconcile failed");
                }
                outcome
            }
        })
        .await;
    }
}

/// The keys of all objects in the event's namespace that want its object by its labels, as they are or as they were.
pub fn wanting<O: Object, K: Object>(
    event: &Event<K>,
    all: &Informer<O>,
    wants: impl Fn(&O, Option<&Labels>) -> bool,
) -> Vec<Key> {
    let meta = event.object().meta();
    let old = match event {
        Event::Modified { old, .. } if old.meta().labels != meta.labels => Some(old.meta().labels.as_ref()),
        _ => None,
    };
    let candidates = all.list_in(meta.namespace.as_deref().unwrap_or_default());
    let wanted = |by: &&Arc<O>| wants(by, meta.labels.as_ref()) || old.is_some_and(|labels| wants(by, labels));
    candidates.iter().filter(wanted).map(|by| Key::of(by.as_ref())).collect()
}

/// The keys of the controlling owners of this kind that an event is about.
pub fn owner_keys<K: Object>(event: &Event<K>, group: &str, kind: &str) -> Vec<Key> {
    let key_of = |object: &K| {
        let meta = object.meta();
        owner::controller_of(meta)
            .filter(|owner| owner.kind == kind && owner::group_of(owner) == group)
            .map(|owner| Key::new(meta.namespace.clone().unwrap_or_default(), owner.name.clone()))
    };
    let mut keys: Vec<Key> = match event {
        Event::Added(object) | Event::Deleted(object) => key_of(object).into_iter().collect(),
        Event::Modified { old, new } => key_of(old).into_iter().chain(key_of(new)).collect(),
    };
    keys.dedup();
    keys
}
