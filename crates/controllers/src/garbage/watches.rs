//! Metadata watches of every kind that can be listed, watched and deleted, feeding the graph.
//! Reads: discovery, metadata of everything. Writes: the graph and the queue. Invariant: a kind that is served no more is
//! forgotten, and a new one is watched within one discovery period.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::WorkQueue;
use client::watch::{self, Sink};
use kube::api::DynamicObject;
use kube::core::PartialObjectMeta;
use kube::{Api, Client, Resource};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::graph::{Graph, KindId, Work};
use crate::context::Result;
use crate::discovery::{self, Discovered, Served};

/// A kind that cannot be listed for this long holds the collector up no longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the watches and the workers share.
pub struct Shared {
    pub graph: Mutex<Graph>,
    pub queue: WorkQueue<Work>,
    pub kinds: Mutex<Kinds>,
    /// A CustomResourceDefinition changed: look at discovery soon.
    pub rediscover: Notify,
}

#[derive(Default)]
pub struct Kinds {
    /// By number; a kind keeps its number while the process lives.
    pub served: Vec<Served>,
    pub discovered: Discovered,
    numbers: HashMap<(String, String), KindId>,
    watched: HashMap<KindId, Watched>,
}

struct Watched {
    version: String,
    stop: CancellationToken,
    synced: Arc<AtomicBool>,
    since: Instant,
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kinds {
    pub fn by_number(&self, kind: KindId) -> Option<&Served> {
        self.served.get(kind as usize)
    }

    /// Whether every watch has shown what there is.
    pub fn synced(&self) -> bool {
        !self.watched.is_empty()
            && self
                .watched
                .values()
                .all(|watched| watched.synced.load(Ordering::Acquire) || watched.since.elapsed() > PATIENCE)
    }

    fn number(&mut self, served: &Served) -> KindId {
        let key = (served.resource.group.clone(), served.resource.plural.clone());
        let next = self.served.len() as KindId;
        let number = *self.numbers.entry(key).or_insert(next);
        match self.served.get_mut(number as usize) {
            Some(known) => known.clone_from(served),
            None => self.served.push(served.clone()),
        }
        number
    }
}

fn is_watched(served: &Served) -> bool {
    // events own nothing and come and go by the thousand
    let event = served.resource.group.is_empty() && served.resource.plural == "events";
    !event && served.can("list") && served.can("watch") && served.can("delete")
}

/// Starts watches of new kinds and stops those of gone ones.
pub async fn rediscover(
    shared: &Arc<Shared>,
    client: &Client,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<()> {
    let discovered = discovery::discover(client).await?;
    let mut kinds = lock(&shared.kinds);
    let mut present: HashSet<KindId> = HashSet::new();
    for served in discovered.preferred().filter(|served| is_watched(served)) {
        let kind = kinds.number(served);
        present.insert(kind);
        if kinds.watched.get(&kind).is_some_and(|watched| watched.version == served.resource.version) {
            continue;
        }
        if let Some(old) = kinds.watched.remove(&kind) {
            old.stop.cancel();
        }
        let stop = shutdown.child_token();
        let synced = Arc::new(AtomicBool::new(false));
        let sink = KindSink {
            kind,
            defines_kinds: served.resource.plural == "customresourcedefinitions",
            shared: shared.clone(),
            synced: synced.clone(),
            stop: stop.clone(),
        };
        let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client.clone(), &served.resource);
        tasks.spawn(watch::follow(api, watch::config(None, None), sink, stop.clone()));
        let version = served.resource.version.clone();
        kinds.watched.insert(kind, Watched { version, stop, synced, since: Instant::now() });
    }
    // a group that cannot be discovered now may be back in a moment
    let failed: HashSet<String> = discovered
        .failed
        .iter()
        .map(|version| version.split_once('/').map_or("", |(group, _)| group).to_string())
        .collect();
    let gone: Vec<KindId> = kinds
        .watched
        .keys()
        .filter(|kind| !present.contains(kind))
        .filter(|kind| kinds.by_number(**kind).is_none_or(|served| !failed.contains(&served.resource.group)))
        .copied()
        .collect();
    for kind in gone {
        if let Some(old) = kinds.watched.remove(&kind) {
            old.stop.cancel();
        }
        let mut graph = lock(&shared.graph);
        for uid in graph.uids_of(kind) {
            for work in graph.remove(&uid) {
                shared.queue.add(work);
            }
        }
    }
    kinds.discovered = discovered;
    Ok(())
}

struct KindSink {
    kind: KindId,
    defines_kinds: bool,
    shared: Arc<Shared>,
    synced: Arc<AtomicBool>,
    stop: CancellationToken,
}

impl KindSink {
    fn change(&self, change: impl FnOnce(&mut Graph) -> Vec<Work>) {
        // a stopped watch must not bring back what was forgotten
        if self.stop.is_cancelled() {
            return;
        }
        let work = change(&mut lock(&self.shared.graph));
        for work in work {
            self.shared.queue.add(work);
        }
        if self.defines_kinds {
            self.shared.rediscover.notify_one();
        }
    }
}

impl Sink<PartialObjectMeta<DynamicObject>> for KindSink {
    fn replace(&mut self, list: Vec<PartialObjectMeta<DynamicObject>>) {
        let listed: HashSet<&str> = list.iter().filter_map(|object| object.metadata.uid.as_deref()).collect();
        self.change(|graph| {
            let mut work = Vec::new();
            for uid in graph.uids_of(self.kind) {
                if !listed.contains(uid.as_ref()) {
                    work.extend(graph.remove(&uid));
                }
            }
            for object in &list {
                work.extend(graph.observe(self.kind, &object.metadata));
            }
            work
        });
        self.synced.store(true, Ordering::Release);
    }

    fn apply(&mut self, object: PartialObjectMeta<DynamicObject>) {
        self.change(|graph| graph.observe(self.kind, object.meta()));
    }

    fn delete(&mut self, object: PartialObjectMeta<DynamicObject>) {
        self.change(|graph| object.metadata.uid.as_deref().map(|uid| graph.remove(uid)).unwrap_or_default());
    }
}
