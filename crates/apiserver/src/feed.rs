//! Fills the watch caches: one scan of the store at the start, then one store watch for all resources.
//!
//! Invariant: once `applied` says N, every cache holds exactly the state of its resource at N or later. When the watch
//! ends (history was compacted away under it), everything is scanned anew and watchers that saw the old state end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use compact_str::CompactString;
use meta::Status;
use store::{
    EventKind, KeyValue, ProgressRequester, RangeRequest, Store, StoreError, WatchBatch, WatchRequest, prefix_end,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, Change};
use crate::object::Object;

/// Where upstream keeps everything.
pub const ROOT: &str = "/registry/";
/// Keys read at a time by the first scan.
const PAGE_KEYS: usize = 1000;
/// How long a read waits before it asks the store for its progress.
const ASK_AFTER: Duration = Duration::from_millis(20);
const RETRY_AFTER: Duration = Duration::from_millis(200);

pub struct Feed {
    store: Arc<dyn Store>,
    /// By prefix, such as `/registry/services/specs/`. Those of custom resources come when there are keys of theirs,
    /// whether somebody serves them or not, and stay.
    caches: ArcSwap<HashMap<String, Arc<Cache>>>,
    /// The revision of the last scan: what came before it is unknown to caches made since.
    scanned: AtomicU64,
    applied: watch::Sender<u64>,
    /// Asks the store's watch how far it is.
    ask: Mutex<Option<ProgressRequester>>,
    /// How long a read waits for its revision.
    fresh_within: Duration,
}

impl Feed {
    /// Scans the store and starts following it.
    pub async fn start(
        store: Arc<dyn Store>,
        caches: HashMap<String, Arc<Cache>>,
        fresh_within: Duration,
        shutdown: CancellationToken,
    ) -> Result<Arc<Feed>, StoreError> {
        let feed = Arc::new(Feed {
            store,
            caches: ArcSwap::from_pointee(caches),
            scanned: AtomicU64::new(0),
            applied: watch::channel(0).0,
            ask: Mutex::default(),
            fresh_within,
        });
        let revision = feed.scan().await?;
        let follower = feed.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = follower.follow(revision) => {}
            }
        });
        Ok(feed)
    }

    /// The revision that all caches have reached.
    pub fn applied(&self) -> u64 {
        *self.applied.borrow()
    }

    /// Follows the revision that all caches have reached.
    pub fn progress(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Waits until all caches have reached `revision`.
    pub async fn reach(&self, revision: u64) -> Result<(), Status> {
        if self.applied() >= revision { Ok(()) } else { Box::pin(self.wait_for(revision)).await }
    }

    async fn wait_for(&self, revision: u64) -> Result<(), Status> {
        let mut progress = self.applied.subscribe();
        for within in [ASK_AFTER, self.fresh_within] {
            let reached = progress.wait_for(|applied| *applied >= revision);
            if tokio::time::timeout(within, reached).await.is_ok() {
                return Ok(());
            }
            // The newest revision may have written outside of what is watched; then only the store can tell.
            if let Some(ask) = &*self.ask.lock().unwrap_or_else(PoisonError::into_inner) {
                ask.request();
            }
        }
        Err(too_large(revision, self.applied()))
    }

    async fn scan(&self) -> Result<u64, StoreError> {
        let mut found: HashMap<String, Vec<Arc<Object>>> = HashMap::new();
        let end = prefix_end(ROOT.as_bytes());
        let mut start = Bytes::from_static(ROOT.as_bytes());
        let mut revision = 0;
        loop {
            let request =
                RangeRequest { start, end: end.clone(), limit: PAGE_KEYS, revision, ..RangeRequest::default() };
            let page = self.store.range(request).await?;
            if revision == 0 {
                revision = page.revision;
            }
            for kv in &page.kvs {
                if let Some((prefix, key, _)) = self.split(&kv.key)
                    && let Some(object) = read(key, kv)
                {
                    match found.get_mut(prefix) {
                        Some(objects) => objects.push(object),
                        None => drop(found.insert(prefix.to_string(), vec![object])),
                    }
                }
            }
            match page.kvs.last() {
                Some(last) if page.more => start = after(&last.key),
                _ => break,
            }
        }
        self.scanned.store(revision, Ordering::Release);
        for (prefix, cache) in self.caches.load().iter() {
            cache.reset(found.remove(prefix.as_str()).unwrap_or_default(), revision);
        }
        self.applied.send_replace(revision);
        Ok(revision)
    }

    async fn follow(&self, mut revision: u64) {
        loop {
            if let Err(error) = self.follow_once(&mut revision).await {
                match error {
                    StoreError::Closed => return,
                    // Nothing was skipped before this error: the watch goes on from where it was.
                    StoreError::WatchLagged { .. } => continue,
                    _ => {}
                }
                tracing::warn!("the watch of the store ended: {error}; reading everything again");
                match self.scan().await {
                    Ok(scanned) => revision = scanned,
                    Err(StoreError::Closed) => return,
                    Err(error) => {
                        tracing::error!("cannot read the store: {error}");
                        tokio::time::sleep(RETRY_AFTER).await;
                    }
                }
            }
        }
    }

    async fn follow_once(&self, revision: &mut u64) -> Result<(), StoreError> {
        let request = WatchRequest {
            start: Bytes::from_static(ROOT.as_bytes()),
            end: prefix_end(ROOT.as_bytes()),
            from_revision: *revision + 1,
            prev_kv: false,
        };
        let mut watch = self.store.watch(request).await?;
        *self.ask.lock().unwrap_or_else(PoisonError::into_inner) = Some(watch.progress_requester());
        while let Some(batch) = watch.next().await {
            let batch = batch?;
            *revision = batch.revision.max(*revision);
            self.apply(batch);
        }
        Err(StoreError::Closed)
    }

    /// Hands a batch to the caches: runs of changes to one resource in one step.
    fn apply(&self, batch: WatchBatch) {
        let mut pending: Option<(Arc<Cache>, Vec<Change>)> = None;
        for event in &batch.events {
            let Some((_, key, cache)) = self.split(&event.kv.key) else { continue };
            let new = match event.kind {
                EventKind::Put => match read(key, &event.kv) {
                    Some(object) => Some(object),
                    None => continue,
                },
                EventKind::Delete => None,
            };
            let change = (CompactString::from(key), event.kv.mod_revision, new);
            match &mut pending {
                Some((of, changes)) if Arc::ptr_eq(of, &cache) => changes.push(change),
                _ => {
                    if let Some((of, changes)) = pending.replace((cache, vec![change])) {
                        of.apply(changes);
                    }
                }
            }
        }
        if let Some((of, changes)) = pending {
            of.apply(changes);
        }
        self.applied.send_if_modified(|applied| {
            let newer = batch.revision > *applied;
            *applied = batch.revision.max(*applied);
            newer
        });
    }

    /// The resource's prefix, the key below it, and its cache.
    fn split<'k>(&self, key: &'k [u8]) -> Option<(&'k str, &'k str, Arc<Cache>)> {
        let key = std::str::from_utf8(key).ok()?;
        let mut at = ROOT.len();
        // Prefixes have one or two segments below the root, in the case of custom resources too.
        for _ in 0..2 {
            at += key.get(at..)?.find('/')? + 1;
            if let Some(cache) = self.caches.load().get(&key[..at]) {
                return Some((&key[..at], &key[at..], cache.clone()));
            }
        }
        // A group of custom resources is a domain.
        let group = key[ROOT.len()..].split('/').next()?;
        group.contains('.').then(|| (&key[..at], &key[at..], self.cache(&key[..at])))
    }

    /// The cache of a prefix of custom resources; complete from the moment it exists.
    pub fn cache(&self, prefix: &str) -> Arc<Cache> {
        if let Some(cache) = self.caches.load().get(prefix) {
            return cache.clone();
        }
        self.caches.rcu(|caches| {
            let mut caches = HashMap::clone(caches);
            caches.entry(prefix.to_string()).or_insert_with(|| {
                let cache = Arc::new(Cache::default());
                cache.reset([], self.scanned.load(Ordering::Acquire));
                cache
            });
            caches
        });
        self.caches.load().get(prefix).cloned().unwrap_or_default()
    }
}

fn read(key: &str, kv: &KeyValue) -> Option<Arc<Object>> {
    let object = Object::read(key, kv.value.clone(), kv.mod_revision);
    if object.is_none() {
        tracing::warn!("the stored value of {key:?} is no JSON object with metadata and is left out");
    }
    object.map(Arc::new)
}

/// The smallest key after `key`.
pub fn after(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

/// The refusal of a revision from the future.
pub fn too_large(asked: u64, current: u64) -> Status {
    let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
    let cause = meta::status::Cause {
        reason: "ResourceVersionTooLarge".into(),
        message: "Too large resource version".into(),
        field: String::new(),
    };
    Status::timeout(message).with_causes(vec![cause]).with_retry_after(1)
}
