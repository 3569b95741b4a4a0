//! The work queue of a controller and the workers that drain it.
//! Reads and writes memory only. Invariant: an item is waiting at most once and worked on by at most one worker at a time; an
//! item added while in work comes again after `done`. The queue holds each distinct item once, so it is bounded by the number
//! of objects there are.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const DELAY_FIRST: Duration = Duration::from_millis(5);
const DELAY_MAX: Duration = Duration::from_secs(120);

struct State<T> {
    ready: VecDeque<T>,
    /// Items in `ready`, or in work and to come again.
    dirty: HashSet<T>,
    in_work: HashSet<T>,
    /// By due time; the number keeps items of the same instant apart and in order.
    delayed: BTreeMap<(Instant, u64), T>,
    delayed_at: HashMap<T, (Instant, u64)>,
    failures: HashMap<T, u32>,
    sequence: u64,
    closed: bool,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Notify,
    delay_first: Duration,
    delay_max: Duration,
}

/// A deduplicating queue with delays and per-item back-off. Cheap to clone.
pub struct WorkQueue<T>(Arc<Shared<T>>);

impl<T> Clone for WorkQueue<T> {
    fn clone(&self) -> Self {
        WorkQueue(self.0.clone())
    }
}

impl<T: Clone + Eq + Hash> Default for WorkQueue<T> {
    fn default() -> Self {
        WorkQueue::new()
    }
}

impl<T: Clone + Eq + Hash> WorkQueue<T> {
    pub fn new() -> Self {
        WorkQueue::with_backoff(DELAY_FIRST, DELAY_MAX)
    }

    /// The back-off of `add_rate_limited` starts at `first` and doubles up to `max`.
    pub fn with_backoff(first: Duration, max: Duration) -> Self {
        WorkQueue(Arc::new(Shared {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                dirty: HashSet::new(),
                in_work: HashSet::new(),
                delayed: BTreeMap::new(),
                delayed_at: HashMap::new(),
                failures: HashMap::new(),
                sequence: 0,
                closed: false,
            }),
            changed: Notify::new(),
            delay_first: first,
            delay_max: max,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, item: T) {
        self.lock().push(item);
        self.0.changed.notify_one();
    }

    /// Adds the item after the delay; of several pending delays of one item the earliest counts.
    pub fn add_after(&self, item: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(item);
        }
        let at = Instant::now() + delay;
        {
            let mut state = self.lock();
            if let Some(&known) = state.delayed_at.get(&item) {
                if known.0 <= at {
                    return;
                }
                state.delayed.remove(&known);
            }
            state.sequence += 1;
            let place = (at, state.sequence);
            state.delayed.insert(place, item.clone());
            state.delayed_at.insert(item, place);
        }
        self.0.changed.notify_one();
    }

    /// Adds the item after a delay that doubles with each call until `forget`.
    pub fn add_rate_limited(&self, item: T) {
        let failures = {
            let mut state = self.lock();
            let count = state.failures.entry(item.clone()).or_insert(0);
            *count += 1;
            *count - 1
        };
        let delay = self.0.delay_first.saturating_mul(1 << failures.min(30)).min(self.0.delay_max);
        self.add_after(item, delay);
    }

    /// Forgets the failures of an item.
    pub fn forget(&self, item: &T) {
        self.lock().failures.remove(item);
    }

    /// How often the item failed since `forget`.
    pub fn failures(&self, item: &T) -> u32 {
        self.lock().failures.get(item).copied().unwrap_or(0)
    }

    /// Items ready to be worked on.
    pub fn len(&self) -> usize {
        self.lock().ready.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next item, or None once the queue is closed. Call `done` with it afterwards.
    pub async fn next(&self) -> Option<T> {
        loop {
            let due = {
                let mut state = self.lock();
                if state.closed {
                    return None;
                }
                state.promote(Instant::now());
                if let Some(item) = state.ready.pop_front() {
                    state.dirty.remove(&item);
                    state.in_work.insert(item.clone());
                    if !state.ready.is_empty() {
                        self.0.changed.notify_one();
                    }
                    return Some(item);
                }
                state.delayed.keys().next().map(|(at, _)| *at)
            };
            match due {
                Some(at) => tokio::select! {
                    () = self.0.changed.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => self.0.changed.notified().await,
            }
        }
    }

    /// Ends the work on an item; it comes again at once if it was added meanwhile.
    pub fn done(&self, item: T) {
        let again = {
            let mut state = self.lock();
            state.in_work.remove(&item);
            let again = state.dirty.contains(&item);
            if again {
                state.ready.push_back(item);
            }
            again
        };
        if again {
            self.0.changed.notify_one();
        }
    }

    /// Makes `next` return None for every worker.
    pub fn close(&self) {
        self.lock().closed = true;
        self.0.changed.notify_waiters();
        self.0.changed.notify_one();
    }
}

impl<T: Clone + Eq + Hash> State<T> {
    fn push(&mut self, item: T) {
        if self.closed || !self.dirty.insert(item.clone()) || self.in_work.contains(&item) {
            return;
        }
        self.ready.push_back(item);
    }

    fn promote(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let item = entry.remove();
            self.delayed_at.remove(&item);
            self.push(item);
        }
    }
}

/// What a worker wants after an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Done,
    RequeueAfter(Duration),
}

/// Runs `count` workers over the queue until `shutdown`; then work in progress is dropped and the queue closed. An error or a
/// panic brings the item back with back-off.
pub async fn run_workers<T, F, Fut, E>(queue: WorkQueue<T>, count: usize, shutdown: CancellationToken, work: F)
where
    T: Clone + Eq + Hash + Debug + Send + 'static,
    F: Fn(T) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Action, E>> + Send + 'static,
    E: Display + Send + 'static,
{
    let mut workers = JoinSet::new();
    for _ in 0..count.max(1) {
        let (queue, work) = (queue.clone(), work.clone());
        workers.spawn(async move {
            while let Some(item) = queue.next().await {
                let outcome = AssertUnwindSafe(work(item.clone())).catch_unwind().await;
                settle(&queue, item, outcome);
            }
        });
    }
    shutdown.cancelled().await;
    queue.close();
    workers.shutdown().await;
}

fn settle<T, E>(queue: &WorkQueue<T>, item: T, outcome: std::thread::Result<Result<Action, E>>)
where
    T: Clone + Eq + Hash + Debug,
    E: Display,
{
    match outcome {
        Ok(Ok(Action::Done)) => queue.forget(&item),
        Ok(Ok(Action::RequeueAfter(delay))) => {
            queue.forget(&item);
            queue.add_after(item.clone(), delay);
        }
        Ok(Err(error)) => {
            tracing::trace!(?item, %error, failures = queue.failures(&item), "work failed, will retry");
            queue.add_rate_limited(item.clone());
        }
        Err(_) => {
            tracing::error!(?item, "work panicked, will retry");
            queue.add_rate_limited(item.clone());
        }
    }
    queue.done(item);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use expect_test::expect;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_same_item_waits_once() {
        let queue = WorkQueue::new();
        queue.add("a");
        queue.add("b");
        queue.add("a");
        assert_eq!(queue.next().await, Some("a"));
        assert_eq!(queue.next().await, Some("b"));
        assert!(queue.next().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_item_in_work_comes_again_after_done() {
        let queue = WorkQueue::new();
        queue.add("a");
        assert_eq!(queue.next().await, Some("a"));
        queue.add("a");
        queue.add("a");
        assert!(queue.next().now_or_never().is_none());
        queue.done("a");
        assert_eq!(queue.next().await, Some("a"));
        queue.done("a");
        assert!(queue.next().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn delays_and_backoff() {
        let queue = WorkQueue::new();
        let start = Instant::now();
        queue.add_after("late", Duration::from_secs(3));
        queue.add_after("late", Duration::from_secs(9));
        queue.add_after("soon", Duration::from_secs(8));
        queue.add_after("soon", Duration::from_secs(1));
        let mut out = String::new();
        for _ in 0..2 {
            let item = queue.next().await.unwrap();
            out.push_str(&format!("{item} at {:?}\n", start.elapsed()));
            queue.done(item);
        }
        for _ in 0..4 {
            let before = Instant::now();
            queue.add_rate_limited("bad");
            let item = queue.next().await.unwrap();
            out.push_str(&format!("{item} after {:?}\n", before.elapsed()));
            queue.done(item);
        }
        queue.forget(&"bad");
        out.push_str(&format!("failures {}\n", queue.failures(&"bad")));
        expect![[r#"
            soon at 1s
            late at 3s
            bad after 5ms
            bad after 10ms
            bad after 20ms
            bad after 40ms
            failures 0
        "#]]
        .assert_eq(&out);
    }

    #[tokio::test(start_paused = true)]
    async fn workers_retry_errors_and_panics_and_end_at_shutdown() {
        let queue = WorkQueue::new();
        let shutdown = CancellationToken::new();
        let calls = Arc::new(AtomicU32::new(0));
        queue.add("a");
        let (seen, stop) = (calls.clone(), shutdown.clone());
        run_workers(queue.clone(), 2, shutdown, move |_| {
            let (seen, stop) = (seen.clone(), stop.clone());
            async move {
                match seen.fetch_add(1, Ordering::SeqCst) {
                    0 => Err("fails"),
                    1 => panic!("a test panics on purpose"),
                    2 => Ok(Action::RequeueAfter(Duration::from_secs(5))),
                    _ => {
                        stop.cancel();
                        Ok(Action::Done)
                    }
                }
            }
        })
        .await;
        assert_eq!(calls.load(Ordering::SeqCst), 4);
        assert_eq!(queue.next().await, None);
    }
}
