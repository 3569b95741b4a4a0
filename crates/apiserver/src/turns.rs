//! Large lists take turns: one core is left to everything else, so that what is small finds a thread soon.
//!
//! Reads: the clock. Invariants: a turn ends with its list, or once its client has not read for [`PATIENCE`], so slow
//! clients hold up nobody; turns are given in the order they were asked for.

use std::num::NonZero;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How long a turn may lie unused while others wait.
const PATIENCE: Duration = Duration::from_millis(10);

static TURNS: LazyLock<Arc<Turns>> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    Arc::new(Turns::new(cores.saturating_sub(1).max(1)))
});

pub struct Turns {
    free: Semaphore,
    began: Instant,
    taken: Mutex<Vec<Arc<Use>>>,
    waiting: AtomicUsize,
}

/// Counts one who waits, for as long as it does.
struct Waiting<'t>(&'t AtomicUsize);

impl<'t> Waiting<'t> {
    fn new(count: &'t AtomicUsize) -> Waiting<'t> {
        count.fetch_add(1, Ordering::Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How a turn is used.
struct Use {
    /// Milliseconds since `Turns::began`.
    last: AtomicU64,
    over: AtomicBool,
}

/// The right to write a large list.
pub struct Turn {
    turns: Arc<Turns>,
    used: Arc<Use>,
}

/// Waits for a turn of this process.
pub async fn take() -> Turn {
    TURNS.take().await
}

impl Turns {
    fn new(at_once: usize) -> Turns {
        let free = Semaphore::new(at_once);
        Turns { free, began: Instant::now(), taken: Mutex::default(), waiting: AtomicUsize::new(0) }
    }

    fn taken(&self) -> MutexGuard<'_, Vec<Arc<Use>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn take(self: &Arc<Self>) -> Turn {
        let waiting = Waiting::new(&self.waiting);
        let mut free = pin!(self.free.acquire());
        // It keeps its place in the queue meanwhile.
        let permit = loop {
            match timeout(PATIENCE, free.as_mut()).await {
                Ok(permit) => break permit,
                Err(_) => self.end_unused(),
            }
        };
        drop(waiting);
        // The end of the turn gives it back. The semaphore is never closed.
        permit.expect("an open semaphore").forget();
        let used = Arc::new(Use { last: AtomicU64::new(self.now()), over: AtomicBool::new(false) });
        self.taken().push(used.clone());
        Turn { turns: self.clone(), used }
    }

    fn end_unused(&self) {
        let before = self.now().saturating_sub(PATIENCE.as_millis() as u64);
        self.taken().retain(|used| {
            let unused = used.last.load(Ordering::Relaxed) < before;
            if unused {
                self.end(used);
            }
            !unused
        });
    }

    fn end(&self, used: &Use) {
        if !used.over.swap(true, Ordering::AcqRel) {
            self.free.add_permits(1);
        }
    }
}

impl Turn {
    /// Whether others wait for one.
    pub fn is_wanted(&self) -> bool {
        self.turns.waiting.load(Ordering::Relaxed) > 0
    }

    /// The list is being written.
    pub fn touch(&self) {
        self.used.last.store(self.turns.now(), Ordering::Relaxed);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.taken().retain(|used| !Arc::ptr_eq(used, &self.used));
        self.turns.end(&self.used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_does_not_read_holds_up_nobody() {
        let turns = Arc::new(Turns::new(1));
        let slow = turns.take().await;
        let next = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take().await }
        });
        while !slow.is_wanted() {
            tokio::task::yield_now().await;
        }
        // As long as it is used, nobody else has a turn.
        for _ in 0..20 {
            slow.touch();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(slow.used.over.load(Ordering::Relaxed) || !next.is_finished());
        let next = next.await.unwrap();
        assert!(!next.is_wanted());
        assert!(slow.used.over.load(Ordering::Relaxed));
        // Its end gives nothing back once more.
        drop(slow);
        assert_eq!(turns.free.available_permits(), 0);
        drop(next);
        assert_eq!((turns.free.available_permits(), turns.taken().len()), (1, 0));
    }
}
