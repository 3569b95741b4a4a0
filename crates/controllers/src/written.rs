//! Remembers what a controller wrote until its cache shows it, so that a stale cache never makes it write twice.
//! Reads: informer revisions. Writes memory only. Invariant: holds an entry only for keys with writes the cache has not shown
//! yet, so it is bounded by the work in flight.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::Key;
use tokio::time::Instant;

/// After this long the cache is believed whatever it shows: a write that is still not in it was lost to a restore.
const PATIENCE: Duration = Duration::from_secs(300);

struct Entry {
    revision: u64,
    deleted: HashSet<String>,
    since: Instant,
}

#[derive(Default)]
pub struct Written(Mutex<HashMap<Key, Entry>>);

impl Written {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, key: &Key, change: impl FnOnce(&mut Entry)) {
        let mut entries = self.lock();
        let entry = entries.entry(key.clone()).or_insert_with(|| Entry {
            revision: 0,
            deleted: HashSet::new(),
            since: Instant::now(),
        });
        entry.since = Instant::now();
        change(entry);
    }

    /// An object was created or changed for this key, and the answer had this resourceVersion.
    pub fn wrote(&self, key: &Key, revision: u64) {
        self.entry(key, |entry| entry.revision = entry.revision.max(revision));
    }

    /// The object of this uid was deleted for this key.
    pub fn deleted(&self, key: &Key, uid: &str) {
        self.entry(key, |entry| {
            entry.deleted.insert(uid.to_string());
        });
    }

    /// Whether the cache shows every write for this key: its revision has reached the highest written one, and none of the
    /// objects it shows as alive was deleted by us.
    pub fn shown<'a>(&self, key: &Key, revision: u64, mut alive: impl Iterator<Item = &'a str>) -> bool {
        let mut entries = self.lock();
        let Some(entry) = entries.get(key) else { return true };
        let shown = entry.revision <= revision && !alive.any(|uid| entry.deleted.contains(uid));
        if shown || entry.since.elapsed() > PATIENCE {
            entries.remove(key);
            return true;
        }
        false
    }

    pub fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_for_the_cache() {
        let written = Written::default();
        let key = Key::new("ns", "web");
        let none = || std::iter::empty::<&str>();
        assert!(written.shown(&key, 0, none()));
        written.wrote(&key, 7);
        assert!(!written.shown(&key, 6, none()));
        assert!(written.shown(&key, 7, none()));
        written.deleted(&key, "a");
        assert!(!written.shown(&key, 7, ["b", "a"].into_iter()));
        assert!(written.shown(&key, 7, ["b"].into_iter()));
        written.wrote(&key, 9);
        tokio::time::advance(PATIENCE * 2).await;
        assert!(written.shown(&key, 7, none()));
    }
}
