//! Watches: every watcher gets, in order and without a gap, the events of its range from its revision on.
//! A watcher first takes what history holds (the backlog), then what commits publish. Invariant: a watcher is registered at a known
//! published revision; its backlog ends there and its queue begins after it. A queue that overflows ends its watcher with an error.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::StoreError;
use crate::index::{Event, Found, ValueRef};
use crate::request::{EventKind, KeyRange, KeyValue, WatchBatch, WatchEvent};

/// How much a watcher may leave waiting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

/// A batch ends with the revision in which it reaches so many events; values from disk are read while the batch is made.
const BATCH_EVENTS: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct Hub {
    /// Everything up to here is in the watchers' queues.
    published: AtomicU64,
    watchers: Mutex<Vec<Arc<Watcher>>>,
    closed: AtomicBool,
}

#[derive(Debug)]
pub(crate) struct Watcher {
    range: KeyRange,
    bounds: Bounds,
    queue: Mutex<Queue>,
    notify: Notify,
    /// Of a watch whose events come from elsewhere: who fetches them is to look here, for a request or the end of the watch.
    source: Option<Notify>,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    ended: Option<StoreError>,
    progress_wanted: bool,
}

impl Watcher {
    pub(crate) fn source(&self) -> &Notify {
        self.source.as_ref().unwrap_or(&self.notify)
    }

    /// The watch answers with how far it is, after what is queued.
    pub(crate) fn say_progress(&self) {
        self.lock().progress_wanted = true;
        self.notify.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False when the watcher has ended.
    fn offer(&self, events: &[Arc<Event>]) -> bool {
        let mut matching = events.iter().filter(|e| self.range.contains(&e.key)).peekable();
        if matching.peek().is_none() {
            return true;
        }
        let mut queue = self.lock();
        if queue.ended.is_some() {
            return false;
        }
        for event in matching {
            queue.bytes += event_bytes(event);
            queue.events.push_back(event.clone());
        }
        if queue.events.len() > self.bounds.events || queue.bytes > self.bounds.bytes {
            queue.ended = Some(StoreError::WatchLagged { events: queue.events.len() });
            queue.events = VecDeque::new();
        }
        let alive = queue.ended.is_none();
        drop(queue);
        self.notify.notify_one();
        alive
    }
}

fn event_bytes(event: &Event) -> usize {
    let value = match &event.version.value {
        ValueRef::Memory(value) => value.len(),
        _ => 0,
    };
    event.key.len() + value
}

impl Hub {
    pub(crate) fn new(published: u64) -> Self {
        Self { published: AtomicU64::new(published), watchers: Mutex::default(), closed: AtomicBool::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Watcher>>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn publish(&self, events: Vec<Event>, revision: u64) {
        let mut watchers = self.lock();
        if !watchers.is_empty() && !events.is_empty() {
            let events: Vec<Arc<Event>> = events.into_iter().map(Arc::new).collect();
            watchers.retain(|w| w.offer(&events));
        }
        self.published.store(revision, Ordering::Release);
    }

    /// Returns the watch and the revision after which its queue begins. The caller then gives it its backlog.
    pub(crate) fn register(
        self: &Arc<Self>,
        range: KeyRange,
        prev_kv: bool,
        bounds: Bounds,
    ) -> Result<(Watch, u64), StoreError> {
        self.add(range, prev_kv, bounds, None)
    }

    /// A watch that somebody fetches the events for.
    pub(crate) fn register_remote(
        self: &Arc<Self>,
        range: KeyRange,
        prev_kv: bool,
        bounds: Bounds,
    ) -> Result<(Watch, Arc<Watcher>), StoreError> {
        let (watch, _) = self.add(range, prev_kv, bounds, Some(Notify::new()))?;
        let watcher = watch.watcher.clone();
        Ok((watch, watcher))
    }

    fn add(
        self: &Arc<Self>,
        range: KeyRange,
        prev_kv: bool,
        bounds: Bounds,
        source: Option<Notify>,
    ) -> Result<(Watch, u64), StoreError> {
        let watcher = Arc::new(Watcher { range, bounds, queue: Mutex::default(), notify: Notify::new(), source });
        let mut watchers = self.lock();
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        let published = self.published.load(Ordering::Acquire);
        watchers.push(watcher.clone());
        let watch = Watch {
            hub: self.clone(),
            watcher,
            prev_kv,
            from_revision: 0,
            seen: published,
            backlog: VecDeque::new(),
            progress_every: None,
            done: false,
        };
        Ok((watch, published))
    }

    pub(crate) fn close(&self) {
        self.end(&StoreError::Closed);
    }

    pub(crate) fn end(&self, error: &StoreError) {
        let mut watchers = self.lock();
        self.closed.store(true, Ordering::Release);
        for watcher in watchers.drain(..) {
            watcher.lock().ended.get_or_insert_with(|| error.clone());
            watcher.notify.notify_one();
        }
    }

    pub(crate) fn watchers(&self) -> usize {
        self.lock().len()
    }
}

/// Asks a watch, from elsewhere, for a progress notification. Cheap; requests that meet are answered once.
#[derive(Debug, Clone)]
pub struct ProgressRequester {
    watcher: Arc<Watcher>,
}

impl ProgressRequester {
    /// The watch will answer with the revision that it has then reached, after all events up to there.
    pub fn request(&self) {
        match &self.watcher.source {
            Some(source) => source.notify_one(),
            None => self.watcher.say_progress(),
        }
    }
}

/// A stream of events. It ends after an error, or with `Closed` when the store is closed.
#[derive(Debug)]
pub struct Watch {
    hub: Arc<Hub>,
    watcher: Arc<Watcher>,
    prev_kv: bool,
    /// Queued events before this are not for us.
    from_revision: u64,
    /// All events up to here have been handed out.
    seen: u64,
    backlog: VecDeque<Event>,
    progress_every: Option<Duration>,
    done: bool,
}

enum Turn {
    Batch(Result<WatchBatch, StoreError>),
    Wait,
}

impl Watch {
    /// Also sends progress notifications when nothing happened in the range for so long but the store went on.
    pub fn progress_every(mut self, interval: Duration) -> Self {
        self.progress_every = Some(interval);
        self
    }

    pub fn progress_requester(&self) -> ProgressRequester {
        ProgressRequester { watcher: self.watcher.clone() }
    }

    pub(crate) fn start(&mut self, from_revision: u64, backlog: Vec<Event>) {
        self.from_revision = from_revision;
        self.backlog = backlog.into();
    }

    /// The next batch; waits for it. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<WatchBatch, StoreError>> {
        let mut progress = false;
        loop {
            if self.done {
                return None;
            }
            if let Turn::Batch(batch) = self.turn(progress) {
                self.done = batch.is_err();
                return Some(batch);
            }
            let watcher = self.watcher.clone();
            progress = match self.progress_every {
                Some(interval) => tokio::time::timeout(interval, watcher.notify.notified()).await.is_err(),
                None => {
                    watcher.notify.notified().await;
                    false
                }
            };
        }
    }

    /// What is there now, without waiting.
    pub fn try_next(&mut self) -> Option<Result<WatchBatch, StoreError>> {
        match self.turn(false) {
            Turn::Batch(batch) if !self.done => {
                self.done = batch.is_err();
                Some(batch)
            }
            _ => None,
        }
    }

    fn turn(&mut self, progress: bool) -> Turn {
        // Read before the queue: whatever was published up to here is in the queue or already taken.
        let published = self.hub.published.load(Ordering::Acquire);
        if !self.backlog.is_empty() {
            if let Some(error) = self.watcher.lock().ended.clone() {
                return Turn::Batch(Err(error));
            }
            let events = self.take_backlog();
            return Turn::Batch(self.batch(events.iter()));
        }
        let mut queue = self.watcher.lock();
        let mut taken: Vec<Arc<Event>> = Vec::new();
        while let Some(event) = queue.events.front() {
            let same = taken.last().is_none_or(|l| l.version.mod_revision == event.version.mod_revision);
            if taken.len() >= BATCH_EVENTS && !same {
                break;
            }
            let Some(event) = queue.events.pop_front() else { break };
            queue.bytes -= event_bytes(&event);
            if event.version.mod_revision >= self.from_revision {
                taken.push(event);
            }
        }
        if !taken.is_empty() {
            drop(queue);
            return Turn::Batch(self.batch(taken.iter().map(|e| &**e)));
        }
        if let Some(error) = queue.ended.clone() {
            return Turn::Batch(Err(error));
        }
        let wanted = std::mem::take(&mut queue.progress_wanted);
        let due = progress && published > self.seen;
        if wanted || due {
            self.seen = self.seen.max(published);
            return Turn::Batch(Ok(WatchBatch { revision: self.seen, events: Vec::new() }));
        }
        Turn::Wait
    }

    fn take_backlog(&mut self) -> Vec<Event> {
        let mut taken: Vec<Event> = Vec::new();
        while let Some(event) = self.backlog.front() {
            let same = taken.last().is_none_or(|l| l.version.mod_revision == event.version.mod_revision);
            if taken.len() >= BATCH_EVENTS && !same {
                break;
            }
            taken.extend(self.backlog.pop_front());
        }
        if self.backlog.is_empty() {
            self.backlog = VecDeque::new();
        }
        taken
    }

    /// Reads values where they lie: from memory, or for the backlog and `prev` from the page cache as a rule. On purpose not
    /// asynchronous: events that have been taken from the queue must not be lost when the caller drops the future.
    fn batch<'a>(&mut self, events: impl Iterator<Item = &'a Event>) -> Result<WatchBatch, StoreError> {
        let prev_kv = self.prev_kv;
        let events: Vec<WatchEvent> = events.map(|e| load_event(e, prev_kv)).collect::<Result<_, _>>()?;
        let revision = events.last().map_or(self.seen, |e| e.kv.mod_revision);
        self.seen = self.seen.max(revision);
        Ok(WatchBatch { revision, events })
    }
}

fn load_event(event: &Event, prev_kv: bool) -> Result<WatchEvent, StoreError> {
    let prev = match event.prev.as_ref().filter(|_| prev_kv) {
        Some(version) => Some(Found { key: event.key.clone(), version: version.clone() }.load(false)?),
        None => None,
    };
    let version = &event.version;
    Ok(if version.is_tombstone() {
        let kv = KeyValue { key: event.key.clone(), mod_revision: version.mod_revision, ..KeyValue::default() };
        WatchEvent { kind: EventKind::Delete, kv, prev }
    } else {
        let kv = Found { key: event.key.clone(), version: version.clone() }.load(false)?;
        WatchEvent { kind: EventKind::Put, kv, prev }
    })
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watchers = self.hub.lock();
        watchers.retain(|w| !Arc::ptr_eq(w, &self.watcher));
        drop(watchers);
        if let Some(source) = &self.watcher.source {
            source.notify_one();
        }
    }
}
