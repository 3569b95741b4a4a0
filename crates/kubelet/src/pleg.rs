//! Noticing what happens in the runtime: lists its sandboxes and containers each second, listens to its events where it has
//! them, and wakes the workers of pods that changed.
//!
//! Reads CRI; writes nothing. Invariant: every change is noticed within a second while the runtime answers, and after it
//! came back everything is looked at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;
use crate::observed;

/// Between two lists.
const RELIST: Duration = Duration::from_secs(1);
/// The longest wait while the runtime is away.
const LONGEST_RETRY: Duration = Duration::from_secs(5);
/// A stream of events that broke is opened again after this.
const REOPEN: Duration = Duration::from_secs(5);

type Prints = BTreeMap<String, Vec<(String, i32)>>;

/// When the runtime was last heard. Cheap to clone.
#[derive(Clone)]
pub struct Heard(Arc<HeardInner>);

struct HeardInner {
    at: Mutex<Option<Instant>>,
    begun: Instant,
    away: Mutex<bool>,
    changed: Notify,
}

impl Heard {
    pub fn new() -> Heard {
        Heard(Arc::new(HeardInner {
            at: Mutex::new(None),
            begun: Instant::now(),
            away: Mutex::new(true),
            changed: Notify::new(),
        }))
    }

    fn answered(&self) -> bool {
        *self.0.at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let was_away = std::mem::replace(&mut *self.0.away.lock().unwrap_or_else(PoisonError::into_inner), false);
        if was_away {
            self.0.changed.notify_one();
        }
        was_away
    }

    fn silent(&self) {
        *self.0.away.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Since the last answer; a runtime that never answered is silent for ever.
    pub fn silent_for(&self) -> Duration {
        match *self.0.at.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(at) => at.elapsed(),
            None => self.0.begun.elapsed() + Duration::from_secs(3600),
        }
    }

    /// Returns when the runtime came back.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }
}

/// Uids whose state differs between two lists.
pub fn changed<'a>(old: &'a Prints, new: &'a Prints) -> Vec<&'a str> {
    let mut uids: Vec<&str> =
        new.iter().filter(|(uid, states)| old.get(*uid) != Some(*states)).map(|(uid, _)| uid.as_str()).collect();
    uids.extend(old.keys().filter(|uid| !new.contains_key(*uid)).map(String::as_str));
    uids
}

/// Watches the runtime until `shutdown`. `orphan` is called with uids the API does not have.
pub async fn run(agent: Arc<Agent>, heard: Heard, shutdown: CancellationToken, orphan: impl Fn(&str)) {
    let mut known = Prints::new();
    let mut failures = 0u32;
    loop {
        let pause = match observed::fingerprints(&agent.cri, &agent.config.owner).await {
            Ok(now) => {
                failures = 0;
                if heard.answered() {
                    tracing::info!("the container runtime answers");
                    agent.registry.wake_all();
                }
                for uid in changed(&known, &now) {
                    // mostly it is the worker's own doing, which it has seen
                    let seen = agent.registry.get(uid).map(|cell| cell.observed().fingerprint());
                    if seen.is_none() || seen.as_ref() != now.get(uid) {
                        agent.registry.wake(uid);
                    }
                }
                for uid in now.keys().filter(|uid| agent.registry.get(uid).is_none()) {
                    orphan(uid);
                }
                known = now;
                RELIST
            }
            Err(error) => {
                failures += 1;
                heard.silent();
                if failures == 2 {
                    tracing::warn!(%error, "the container runtime does not answer; pods go on, nothing new starts");
                }
                (RELIST / 4 * failures.min(20)).min(LONGEST_RETRY)
            }
        };
        tokio::select! { () = shutdown.cancelled() => return, () = tokio::time::sleep(pause) => {} }
    }
}

/// Listens to the runtime's events, where it has them, until `shutdown`.
pub async fn listen(agent: Arc<Agent>, shutdown: CancellationToken) {
    loop {
        match agent.cri.container_events().await {
            Ok(mut stream) => loop {
                let event = tokio::select! {
                    () = shutdown.cancelled() => return,
                    event = cri::Client::next_event(&mut stream) => event,
                };
                match event {
                    Ok(Some(event)) => {
                        let metadata = event.pod_sandbox_status.and_then(|status| status.metadata);
                        metadata.iter().for_each(|metadata| agent.registry.wake(&metadata.uid));
                    }
                    Ok(None) => break,
                    // containerd 1.6 accepts the call and says only then that it lacks it
                    Err(error) if error.is_unimplemented() => return,
                    Err(error) => {
                        tracing::debug!(%error, "the stream of container events broke");
                        break;
                    }
                }
            },
            Err(error) if error.is_unimplemented() => return,
            Err(error) => tracing::debug!(%error, "no stream of container events"),
        }
        tokio::select! { () = shutdown.cancelled() => return, () = tokio::time::sleep(REOPEN) => {} }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_changes() {
        let prints = |list: &[(&str, i32)]| -> Prints {
            list.iter().map(|(uid, state)| (uid.to_string(), vec![("id".to_string(), *state)])).collect()
        };
        let (old, new) = (prints(&[("a", 1), ("b", 1), ("c", 1)]), prints(&[("a", 1), ("b", 2), ("d", 0)]));
        assert_eq!(changed(&old, &new), ["b", "d", "c"]);
    }
}
