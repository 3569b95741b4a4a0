//! Pods that wait for a node: ready ones by priority, failed ones backing off, unschedulable ones until something
//! changes, gated ones until their gates open.
//! Pure: time comes in as an argument. Invariant: a pod is in exactly one place; its number is bounded by the pods there are.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::framework::PluginSet;
use crate::pod::PodInfo;

/// How long pods wait after failing.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    pub initial: Duration,
    pub max: Duration,
    /// After this long an unschedulable pod is tried again even if nothing happened.
    pub unschedulable_max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(1),
            max: Duration::from_secs(10),
            unschedulable_max: Duration::from_secs(300),
        }
    }
}

impl Backoff {
    /// 1 s after the first failure, then doubling up to the maximum.
    fn after(&self, failures: u32) -> Duration {
        let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX).max(1);
        self.initial.saturating_mul(factor).min(self.max)
    }
}

pub(crate) type ActiveKey = (Reverse<i64>, Instant, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Active(ActiveKey),
    Backoff(Instant, u64),
    Unschedulable,
    Gated,
    InFlight,
}

/// A pod on its way to a node.
#[derive(Clone, Debug)]
pub struct Queued {
    pub pod: Arc<PodInfo>,
    pub attempts: u32,
    failures: u32,
    failed_at: Instant,
    /// Failed by an error (not by lack of room): its back-off is always served in full.
    by_error: bool,
    pub refused_by: PluginSet,
    sort: i64,
    added: Instant,
    pub(crate) place: Place,
}

#[derive(Default)]
pub struct Queue {
    backoff: Backoff,
    pub(crate) pods: HashMap<Arc<str>, Queued>,
    active: BTreeMap<ActiveKey, Arc<str>>,
    waiting: BTreeMap<(Instant, u64), Arc<str>>,
    unschedulable: BTreeSet<(Instant, Arc<str>)>,
    seq: u64,
}

impl Queue {
    pub fn new(backoff: Backoff) -> Self {
        Self { backoff, ..Self::default() }
    }

    fn set_place(&mut self, uid: &Arc<str>, place: Place) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        let old = std::mem::replace(&mut entry.place, place);
        let failed_at = entry.failed_at;
        match old {
            Place::Active(key) => drop(self.active.remove(&key)),
            Place::Backoff(until, seq) => drop(self.waiting.remove(&(until, seq))),
            Place::Unschedulable => drop(self.unschedulable.remove(&(failed_at, uid.clone()))),
            Place::Gated | Place::InFlight => {}
        }
        match place {
            Place::Active(key) => drop(self.active.insert(key, uid.clone())),
            Place::Backoff(until, seq) => drop(self.waiting.insert((until, seq), uid.clone())),
            Place::Unschedulable => drop(self.unschedulable.insert((failed_at, uid.clone()))),
            Place::Gated | Place::InFlight => {}
        }
    }

    fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    fn activate(&mut self, uid: &Arc<str>) {
        let seq = self.next_seq();
        let Some(entry) = self.pods.get(uid) else { return };
        self.set_place(uid, Place::Active((Reverse(entry.sort), entry.added, seq)));
    }

    /// Ready now, or once its back-off is over.
    fn release(&mut self, uid: &Arc<str>, now: Instant) {
        let Some(entry) = self.pods.get(uid) else { return };
        let until = entry.failed_at + self.backoff.after(entry.failures);
        if entry.failures == 0 || until <= now {
            self.activate(uid);
        } else {
            let seq = self.next_seq();
            self.set_place(uid, Place::Backoff(until, seq));
        }
    }

    /// Takes in a pod, or a new version of one. `gate` is the PreEnqueue verdict, `sort` the QueueSort key.
    /// A known pod keeps its place unless `changed` says that the change may make it schedulable.
    pub fn offer(&mut self, pod: Arc<PodInfo>, sort: i64, gated: bool, changed: bool, now: Instant) {
        let uid = pod.uid.clone();
        if let Some(entry) = self.pods.get_mut(&uid) {
            entry.pod = pod;
            entry.sort = sort;
            match (entry.place, gated) {
                (Place::InFlight, _) | (Place::Gated, true) => {}
                (_, true) => self.set_place(&uid, Place::Gated),
                (Place::Gated, false) | (Place::Active(_), false) => self.activate(&uid),
                (Place::Unschedulable, false) if changed => self.release(&uid, now),
                _ => {}
            }
            return;
        }
        let place = if gated { Place::Gated } else { Place::InFlight };
        let entry = Queued {
            pod,
            attempts: 0,
            failures: 0,
            failed_at: now,
            by_error: false,
            refused_by: PluginSet::default(),
            sort,
            added: now,
            place,
        };
        self.pods.insert(uid.clone(), entry);
        if !gated {
            self.activate(&uid);
        }
    }

    /// Forgets a pod that is bound, finished or deleted.
    pub fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let uid: Arc<str> = self.pods.get_key_value(uid)?.0.clone();
        self.set_place(&uid, Place::InFlight);
        self.pods.remove(&uid).map(|e| e.pod)
    }

    pub fn get(&self, uid: &str) -> Option<&Queued> {
        self.pods.get(uid)
    }

    /// The next pod to try. When no pod is ready, one that only serves its back-off may go early, as upstream lets it.
    pub fn pop(&mut self, now: Instant) -> Option<Queued> {
        self.flush(now);
        let uid = match self.active.first_key_value() {
            Some((_, uid)) => uid.clone(),
            None => self.waiting.values().find(|uid| self.pods.get(*uid).is_some_and(|e| !e.by_error))?.clone(),
        };
        self.set_place(&uid, Place::InFlight);
        let entry = self.pods.get_mut(&uid)?;
        entry.attempts += 1;
        Some(entry.clone())
    }

    /// No node fits: wait for an event that one of the refusing plugins cares about.
    pub fn park(&mut self, uid: &str, refused_by: PluginSet, now: Instant) {
        let Some(uid) = self.fail(uid, now, false) else { return };
        if let Some(entry) = self.pods.get_mut(&uid) {
            entry.refused_by = refused_by;
        }
        self.set_place(&uid, Place::Unschedulable);
    }

    /// Something went wrong: try again after the back-off.
    pub fn retry(&mut self, uid: &str, now: Instant) {
        let Some(uid) = self.fail(uid, now, true) else { return };
        self.release(&uid, now);
    }

    fn fail(&mut self, uid: &str, now: Instant, by_error: bool) -> Option<Arc<str>> {
        let uid = self.pods.get_key_value(uid)?.0.clone();
        self.set_place(&uid, Place::InFlight);
        let entry = self.pods.get_mut(&uid)?;
        entry.failures += 1;
        entry.failed_at = now;
        entry.by_error = by_error;
        Some(uid)
    }

    /// Moves the unschedulable pods that `helps` picks.
    pub fn wake(&mut self, now: Instant, helps: impl Fn(&Queued) -> bool) -> usize {
        let chosen: Vec<_> = self
            .unschedulable
            .iter()
            .filter(|(_, uid)| self.pods.get(uid).is_some_and(&helps))
            .map(|(_, uid)| uid.clone())
            .collect();
        chosen.iter().for_each(|uid| self.release(uid, now));
        chosen.len()
    }

    /// Moves pods whose back-off is over, and unschedulable ones that waited for too long.
    pub fn flush(&mut self, now: Instant) {
        while let Some((key, uid)) = self.waiting.first_key_value() {
            if key.0 > now {
                break;
            }
            let uid = uid.clone();
            self.activate(&uid);
        }
        while let Some((since, uid)) = self.unschedulable.first() {
            if *since + self.backoff.unschedulable_max > now {
                break;
            }
            let uid = uid.clone();
            self.release(&uid, now);
        }
    }

    /// When `flush` will next have something to do.
    pub fn next_flush(&self) -> Option<Instant> {
        let backoff = self.waiting.first_key_value().map(|((at, _), _)| *at);
        let parked = self.unschedulable.first().map(|(since, _)| *since + self.backoff.unschedulable_max);
        backoff.into_iter().chain(parked).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod_info;

    fn pod(uid: &str) -> Arc<PodInfo> {
        Arc::new(pod_info(&format!(r#"{{"metadata":{{"name":"{uid}","uid":"{uid}"}},"spec":{{"containers":[]}}}}"#)))
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn pop(queue: &mut Queue, now: Instant) -> Option<String> {
        queue.pop(now).map(|q| q.pod.uid.to_string())
    }

    #[test]
    fn priority_then_time_then_order() {
        let now = Instant::now();
        let mut queue = Queue::default();
        for (uid, sort, at) in [("late", 0, 2), ("early", 0, 1), ("high", 9, 3), ("same", 0, 1)] {
            queue.offer(pod(uid), sort, false, false, now + seconds(at));
        }
        let order: Vec<_> = std::iter::from_fn(|| pop(&mut queue, now)).collect();
        assert_eq!(order, ["high", "early", "same", "late"]);
        assert!(queue.pods.values().all(|queued| queued.place == Place::InFlight));
    }

    #[test]
    fn back_off_doubles_to_ten_seconds() {
        let backoff = Backoff::default();
        let got: Vec<_> = (1..=6).chain([40]).map(|n| backoff.after(n).as_secs()).collect();
        assert_eq!(got, [1, 2, 4, 8, 10, 10, 10]);
    }

    #[test]
    fn an_error_waits_out_its_back_off() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.offer(pod("a"), 0, false, false, now);
        queue.pop(now);
        queue.retry("a", now);
        assert_eq!((pop(&mut queue, now), queue.next_flush()), (None, Some(now + seconds(1))));
        assert_eq!(pop(&mut queue, now + seconds(1)), Some("a".to_owned()));
    }

    #[test]
    fn unschedulable_pods_move_on_events_or_after_five_minutes() {
        let now = Instant::now();
        let mut queue = Queue::default();
        for uid in ["a", "b"] {
            queue.offer(pod(uid), 0, false, false, now);
            queue.pop(now);
            let mut by = PluginSet::default();
            by.insert(usize::from(uid == "b"));
            queue.park(uid, by, now);
        }
        assert_eq!(queue.wake(now, |q| q.refused_by.contains(0)), 1);
        // idle queue: the pod in back-off may go early
        assert_eq!(pop(&mut queue, now), Some("a".to_owned()));
        assert_eq!(pop(&mut queue, now + seconds(299)), None);
        assert_eq!(pop(&mut queue, now + seconds(300)), Some("b".to_owned()));
    }

    #[test]
    fn gates_changes_and_removal() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.offer(pod("a"), 0, true, false, now);
        assert_eq!((pop(&mut queue, now), queue.pods["a"].place), (None, Place::Gated));
        queue.offer(pod("a"), 0, false, false, now);
        assert_eq!(pop(&mut queue, now), Some("a".to_owned()));
        queue.park("a", PluginSet::default(), now);
        queue.offer(pod("a"), 0, false, false, now);
        assert_eq!(queue.pods["a"].place, Place::Unschedulable);
        queue.offer(pod("a"), 0, false, true, now);
        assert!(matches!(queue.pods["a"].place, Place::Backoff(..)));
        assert!(queue.remove("a").is_some() && queue.remove("a").is_none());
        assert!(queue.active.is_empty() && queue.waiting.is_empty() && queue.unschedulable.is_empty());
    }
}
