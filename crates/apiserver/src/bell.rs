//! Wakes the watchers of one resource.
//!
//! Invariant: every end that was rung becomes known to all of them, at once or at the end of the round. A round lasts the
//! longer the more watchers there are: waking a thousand for every single change would cost more than the changes do.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// What one watcher adds to a round: about what it costs to wake it and to write to its connection.
const ROUND_PER_WATCHER: Duration = Duration::from_micros(20);
/// A change waits no longer than this, however many watchers there are.
const LONGEST_ROUND: Duration = Duration::from_millis(20);
/// Timers are no finer; shorter rounds are none.
const SHORTEST_ROUND: Duration = Duration::from_millis(1);

pub struct Bell {
    /// The sequence number after the last change that watchers are to read.
    pub end: watch::Sender<u64>,
    round: Mutex<Round>,
}

#[derive(Default)]
struct Round {
    began: Option<Instant>,
    /// Somebody rings at its end.
    awaited: bool,
    newest: u64,
}

impl Default for Bell {
    fn default() -> Self {
        Bell { end: watch::channel(0).0, round: Mutex::default() }
    }
}

impl Bell {
    /// Makes a new end known: at once when the last round is over.
    pub fn ring(self: &Arc<Self>, end: u64) {
        let mut round = self.round.lock().unwrap_or_else(PoisonError::into_inner);
        round.newest = end;
        if round.awaited {
            return;
        }
        let watchers = u32::try_from(self.end.receiver_count()).unwrap_or(u32::MAX);
        let lasts = ROUND_PER_WATCHER.saturating_mul(watchers).min(LONGEST_ROUND);
        let now = Instant::now();
        let over = round.began.map_or(now, |began| began + lasts);
        if lasts < SHORTEST_ROUND || over <= now {
            round.began = Some(now);
            self.end.send_replace(end);
            return;
        }
        round.awaited = true;
        let bell = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep_until(over).await;
            let mut round = bell.round.lock().unwrap_or_else(PoisonError::into_inner);
            *round = Round { began: Some(Instant::now()), awaited: false, newest: round.newest };
            bell.end.send_replace(round.newest);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_watchers_are_woken_in_rounds_and_few_at_once() {
        let bell = Arc::new(Bell::default());
        let mut watchers: Vec<_> = (0..500).map(|_| bell.end.subscribe()).collect();
        let began = Instant::now();
        bell.ring(1);
        assert_eq!(*watchers[0].borrow_and_update(), 1, "the first change is told at once");
        bell.ring(2);
        bell.ring(3);
        assert_eq!(*watchers[0].borrow(), 1);
        watchers[0].changed().await.unwrap();
        assert_eq!((*watchers[0].borrow_and_update(), began.elapsed()), (3, Duration::from_millis(10)));
        tokio::time::sleep(Duration::from_millis(10)).await;
        bell.ring(4);
        assert_eq!(*watchers[0].borrow_and_update(), 4);
        watchers.truncate(20);
        bell.ring(5);
        bell.ring(6);
        assert_eq!(*watchers[0].borrow(), 6);
    }
}
