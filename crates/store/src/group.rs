//! One group commit in the making: transactions are evaluated in order, each seeing the ones before it, and what they change is collected
//! as a frame for the log. Pure: reads the index, writes only itself; nothing counts until [`Group::apply`], after the sync.
//! Invariant: a request that is refused leaves the group as it was.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use crate::StoreError;
use crate::format::{FrameBuilder, PutRecord, own_key};
use crate::index::{Event, Found, Index, LeaseKeys, ValueRef, Version};
use crate::request::{Compare, KeyRange, Op, Target, Txn};
use crate::segment::{DiskValue, Segment};

/// What requests may not exceed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) txn_bytes: usize,
    pub(crate) key_bytes: usize,
}

#[derive(Debug)]
enum Change {
    Version { key: Bytes, version: Version, value_at: usize },
    Grant { id: i64, ttl_s: u64 },
    Revoke { id: i64 },
    Compact { revision: u64 },
    Move { key: Bytes, mod_revision: u64, value_at: usize, len: u32, crc: u32 },
}

/// An answer whose values are not read yet.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) succeeded: bool,
    pub(crate) revision: u64,
    pub(crate) results: Vec<Done>,
}

#[derive(Debug)]
pub(crate) enum Done {
    Put,
    Deleted(usize),
    Got(Option<Found>),
}

/// A value to be copied out of a segment that is to go.
#[derive(Debug)]
pub(crate) struct Moving {
    pub(crate) found: Found,
    pub(crate) value: Bytes,
}

/// Deletions by one lease are split into revisions of at most so many keys.
const LEASE_KEYS_PER_REVISION: usize = 1000;

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) revision: u64,
    pub(crate) compacted: u64,
    changes: Vec<Change>,
    /// Index into `changes` of each key's newest version.
    latest: BTreeMap<Bytes, usize>,
    leases: HashMap<i64, Option<u64>>,
    pub(crate) frame: FrameBuilder,
}

impl Group {
    /// `frame` is an emptied one, for its memory.
    pub(crate) fn new(index: &Index, frame: FrameBuilder) -> Self {
        Self {
            revision: index.revision,
            compacted: index.compacted,
            changes: Vec::new(),
            latest: BTreeMap::new(),
            leases: HashMap::new(),
            frame,
        }
    }

    pub(crate) fn compacts(&self) -> bool {
        self.changes.iter().any(|c| matches!(c, Change::Compact { .. }))
    }

    pub(crate) fn txn(&mut self, index: &Index, txn: &Txn, limits: Limits) -> Result<Outcome, StoreError> {
        check_size(txn, limits)?;
        let mut succeeded = true;
        for compare in &txn.compares {
            succeeded = succeeded && self.holds(index, compare)?;
        }
        let ops = if succeeded { &txn.success } else { &txn.failure };
        self.check_ops(index, ops)?;

        let revision = self.revision + 1;
        let before = self.changes.len();
        let results = ops.iter().map(|op| self.step(index, op, revision)).collect();
        if self.changes.len() > before {
            self.revision = revision;
        }
        Ok(Outcome { succeeded, revision: self.revision, results })
    }

    fn current<'a>(&'a self, index: &'a Index, key: &[u8]) -> Option<&'a Version> {
        match self.latest.get(key) {
            Some(&i) => match &self.changes[i] {
                Change::Version { version, .. } if !version.is_tombstone() => Some(version),
                _ => None,
            },
            None => index.live(key),
        }
    }

    fn holds(&self, index: &Index, compare: &Compare) -> Result<bool, StoreError> {
        let found = self.current(index, &compare.key);
        let order = match &compare.target {
            Target::ModRevision(want) => found.map_or(0, |v| v.mod_revision).cmp(want),
            Target::CreateRevision(want) => found.map_or(0, |v| v.create_revision).cmp(want),
            Target::Version(want) => found.map_or(0, |v| v.version).cmp(want),
            Target::Lease(want) => found.map_or(0, |v| v.lease).cmp(want),
            Target::Exists(want) => found.is_some().cmp(want),
            Target::Value(want) => {
                let Some(version) = found else { return Ok(false) };
                let found = Found { key: compare.key.clone(), version: version.clone() };
                found.load(false)?.value.cmp(want)
            }
        };
        Ok(compare.relation.holds(order))
    }

    /// Everything that could make a step fail, before the first is done.
    fn check_ops(&self, index: &Index, ops: &[Op]) -> Result<(), StoreError> {
        let mut written = BTreeSet::new();
        for op in ops {
            let key = match op {
                Op::Put { key, lease, .. } => {
                    if *lease != 0 && !self.lease_exists(index, *lease) {
                        return Err(StoreError::LeaseNotFound { id: *lease });
                    }
                    key
                }
                Op::Delete { key } => key,
                _ => continue,
            };
            if !written.insert(key) {
                let key = String::from_utf8_lossy(key);
                return Err(StoreError::invalid(format!("{key} is written twice in one transaction; do it once")));
            }
        }
        for op in ops {
            if let Op::DeleteRange { start, end } = op {
                let range = KeyRange::new(start.clone(), end.clone());
                if let Some(key) = written.iter().find(|k| range.contains(k)) {
                    let key = String::from_utf8_lossy(key);
                    let what = format!("{key} is written and also in a deleted range; do one of the two");
                    return Err(StoreError::invalid(what));
                }
            }
        }
        Ok(())
    }

    fn step(&mut self, index: &Index, op: &Op, revision: u64) -> Done {
        match op {
            Op::Put { key, value, lease } => {
                self.put(index, key, value, *lease, revision);
                Done::Put
            }
            Op::Delete { key } => Done::Deleted(usize::from(self.delete(index, key, revision))),
            Op::DeleteRange { start, end } => {
                let range = KeyRange::new(start.clone(), end.clone());
                let keys = self.keys_in(index, &range);
                Done::Deleted(keys.iter().filter(|key| self.delete(index, key, revision)).count())
            }
            Op::Get { key } => {
                let version = self.current(index, key).cloned();
                Done::Got(version.map(|version| Found { key: key.clone(), version }))
            }
        }
    }

    fn put(&mut self, index: &Index, key: &Bytes, value: &Bytes, lease: i64, revision: u64) {
        let (create_revision, version) =
            self.current(index, key).map_or((revision, 1), |v| (v.create_revision, v.version + 1));
        let record = PutRecord { mod_revision: revision, create_revision, version, lease, key, value, value_at: 0 };
        let value_at = self.frame.put(&record);
        let value = ValueRef::memory(value.clone());
        let version = Version { mod_revision: revision, create_revision, version, lease, value };
        self.push(own_key(key), version, value_at);
    }

    fn delete(&mut self, index: &Index, key: &Bytes, revision: u64) -> bool {
        if self.current(index, key).is_none() {
            return false;
        }
        self.frame.delete(revision, key);
        self.push(own_key(key), Version::tombstone(revision), 0);
        true
    }

    fn push(&mut self, key: Bytes, version: Version, value_at: usize) {
        self.latest.insert(key.clone(), self.changes.len());
        self.changes.push(Change::Version { key, version, value_at });
    }

    /// Keys that exist in the range, with what the group has done so far.
    fn keys_in(&self, index: &Index, range: &KeyRange) -> BTreeSet<Bytes> {
        let old = index.scan(range, u64::MAX).map(|(key, _)| key.clone());
        let new = range.bounds().into_iter().flat_map(|b| self.latest.range::<[u8], _>(b)).map(|(k, _)| k.clone());
        old.chain(new).filter(|key| self.current(index, key).is_some()).collect()
    }

    fn lease_exists(&self, index: &Index, id: i64) -> bool {
        self.leases.get(&id).map_or_else(|| index.leases.contains_key(&id), Option::is_some)
    }

    pub(crate) fn lease_ttl_s(&self, index: &Index, id: i64) -> Option<u64> {
        match self.leases.get(&id) {
            Some(ttl_s) => *ttl_s,
            None => index.leases.get(&id).map(|l| l.ttl_s),
        }
    }

    pub(crate) fn grant(&mut self, index: &Index, id: i64, ttl_s: u64) -> Result<(), StoreError> {
        if self.lease_exists(index, id) {
            return Err(StoreError::LeaseExists { id });
        }
        self.frame.lease_grant(id, ttl_s);
        self.leases.insert(id, Some(ttl_s));
        self.changes.push(Change::Grant { id, ttl_s });
        Ok(())
    }

    /// Ends a lease; its keys go in as many revisions as needed.
    pub(crate) fn revoke(&mut self, index: &Index, id: i64) -> Result<(), StoreError> {
        if !self.lease_exists(index, id) {
            return Err(StoreError::LeaseNotFound { id });
        }
        let old = index.leases.get(&id).into_iter().flat_map(|l| l.keys.iter());
        let keys: BTreeSet<Bytes> = old
            .chain(self.latest.keys())
            .filter(|key| self.current(index, key).is_some_and(|v| v.lease == id))
            .cloned()
            .collect();
        let keys: Vec<Bytes> = keys.into_iter().collect();
        for chunk in keys.chunks(LEASE_KEYS_PER_REVISION) {
            self.revision += 1;
            for key in chunk {
                self.delete(index, key, self.revision);
            }
        }
        self.frame.lease_revoke(id);
        self.leases.insert(id, None);
        self.changes.push(Change::Revoke { id });
        Ok(())
    }

    pub(crate) fn compact(&mut self, revision: u64) -> Result<(), StoreError> {
        if revision <= self.compacted {
            return Err(StoreError::Compacted { at: self.compacted });
        }
        if revision > self.revision {
            return Err(StoreError::FutureRevision { requested: revision, current: self.revision });
        }
        self.frame.compact(revision);
        self.compacted = revision;
        self.changes.push(Change::Compact { revision });
        Ok(())
    }

    pub(crate) fn moving(&mut self, moving: &Moving) {
        let Moving { found: Found { key, version }, value } = moving;
        let value_at = self.frame.moved(&PutRecord {
            mod_revision: version.mod_revision,
            create_revision: version.create_revision,
            version: version.version,
            lease: version.lease,
            key,
            value,
            value_at: 0,
        });
        self.changes.push(Change::Move {
            key: key.clone(),
            mod_revision: version.mod_revision,
            value_at,
            len: value.len() as u32,
            crc: crc32fast::hash(value),
        });
    }

    /// Makes the group count. `written` says where its frame was written and synced; `None` keeps the values in memory.
    /// Returns the events in order, and the frame for reuse.
    pub(crate) fn apply(self, index: &mut Index, written: Option<(&Arc<Segment>, u64)>) -> (Vec<Event>, FrameBuilder) {
        let place = |value_at: usize, len: u32, crc: u32| {
            // Segments are far smaller than 4 GiB: `Options` sees to it.
            written.map(|(segment, offset)| DiskValue {
                segment: segment.clone(),
                offset: (offset + value_at as u64) as u32,
                len,
                crc,
            })
        };
        let mut events = Vec::new();
        for change in self.changes {
            match change {
                Change::Version { key, version, value_at } => {
                    let mut stored = version.clone();
                    if let ValueRef::Memory(value) = &version.value
                        && let Some(at) = place(value_at, value.len() as u32, crc32fast::hash(value))
                    {
                        stored.value = ValueRef::Disk(at);
                    }
                    let (key, prev) = index.push(key, stored);
                    events.push(Event { key, version, prev });
                }
                Change::Grant { id, ttl_s } => {
                    index.leases.insert(id, LeaseKeys { ttl_s, keys: BTreeSet::new() });
                }
                Change::Revoke { id } => {
                    index.leases.remove(&id);
                }
                Change::Compact { revision } => index.compacted = revision,
                Change::Move { key, mod_revision, value_at, len, crc } => {
                    if let Some(to) = place(value_at, len, crc) {
                        index.relocate(&key, mod_revision, to);
                    }
                }
            }
        }
        index.revision = self.revision;
        events.sort_by(|a, b| (a.version.mod_revision, &a.key).cmp(&(b.version.mod_revision, &b.key)));
        (events, self.frame)
    }
}

fn check_size(txn: &Txn, limits: Limits) -> Result<(), StoreError> {
    let mut bytes = 0;
    for op in txn.success.iter().chain(&txn.failure) {
        let (key, value_bytes) = match op {
            Op::Put { key, value, .. } => (key, value.len()),
            Op::Delete { key } | Op::Get { key } => (key, 0),
            Op::DeleteRange { start, end } => (start, end.len()),
        };
        if key.is_empty() && !matches!(op, Op::DeleteRange { .. }) {
            return Err(StoreError::invalid("a key is empty; name one"));
        }
        if key.len() > limits.key_bytes {
            let what = format!("a key has {} bytes, the limit is {}; shorten it", key.len(), limits.key_bytes);
            return Err(StoreError::invalid(what));
        }
        bytes += key.len() + value_bytes;
    }
    if bytes > limits.txn_bytes {
        return Err(StoreError::TooLarge { bytes, limit_bytes: limits.txn_bytes });
    }
    Ok(())
}
