//! The store's clock: how leases learn that time has passed. Reads the monotonic clock; tests turn their own.
//! Invariant: never goes back.

use std::fmt::Debug;
use std::time::{Duration, Instant};

pub trait Clock: Send + Sync + Debug + 'static {
    /// Time since some fixed moment.
    fn now(&self) -> Duration;
}

#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that stands still until it is turned. After [`ManualClock::advance`] the store notices at its next request, or at once after
/// [`crate::Embedded::poke`].
#[derive(Debug, Default)]
pub struct ManualClock {
    now_ms: std::sync::atomic::AtomicU64,
}

impl ManualClock {
    pub fn advance(&self, by: Duration) {
        self.now_ms.fetch_add(by.as_millis() as u64, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.now_ms.load(std::sync::atomic::Ordering::SeqCst))
    }
}
