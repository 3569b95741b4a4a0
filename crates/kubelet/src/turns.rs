//! Who makes or stops a sandbox now: a burst of pods is started a few at a time, in order, so that the first are ready long
//! before the last, instead of all of them at the very end.
//!
//! Reads and writes nothing. Invariant: a turn ends after [`LONGEST_TURN`] at the latest, so that a network plugin that hangs
//! for some pods never keeps the others from starting.

use std::future::Future;
use std::time::Duration;

use tokio::sync::Semaphore;

/// What takes longer goes on, but others go on beside it.
const LONGEST_TURN: Duration = Duration::from_secs(2);

/// Turns, taken in order of asking.
pub struct Turns(Semaphore);

impl Turns {
    /// Twice as many at once as there are CPUs: half of the work is waiting for locks and for the kernel.
    pub fn new(cpus: i64) -> Turns {
        Turns(Semaphore::new((cpus.clamp(1, 64) * 2) as usize))
    }

    /// Does `work` when its turn has come.
    pub async fn take<T>(&self, work: impl Future<Output = T>) -> T {
        let turn = self.0.acquire().await;
        let mut work = std::pin::pin!(work);
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(LONGEST_TURN) => drop(turn),
        }
        work.await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test(start_paused = true)]
    async fn in_order_and_never_stuck() {
        let turns = Turns::new(1);
        let (now, most, done) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
        let work = |index: u64, seconds: u64| {
            let (turns, now, most, done) = (&turns, &now, &most, &done);
            turns.take(async move {
                most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                now.fetch_sub(1, Ordering::Relaxed);
                done.lock().expect("no panic").push(index);
            })
        };
        futures::future::join_all((0..6).map(|index| work(index, 1))).await;
        assert_eq!((most.load(Ordering::Relaxed), &*done.lock().expect("no panic")), (2, &vec![0, 1, 2, 3, 4, 5]));
        done.lock().expect("no panic").clear();
        futures::future::join_all([(0, 100), (1, 100), (2, 1), (3, 1)].map(|(index, time)| work(index, time))).await;
        assert_eq!(*done.lock().expect("no panic"), [2, 3, 0, 1]);
    }
}
