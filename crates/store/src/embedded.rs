//! The embedded store: opening and closing it, and the [`Store`] calls on top of index, log and threads.
//! Reads and writes its own directory (see `docs/store-format.md`), which it keeps locked. Invariant: reads never wait for a sync.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Semaphore, oneshot};

use crate::clock::{Clock, SystemClock};
use crate::commit::{Committer, Deadlines, Shared};
use crate::disk::{DirLock, Disk, RealDisk};
use crate::format::FrameBuilder;
use crate::group::{Done, Limits};
use crate::housekeeping::{Bell, Housekeeper, LastCheckpoint};
use crate::index::{Found, Index};
use crate::queue::{Queue, Reply, Request};
use crate::recover::{Mode, Recovered, recover};
use crate::request::KeyRange;
use crate::segment::{Log, Segments};
use crate::watch::{Bounds, Hub};
use crate::{
    KeyValue, Lease, OpResult, RangeRequest, RangeResponse, Store, StoreError, Txn, TxnResponse, Watch, WatchRequest,
};

/// Sizes are in bytes. The defaults suit a cluster's state.
#[derive(Debug, Clone)]
pub struct Options {
    /// A log file is finished at this size; at most 1 GiB.
    pub segment_bytes: u64,
    /// Keys and values of one transaction.
    pub txn_bytes: usize,
    pub key_bytes: usize,
    /// Writes that wait or are on their way; further ones wait for their turn.
    pub queued_writes: usize,
    /// What a watcher may leave waiting before it is ended.
    pub watch_events: usize,
    pub watch_bytes: usize,
    /// For leases.
    pub clock: Arc<dyn Clock>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            txn_bytes: 16 << 20,
            key_bytes: 4096,
            queued_writes: 4096,
            watch_events: 100_000,
            watch_bytes: 128 << 20,
            clock: Arc::new(SystemClock::default()),
        }
    }
}

const SEGMENT_LIMIT_BYTES: u64 = 1 << 30;
const TXN_LIMIT_BYTES: usize = 64 << 20;
/// Answers with more values than this read them on a thread for blocking work.
const INLINE_READS: usize = 64;

/// What there is to tell about a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    pub revision: u64,
    pub compacted_revision: u64,
    pub keys: usize,
    pub leases: usize,
    /// Log and checkpoint on disk.
    pub disk_bytes: u64,
    pub segments: usize,
    /// Groups committed (and synced) since opening.
    pub commits: u64,
}

/// A store in this process. Dropping the last handle closes it.
#[derive(Debug)]
pub struct Embedded {
    pub(crate) shared: Arc<Shared>,
    pub(crate) disk: Option<Arc<dyn Disk>>,
    pub(crate) last: Arc<Mutex<LastCheckpoint>>,
    permits: Arc<Semaphore>,
    bounds: Bounds,
    threads: Mutex<Vec<JoinHandle<()>>>,
    _lock: Option<DirLock>,
}

/// Opens the store in `dir`, making it if there is none. Reads the log; may take a while after a crash.
pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Arc<Embedded>, StoreError> {
    let dir = dir.as_ref();
    let place = dir.display().to_string();
    let disk = RealDisk::open(dir).map_err(|e| StoreError::io(format!("opening {place}"), &place, &e))?;
    let lock = DirLock::take(dir)?;
    open_on(Arc::new(disk), Some(lock), options)
}

/// A store that forgets everything when it is dropped, for tests.
pub fn memory() -> Arc<Embedded> {
    memory_with(Options::default())
}

pub fn memory_with(options: Options) -> Arc<Embedded> {
    let parts = Parts {
        index: Index::default(),
        segments: Arc::default(),
        log: None,
        last: LastCheckpoint::default(),
        logged: 0,
    };
    start(parts, None, None, &options).expect("threads can be started, or the process is beyond help")
}

pub(crate) fn open_on(
    disk: Arc<dyn Disk>,
    lock: Option<DirLock>,
    options: Options,
) -> Result<Arc<Embedded>, StoreError> {
    let Recovered { index, segments, active, checkpoint, replayed } = recover(&*disk, Mode::Open)?;
    let segment_bytes = options.segment_bytes.min(SEGMENT_LIMIT_BYTES);
    let log = Log::new(disk.clone(), segments.clone(), active, segment_bytes);
    let last = LastCheckpoint {
        number: checkpoint.map(|(number, _)| number),
        bytes: checkpoint.map_or(0, |(_, bytes)| bytes),
        at_logged: 0,
    };
    start(Parts { index, segments, log: Some(log), last, logged: replayed }, Some(disk), lock, &options)
}

struct Parts {
    index: Index,
    segments: Arc<Segments>,
    log: Option<Log>,
    last: LastCheckpoint,
    logged: u64,
}

fn start(
    parts: Parts,
    disk: Option<Arc<dyn Disk>>,
    lock: Option<DirLock>,
    options: &Options,
) -> Result<Arc<Embedded>, StoreError> {
    let now = options.clock.now();
    let mut deadlines = Deadlines::default();
    for (id, lease) in &parts.index.leases {
        // How much time had passed is not kept: as after a change of etcd's leader, leases start anew.
        deadlines.set(*id, now.saturating_add(Duration::from_secs(lease.ttl_s)));
    }
    let shared = Arc::new(Shared {
        hub: Arc::new(Hub::new(parts.index.revision)),
        index: RwLock::new(parts.index),
        queue: Queue::default(),
        segments: parts.segments,
        bell: Bell::default(),
        logged: AtomicU64::new(parts.logged),
        commits: AtomicU64::new(0),
    });
    let limits = Limits { txn_bytes: options.txn_bytes.min(TXN_LIMIT_BYTES), key_bytes: options.key_bytes };
    let last = Arc::new(Mutex::new(parts.last));
    let store = Embedded {
        shared: shared.clone(),
        disk: disk.clone(),
        last: last.clone(),
        permits: Arc::new(Semaphore::new(options.queued_writes.max(1))),
        bounds: Bounds { events: options.watch_events, bytes: options.watch_bytes },
        threads: Mutex::default(),
        _lock: lock,
    };
    let segment_bytes = options.segment_bytes.min(SEGMENT_LIMIT_BYTES);
    let committer = Committer {
        shared: shared.clone(),
        log: parts.log,
        clock: options.clock.clone(),
        limits,
        deadlines,
        frame: FrameBuilder::new(),
    };
    store.spawn("store-commit", move || committer.run())?;
    let housekeeper = Housekeeper { shared: shared.clone(), disk, segment_bytes, last };
    store.spawn("store-house", move || housekeeper.run())?;
    // There may be a long log or dead segments from before.
    shared.bell.ring();
    Ok(Arc::new(store))
}

impl Embedded {
    fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(work)
            .map_err(|e| StoreError::Io { what: format!("starting thread {name}"), cause: e.to_string() })?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    /// Ends the threads; writes that wait and watches answer `Closed`. Reads still work. Blocks until the write under way is done.
    pub fn close(&self) {
        self.shared.queue.close();
        self.shared.hub.close();
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // The commit thread comes first: after it the index stands still.
            if thread.thread().name() == Some("store-house") {
                self.shared.bell.stop();
            }
            if thread.join().is_err() {
                tracing::error!("a thread of the store had panicked");
            }
        }
    }

    /// Makes the commit thread look at the clock; for tests that turn it.
    pub fn poke(&self) {
        self.shared.queue.poke();
    }

    pub fn stats(&self) -> Stats {
        let segments = self.shared.segments.all();
        let log: u64 = segments.iter().map(|s| s.size.load(Ordering::Relaxed)).sum();
        let checkpoint = self.last.lock().unwrap_or_else(PoisonError::into_inner).bytes;
        let index = self.shared.read();
        Stats {
            revision: index.revision,
            compacted_revision: index.compacted,
            keys: index.keys.len(),
            leases: index.leases.len(),
            disk_bytes: log + checkpoint,
            segments: segments.len(),
            commits: self.shared.commits.load(Ordering::Relaxed),
        }
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.shared.queue.push(request(reply))?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.close();
    }
}

/// Reads the values, off the runtime's threads if they are many.
async fn load(found: Vec<Found>, keys_only: bool) -> Result<Vec<KeyValue>, StoreError> {
    let long = !keys_only && found.len() > INLINE_READS;
    let read = move || found.iter().map(|f| f.load(keys_only)).collect::<Result<Vec<_>, _>>();
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) if long => {
            let failed =
                |e: tokio::task::JoinError| StoreError::Io { what: "reading values".into(), cause: e.to_string() };
            runtime.spawn_blocking(read).await.map_err(failed)?
        }
        _ => read(),
    }
}

#[async_trait]
impl Store for Embedded {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        let range = KeyRange::new(request.start, request.end);
        let (found, count, revision) = {
            let index = self.shared.read();
            if request.revision > index.revision {
                return Err(StoreError::FutureRevision { requested: request.revision, current: index.revision });
            }
            if request.revision != 0 && request.revision < index.compacted {
                return Err(StoreError::Compacted { at: index.compacted });
            }
            let at = if request.revision == 0 { index.revision } else { request.revision };
            let limit = match (request.count_only, request.limit) {
                (true, _) => 0,
                (false, 0) => usize::MAX,
                (false, limit) => limit,
            };
            let mut found = Vec::new();
            let mut count = 0;
            for (key, version) in index.scan(&range, at) {
                if count < limit {
                    found.push(Found { key: key.clone(), version: version.clone() });
                }
                count += 1;
            }
            (found, count, index.revision)
        };
        let more = !request.count_only && found.len() < count;
        Ok(RangeResponse { kvs: load(found, request.keys_only).await?, more, count, revision })
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, StoreError> {
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let outcome = self.ask(|reply| Request::Txn { txn, reply, _permit: permit }).await?;
        let result = |done| {
            Ok(match done {
                Done::Put => OpResult::Put,
                Done::Deleted(count) => OpResult::Deleted(count),
                Done::Got(found) => OpResult::Got(found.map(|f| f.load(false)).transpose()?),
            })
        };
        Ok(TxnResponse {
            succeeded: outcome.succeeded,
            revision: outcome.revision,
            results: outcome.results.into_iter().map(result).collect::<Result<_, StoreError>>()?,
        })
    }

    async fn watch(&self, request: WatchRequest) -> Result<Watch, StoreError> {
        let range = KeyRange::new(request.start, request.end);
        let (mut watch, published) = self.shared.hub.register(range.clone(), request.prev_kv, self.bounds)?;
        let from = if request.from_revision == 0 { published + 1 } else { request.from_revision };
        let index = self.shared.read();
        if from <= index.compacted {
            return Err(StoreError::Compacted { at: index.compacted });
        }
        let backlog = if from <= published { index.events(&range, from, published) } else { Vec::new() };
        drop(index);
        watch.start(from, backlog);
        Ok(watch)
    }

    async fn compact(&self, revision: u64) -> Result<(), StoreError> {
        self.ask(|reply| Request::Compact { revision, reply }).await
    }

    async fn lease_grant(&self, id: i64, ttl_s: u64) -> Result<Lease, StoreError> {
        if id < 0 || ttl_s == 0 {
            return Err(StoreError::invalid("a lease needs an id of at least 0 and a time of at least 1 s"));
        }
        self.ask(|reply| Request::Grant { id, ttl_s, reply }).await
    }

    async fn lease_keep_alive(&self, id: i64) -> Result<Lease, StoreError> {
        self.ask(|reply| Request::KeepAlive { id, reply }).await
    }

    async fn lease_revoke(&self, id: i64) -> Result<(), StoreError> {
        self.ask(|reply| Request::Revoke { id, reply }).await
    }

    async fn revision(&self) -> Result<u64, StoreError> {
        Ok(self.shared.read().revision)
    }

    fn known_revision(&self) -> Option<u64> {
        Some(self.shared.read().revision)
    }
}
