//! The watch cache of one resource: its objects now, and its latest changes.
//!
//! Fed by one store watch (see `feed`), read by get, list and watch without parsing. Invariants: `objects` is exactly
//! the state at `rv`; `ring` holds every change after `floor`, in order; both are bounded (the ring by count and bytes).

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use compact_str::CompactString;
use tokio::sync::watch;

use crate::bell::Bell;
use crate::event::Event;
use crate::object::Object;

/// Changes kept per resource.
const RING_EVENTS: usize = 8192;
/// Bytes of objects that the changes may keep alive per resource.
const RING_BYTES: usize = 32 << 20;

#[derive(Default)]
pub struct Cache {
    state: RwLock<State>,
    bell: Arc<Bell>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<CompactString, Arc<Object>>,
    ring: VecDeque<Arc<Event>>,
    ring_bytes: usize,
    /// The sequence number of the first event in the ring.
    first: u64,
    /// The revision of the latest change of this resource.
    rv: u64,
    /// Every change after this revision is in the ring.
    floor: u64,
}

/// The watcher was so slow that the ring no longer holds what it has to see next.
#[derive(Debug, PartialEq)]
pub struct Lagged;

/// A consistent picture of some of the objects.
pub struct Snapshot {
    pub objects: Vec<Arc<Object>>,
    /// More objects follow after the limit.
    pub more: bool,
    /// How many objects follow after the limit.
    pub remaining: usize,
    /// The revision of the latest change of the resource.
    pub rv: u64,
    /// The picture is the same at all revisions from here on until the next change.
    pub since: u64,
    /// Where a watch that continues from here starts reading.
    pub cursor: u64,
}

/// A key, the revision of its change and its new state; `None` deletes.
pub type Change = (CompactString, u64, Option<Arc<Object>>);

impl Cache {
    fn read(&self) -> RwLockReadGuard<'_, State> {
        // A panic while the lock was held is a bug elsewhere; the state itself is changed in whole steps.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces everything by the state at `revision`; changes before it are unknown here.
    pub fn reset(&self, objects: impl IntoIterator<Item = Arc<Object>>, revision: u64) {
        let mut state = self.write();
        state.objects = objects.into_iter().map(|o| (o.key.clone(), o)).collect();
        state.first += state.ring.len() as u64;
        state.ring = VecDeque::new();
        state.ring_bytes = 0;
        state.rv = state.objects.values().map(|o| o.rv).max().unwrap_or(0);
        state.floor = revision;
    }

    /// Applies the changes of one revision (or of several, in order) in one step.
    pub fn apply(&self, changes: impl IntoIterator<Item = Change>) {
        let next = {
            let mut state = self.write();
            for (key, rv, new) in changes {
                state.rv = state.rv.max(rv);
                let old = match &new {
                    Some(object) => state.objects.insert(key, object.clone()),
                    None => state.objects.remove(&key),
                };
                if old.is_none() && new.is_none() {
                    continue;
                }
                let event = Arc::new(Event::new(rv, old, new));
                state.ring_bytes += event.size_bytes();
                state.ring.push_back(event);
            }
            state.trim();
            state.first + state.ring.len() as u64
        };
        self.bell.ring(next);
    }

    pub fn get(&self, key: &str) -> Option<Arc<Object>> {
        self.read().objects.get(key).cloned()
    }

    pub fn len(&self) -> usize {
        self.read().objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The revision of the latest change.
    pub fn rv(&self) -> u64 {
        self.read().rv
    }

    /// The revision from which on everything is as it is now: it grows with every change.
    pub fn since(&self) -> u64 {
        let state = self.read();
        state.rv.max(state.floor)
    }

    /// The objects whose key starts with `prefix` and follows `after` (empty: all), that `keep` takes, at most `limit`
    /// (0: all). `count_rest` counts what follows the limit.
    pub fn snapshot(
        &self,
        prefix: &str,
        after: &str,
        limit: usize,
        count_rest: bool,
        mut keep: impl FnMut(&Object) -> bool,
    ) -> Snapshot {
        let state = self.read();
        let from = if after.is_empty() { Bound::Included(prefix) } else { Bound::Excluded(after) };
        let mut rest =
            state.objects.range::<str, _>((from, Bound::Unbounded)).take_while(|(k, _)| k.starts_with(prefix));
        let mut objects = Vec::new();
        let mut more = false;
        for (_, object) in rest.by_ref() {
            if !keep(object) {
                continue;
            }
            if limit > 0 && objects.len() == limit {
                more = true;
                break;
            }
            objects.push(object.clone());
        }
        let remaining = match (more, count_rest) {
            (false, _) => 0,
            (true, false) => 1,
            // The first page of everything: no need to walk over the rest.
            (true, true) if prefix.is_empty() && after.is_empty() => state.objects.len() - objects.len(),
            (true, true) => 1 + rest.count(),
        };
        let cursor = state.first + state.ring.len() as u64;
        Snapshot { objects, more, remaining, rv: state.rv, since: state.rv.max(state.floor), cursor }
    }

    /// Where reading starts to see every change after revision `rv`; `None` when the ring does not reach back so far.
    /// Beside it the revision of the latest change.
    pub fn cursor_after(&self, rv: u64) -> (Option<u64>, u64) {
        let state = self.read();
        if rv < state.floor {
            return (None, state.rv);
        }
        let at = state.ring.partition_point(|e| e.rv <= rv);
        (Some(state.first + at as u64), state.rv)
    }

    /// The end of the ring, and the revision up to which it reaches.
    pub fn end(&self) -> (u64, u64) {
        let state = self.read();
        (state.first + state.ring.len() as u64, state.rv)
    }

    /// Reads at most `max` events from `cursor` on and before `until`, and moves the cursor.
    pub fn read_from(&self, cursor: &mut u64, until: u64, max: usize, out: &mut Vec<Arc<Event>>) -> Result<(), Lagged> {
        let state = self.read();
        let at = cursor.checked_sub(state.first).ok_or(Lagged)? as usize;
        let end = state.ring.len().min(at + max).min(until.saturating_sub(state.first) as usize);
        if at < end {
            out.extend(state.ring.range(at..end).cloned());
            *cursor += (end - at) as u64;
        }
        Ok(())
    }

    /// Wakes whoever has read up to the end, and tells the new one.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.bell.end.subscribe()
    }

    /// How many watchers there are.
    pub fn watchers(&self) -> usize {
        self.bell.end.receiver_count()
    }
}

impl State {
    fn trim(&mut self) {
        while self.ring.len() > RING_EVENTS || (self.ring_bytes > RING_BYTES && self.ring.len() > 1) {
            if let Some(event) = self.ring.pop_front() {
                self.ring_bytes -= event.size_bytes();
                self.floor = event.rv;
                self.first += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn object(key: &str, rv: u64) -> Arc<Object> {
        let json = format!(r#"{{"metadata":{{"name":"{key}"}}}}"#);
        Arc::new(Object::read(key, Bytes::from(json), rv).expect("object"))
    }

    fn put(cache: &Cache, key: &str, rv: u64) {
        cache.apply([(key.into(), rv, Some(object(key, rv)))]);
    }

    #[test]
    fn pages_are_cut_by_key() {
        let cache = Cache::default();
        cache.reset(["a/1", "a/2", "a/3", "b/1"].map(|k| object(k, 5)), 7);
        let page = cache.snapshot("a/", "", 2, true, |_| true);
        assert_eq!((page.objects.len(), page.more, page.remaining, page.rv), (2, true, 1, 5));
        let page = cache.snapshot("a/", "a/2", 2, true, |_| true);
        assert_eq!((page.objects.len(), page.more, page.remaining), (1, false, 0));
    }

    #[test]
    fn readers_see_each_change_once_or_are_told_they_lag() {
        let cache = Cache::default();
        cache.reset([object("a", 3)], 4);
        assert_eq!(cache.cursor_after(3), (None, 3));
        let (cursor, _) = cache.cursor_after(4);
        let mut cursor = cursor.expect("in the ring");
        put(&cache, "b", 5);
        put(&cache, "a", 6);
        cache.apply([("b".into(), 7, None)]);
        let mut seen = Vec::new();
        cache.read_from(&mut cursor, u64::MAX, 2, &mut seen).expect("in time");
        cache.read_from(&mut cursor, u64::MAX, 2, &mut seen).expect("in time");
        assert_eq!(seen.iter().map(|e| e.rv).collect::<Vec<_>>(), [5, 6, 7]);
        for rv in 8..8 + RING_EVENTS as u64 + 1 {
            put(&cache, "a", rv);
        }
        assert_eq!(cache.read_from(&mut cursor, u64::MAX, 1, &mut seen), Err(Lagged));
        assert_eq!(cache.cursor_after(7).0, None);
        assert!(cache.cursor_after(8).0.is_some());
    }
}
