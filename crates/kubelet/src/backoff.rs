//! Waiting longer after each failure: for crashed containers and failed image pulls.
//!
//! Reads times it is given, never the clock. Invariant: a wait doubles up to the maximum and is forgotten after twice the
//! maximum without a failure; the number of entries is bounded.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

/// More keys than this never wait at once; the oldest is forgotten.
const MAX_ENTRIES: usize = 4096;

#[derive(Debug, Clone)]
struct Entry {
    wait: SignedDuration,
    updated: Timestamp,
    note: String,
}

/// Doubling waits by key.
#[derive(Debug, Clone)]
pub struct Backoff {
    initial: SignedDuration,
    max: SignedDuration,
    entries: HashMap<String, Entry>,
}

impl Backoff {
    /// Waits from `initial`, doubling to `max`.
    pub fn new(initial: std::time::Duration, max: std::time::Duration) -> Backoff {
        let (initial, max) = (signed(initial), signed(max));
        Backoff { initial, max, entries: HashMap::new() }
    }

    /// The wait in force for `key` after a failure at `event`: `Some((whole wait, what is left of it))` while it lasts.
    pub fn waiting(&self, key: &str, event: Timestamp, now: Timestamp) -> Option<(SignedDuration, SignedDuration)> {
        let entry = self.entries.get(key)?;
        if self.expired(entry, event) {
            return None;
        }
        let left = entry.wait - now.duration_since(event);
        (left > SignedDuration::ZERO).then_some((entry.wait, left))
    }

    /// Counts a failure at `event`: the next wait is twice the last.
    pub fn next(&mut self, key: &str, event: Timestamp) {
        let wait = match self.entries.get(key) {
            Some(entry) if !self.expired(entry, event) => (entry.wait * 2).min(self.max),
            _ => self.initial,
        };
        if self.entries.len() >= MAX_ENTRIES && !self.entries.contains_key(key) {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.updated).map(|(key, _)| key.clone());
            oldest.and_then(|key| self.entries.remove(&key));
        }
        self.entries.insert(key.to_string(), Entry { wait, updated: event, note: String::new() });
    }

    /// Keeps the last failure's words with its wait.
    pub fn note(&mut self, key: &str, words: &str) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.note = words.to_string();
        }
    }

    /// What is left of the wait that began with the last failure.
    pub fn left_since_update(&self, key: &str, now: Timestamp) -> Option<SignedDuration> {
        let entry = self.entries.get(key)?;
        let left = entry.wait - now.duration_since(entry.updated);
        (left > SignedDuration::ZERO).then_some(left)
    }

    /// The last failure's words while its wait lasts.
    pub fn waiting_since_update(&self, key: &str, now: Timestamp) -> Option<String> {
        self.left_since_update(key, now)?;
        self.entries.get(key).map(|entry| entry.note.clone())
    }

    pub fn reset(&mut self, key: &str) {
        self.entries.remove(key);
    }

    fn expired(&self, entry: &Entry, event: Timestamp) -> bool {
        event.duration_since(entry.updated) > self.max * 2
    }
}

fn signed(duration: std::time::Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[test]
    fn doubles_to_the_maximum_and_forgets() {
        let mut backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(300));
        assert_eq!(backoff.waiting("c", at(0), at(0)), None, "the first restart is at once");
        let mut waits = Vec::new();
        let mut event = 0;
        for _ in 0..7 {
            backoff.next("c", at(event));
            let (wait, left) = backoff.waiting("c", at(event), at(event)).expect("waits");
            assert_eq!(wait, left);
            assert_eq!(backoff.waiting("c", at(event), at(event + wait.as_secs())), None);
            waits.push(wait.as_secs());
            event += wait.as_secs() + 1;
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
        backoff.next("c", at(event + 3601));
        assert_eq!(backoff.waiting("c", at(event + 3601), at(event + 3601)).expect("waits").0.as_secs(), 10);
    }
}
