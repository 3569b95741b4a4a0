//! The key index: for every key its versions, newest last, and where each value lies. Pure memory, no I/O.
//! Invariant: a key's versions ascend by `mod_revision`; each version that has a value is counted in its segment's live bytes; `garbage`
//! names, by revision, everything that a compaction to that revision lets go.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::StoreError;
use crate::format::PUT_FIXED_BYTES;
use crate::request::{KeyRange, KeyValue};
use crate::segment::DiskValue;

/// The revision of an empty store, as in etcd: the first write gets 2.
pub(crate) const FIRST_REVISION: u64 = 1;

#[derive(Debug, Clone)]
pub(crate) enum ValueRef {
    Tombstone,
    /// In a store without a log, and in writes on their way.
    Memory(Box<Bytes>),
    Disk(DiskValue),
}

impl ValueRef {
    pub(crate) fn memory(value: Bytes) -> Self {
        Self::Memory(Box::new(value))
    }

    fn read(&self) -> Result<Bytes, StoreError> {
        match self {
            Self::Tombstone => Ok(Bytes::new()),
            Self::Memory(value) => Ok((**value).clone()),
            Self::Disk(place) => place.read(),
        }
    }
}

/// One write of a key.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) mod_revision: u64,
    pub(crate) create_revision: u64,
    pub(crate) version: u64,
    pub(crate) lease: i64,
    pub(crate) value: ValueRef,
}

impl Version {
    pub(crate) fn tombstone(mod_revision: u64) -> Self {
        Self { mod_revision, create_revision: 0, version: 0, lease: 0, value: ValueRef::Tombstone }
    }

    pub(crate) fn is_tombstone(&self) -> bool {
        matches!(self.value, ValueRef::Tombstone)
    }

    fn count(&self, key: &[u8], sign: i64) {
        if let ValueRef::Disk(place) = &self.value {
            let bytes = record_bytes(key, place.len);
            place.segment.live.fetch_add(sign * bytes, Ordering::AcqRel);
        }
    }
}

pub(crate) fn record_bytes(key: &[u8], value_bytes: u32) -> i64 {
    (PUT_FIXED_BYTES + key.len()) as i64 + i64::from(value_bytes)
}

/// A version with its key, outside the index; reading it needs no lock.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) key: Bytes,
    pub(crate) version: Version,
}

impl Found {
    /// Reads the value from where it lies.
    pub(crate) fn load(&self, keys_only: bool) -> Result<KeyValue, StoreError> {
        let v = &self.version;
        Ok(KeyValue {
            key: self.key.clone(),
            value: if keys_only { Bytes::new() } else { v.value.read()? },
            create_revision: v.create_revision,
            mod_revision: v.mod_revision,
            version: v.version,
            lease: v.lease,
        })
    }
}

/// A change as watchers see it.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) key: Bytes,
    pub(crate) version: Version,
    pub(crate) prev: Option<Version>,
}

/// Nearly every key has one version: keep that one without an allocation.
#[derive(Debug)]
pub(crate) enum History {
    One(Version),
    Many(Vec<Version>),
}

impl History {
    pub(crate) fn as_slice(&self) -> &[Version] {
        match self {
            Self::One(v) => std::slice::from_ref(v),
            Self::Many(all) => all,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [Version] {
        match self {
            Self::One(v) => std::slice::from_mut(v),
            Self::Many(all) => all,
        }
    }

    fn newest(&self) -> Option<&Version> {
        self.as_slice().last()
    }

    /// The version that readers at `revision` see; possibly a tombstone.
    fn at(&self, revision: u64) -> Option<&Version> {
        let all = self.as_slice();
        let after = all.partition_point(|v| v.mod_revision <= revision);
        after.checked_sub(1).map(|i| &all[i])
    }

    fn insert_at(&mut self, i: usize, version: Version) {
        let mut all = match std::mem::replace(self, Self::Many(Vec::new())) {
            Self::One(v) => Vec::from([v]),
            Self::Many(all) => all,
        };
        all.insert(i, version);
        *self = Self::Many(all);
    }

    /// Drops the first `n`; true when nothing is left.
    fn drop_first(&mut self, n: usize) -> bool {
        if n == 0 {
            return false;
        }
        let mut all = match std::mem::replace(self, Self::Many(Vec::new())) {
            Self::One(v) => Vec::from([v]),
            Self::Many(all) => all,
        };
        all.drain(..n);
        let empty = all.is_empty();
        *self = match all.pop() {
            Some(v) if all.is_empty() => Self::One(v),
            Some(v) => {
                all.push(v);
                Self::Many(all)
            }
            None => Self::Many(all),
        };
        empty
    }
}

#[derive(Debug, Default)]
pub(crate) struct LeaseKeys {
    pub(crate) ttl_s: u64,
    pub(crate) keys: BTreeSet<Bytes>,
}

/// A place in the log: everything before it is in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Position {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) keys: BTreeMap<Bytes, History>,
    pub(crate) leases: HashMap<i64, LeaseKeys>,
    pub(crate) revision: u64,
    /// History up to here may be gone; reads of older revisions are refused.
    pub(crate) compacted: u64,
    pub(crate) position: Position,
    /// (revision that made something of the key needless, key), ascending.
    garbage: VecDeque<(u64, Bytes)>,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            keys: BTreeMap::new(),
            leases: HashMap::new(),
            revision: FIRST_REVISION,
            compacted: 0,
            position: Position::default(),
            garbage: VecDeque::new(),
        }
    }
}

impl Index {
    pub(crate) fn live(&self, key: &[u8]) -> Option<&Version> {
        self.keys.get(key).and_then(History::newest).filter(|v| !v.is_tombstone())
    }

    /// The keys of the range as of `revision`.
    pub(crate) fn scan<'a>(
        &'a self,
        range: &'a KeyRange,
        revision: u64,
    ) -> impl Iterator<Item = (&'a Bytes, &'a Version)> {
        range
            .bounds()
            .into_iter()
            .flat_map(|bounds| self.keys.range::<[u8], _>(bounds))
            .filter_map(move |(key, history)| Some((key, history.at(revision)?)))
            .filter(|(_, v)| !v.is_tombstone())
    }

    /// Changes in the range with revisions `from..=to`, in order. Looks at every key of the range.
    pub(crate) fn events(&self, range: &KeyRange, from: u64, to: u64) -> Vec<Event> {
        let mut events = Vec::new();
        for (key, history) in range.bounds().into_iter().flat_map(|b| self.keys.range::<[u8], _>(b)) {
            let all = history.as_slice();
            let first = all.partition_point(|v| v.mod_revision < from);
            for i in first..all.len() {
                if all[i].mod_revision > to {
                    break;
                }
                let prev = i.checked_sub(1).map(|p| all[p].clone()).filter(|v| !v.is_tombstone());
                events.push(Event { key: key.clone(), version: all[i].clone(), prev });
            }
        }
        events.sort_by(|a, b| (a.version.mod_revision, &a.key).cmp(&(b.version.mod_revision, &b.key)));
        events
    }

    /// Adds the newest version of a key; returns the one it follows, if that was alive, and the index's own copy of the key.
    pub(crate) fn push(&mut self, key: Bytes, version: Version) -> (Bytes, Option<Version>) {
        use std::collections::btree_map::Entry;
        version.count(&key, 1);
        let (mod_revision, tombstone, lease) = (version.mod_revision, version.is_tombstone(), version.lease);
        let (key, before) = match self.keys.entry(key) {
            Entry::Vacant(slot) => {
                let key = slot.key().clone();
                slot.insert(History::One(version));
                (key, None)
            }
            Entry::Occupied(mut slot) => {
                let before = slot.get().newest().cloned();
                let len = slot.get().as_slice().len();
                slot.get_mut().insert_at(len, version);
                (slot.key().clone(), before)
            }
        };
        if before.is_some() || tombstone {
            self.garbage.push_back((mod_revision, key.clone()));
        }
        let before = before.filter(|v| !v.is_tombstone());
        if let Some(old) = before.as_ref().and_then(|v| self.leases.get_mut(&v.lease)) {
            old.keys.remove(&key);
        }
        if let Some(new) = self.leases.get_mut(&lease).filter(|_| !tombstone) {
            new.keys.insert(key.clone());
        }
        (key, before)
    }

    /// Points an existing version at another place. False when a compaction has taken it meanwhile.
    pub(crate) fn relocate(&mut self, key: &[u8], mod_revision: u64, to: DiskValue) -> bool {
        let Some(history) = self.keys.get_mut(key) else { return false };
        let all = history.as_mut_slice();
        let Ok(i) = all.binary_search_by_key(&mod_revision, |v| v.mod_revision) else { return false };
        if all[i].is_tombstone() {
            return false;
        }
        all[i].count(key, -1);
        all[i].value = ValueRef::Disk(to);
        all[i].count(key, 1);
        true
    }

    /// Adds a version while a log is read; any order, twice is as good as once. [`Index::finish_restore`] must follow.
    pub(crate) fn restore(&mut self, key: Bytes, version: Version) {
        use std::collections::btree_map::Entry;
        version.count(&key, 1);
        match self.keys.entry(key) {
            Entry::Vacant(slot) => {
                slot.insert(History::One(version));
            }
            Entry::Occupied(mut slot) => {
                let found = slot.get().as_slice().binary_search_by_key(&version.mod_revision, |v| v.mod_revision);
                match found {
                    Ok(i) => {
                        let key = slot.key().clone();
                        let old = &mut slot.get_mut().as_mut_slice()[i];
                        old.count(&key, -1);
                        *old = version;
                    }
                    Err(i) => slot.get_mut().insert_at(i, version),
                }
            }
        }
    }

    /// Works out what follows from the restored versions.
    pub(crate) fn finish_restore(&mut self) {
        let mut garbage = Vec::new();
        for (key, history) in &self.keys {
            for (i, v) in history.as_slice().iter().enumerate() {
                if i > 0 || v.is_tombstone() {
                    garbage.push((v.mod_revision, key.clone()));
                }
            }
            if let Some(v) = history.newest().filter(|v| v.lease != 0)
                && let Some(lease) = self.leases.get_mut(&v.lease)
            {
                lease.keys.insert(key.clone());
            }
        }
        garbage.sort_by_key(|(revision, _)| *revision);
        self.garbage = garbage.into();
        while self.drop_garbage(usize::MAX) {}
    }

    /// Frees what the last compaction let go, at most `limit` pieces of it; true when there may be more.
    pub(crate) fn drop_garbage(&mut self, limit: usize) -> bool {
        for _ in 0..limit {
            match self.garbage.front() {
                Some((revision, _)) if *revision <= self.compacted => {}
                _ => return false,
            }
            let Some((_, key)) = self.garbage.pop_front() else { return false };
            let compacted = self.compacted;
            let Some(history) = self.keys.get_mut(&key) else { continue };
            let all = history.as_slice();
            let upto = all.partition_point(|v| v.mod_revision <= compacted);
            // The newest of the old ones stays, unless it says that there is nothing.
            let keep = upto > 0 && !all[upto - 1].is_tombstone();
            let drop = upto - usize::from(keep);
            all[..drop].iter().for_each(|v| v.count(&key, -1));
            if history.drop_first(drop) {
                self.keys.remove(&key);
            }
        }
        true
    }

    /// What does not add up, in words. After [`Index::drop_garbage`].
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut leased: HashMap<i64, BTreeSet<Bytes>> = HashMap::new();
        for (key, history) in &self.keys {
            let all = history.as_slice();
            let name = String::from_utf8_lossy(key);
            if all.is_empty() {
                problems.push(format!("{name}: no versions"));
            }
            if !all.is_sorted_by(|a, b| a.mod_revision < b.mod_revision) {
                problems.push(format!("{name}: versions out of order"));
            }
            // Callers have dropped the garbage before.
            let old = all.partition_point(|v| v.mod_revision <= self.compacted);
            if old > 1 || all.first().is_some_and(|v| old == 1 && v.is_tombstone()) {
                problems.push(format!("{name}: keeps what was compacted"));
            }
            for (i, v) in all.iter().enumerate() {
                let follows = match i.checked_sub(1).map(|p| &all[p]) {
                    _ if v.is_tombstone() => true,
                    Some(p) if !p.is_tombstone() => {
                        v.create_revision == p.create_revision && v.version == p.version + 1
                    }
                    Some(_) => v.create_revision == v.mod_revision && v.version == 1,
                    None => v.version >= 1 && v.create_revision <= v.mod_revision,
                };
                if !follows {
                    problems.push(format!("{name}@{}: does not follow the version before", v.mod_revision));
                }
                if v.mod_revision > self.revision {
                    problems.push(format!("{name}@{}: newer than the store ({})", v.mod_revision, self.revision));
                }
            }
            if let Some(v) = history.newest().filter(|v| v.lease != 0) {
                leased.entry(v.lease).or_default().insert(key.clone());
            }
        }
        for (id, lease) in &self.leases {
            if leased.remove(id).unwrap_or_default() != lease.keys {
                problems.push(format!("lease {id}: its keys are not those that name it"));
            }
        }
        for id in leased.keys() {
            problems.push(format!("lease {id}: named by keys, but gone"));
        }
        problems
    }
}
