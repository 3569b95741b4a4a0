//! How many at once: the place of priority and fairness in the request path.
//!
//! Today a bound on reads and one on writes under way, as upstream's `--max-requests-inflight`; watches and streams do
//! not count. Invariant: a place taken is given back when its guard drops.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use meta::Status;

use crate::config::Limits;
use crate::request::Verb;

#[derive(Debug)]
pub struct Flow {
    reads: Arc<Lane>,
    writes: Arc<Lane>,
}

#[derive(Debug)]
struct Lane {
    limit: usize,
    used: AtomicUsize,
}

/// A place among the requests under way.
#[derive(Debug)]
pub struct Place(Arc<Lane>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::Release);
    }
}

impl Flow {
    pub fn new(limits: &Limits) -> Flow {
        let lane = |limit| Arc::new(Lane { limit, used: AtomicUsize::new(0) });
        Flow { reads: lane(limits.reads), writes: lane(limits.writes) }
    }

    /// Takes a place; `None` for a request that needs none because it lasts.
    pub fn enter(&self, verb: Option<Verb>) -> Result<Option<Place>, Status> {
        let lane = match verb {
            Some(Verb::Watch | Verb::Connect) => return Ok(None),
            Some(verb) if verb.is_mutating() => &self.writes,
            _ => &self.reads,
        };
        if lane.used.fetch_add(1, Ordering::Acquire) >= lane.limit {
            lane.used.fetch_sub(1, Ordering::Release);
            return Err(Status::too_many_requests("too many requests, please try again later", 1));
        }
        Ok(Some(Place(lane.clone())))
    }

    /// Reads and writes under way.
    pub fn used(&self) -> (usize, usize) {
        (self.reads.used.load(Ordering::Relaxed), self.writes.used.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_given_back() {
        let flow = Flow::new(&Limits { reads: 1, writes: 1, ..Limits::default() });
        let place = flow.enter(Some(Verb::Get)).expect("free");
        assert_eq!(flow.enter(Some(Verb::List)).expect_err("full").code, 429);
        assert!(flow.enter(Some(Verb::Watch)).expect("not counted").is_none());
        assert!(flow.enter(Some(Verb::Create)).is_ok());
        drop(place);
        assert!(flow.enter(Some(Verb::Get)).is_ok());
    }
}
