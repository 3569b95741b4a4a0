//! The words of the store: what is asked for and what is answered. Plain data.
//! Invariant: keys and values are bytes; nothing here knows what they mean.

use std::ops::Bound;

use bytes::Bytes;

/// One key at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyValue {
    pub key: Bytes,
    pub value: Bytes,
    /// Revision of the write that made the key (again, after a deletion).
    pub create_revision: u64,
    /// Revision of the last write.
    pub mod_revision: u64,
    /// Writes since the key was made: 1 for a new key.
    pub version: u64,
    /// The lease that the key dies with; 0 for none.
    pub lease: i64,
}

/// Keys from `start` up to, not including, `end`. An empty `end` means the single key `start`; an `end` of one zero byte means
/// no upper end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeRequest {
    pub start: Bytes,
    pub end: Bytes,
    /// At most so many keys; 0 for all.
    pub limit: usize,
    /// Read as of this revision; 0 for now.
    pub revision: u64,
    /// Leave the values empty.
    pub keys_only: bool,
    /// Only count; no keys.
    pub count_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeResponse {
    pub kvs: Vec<KeyValue>,
    /// The limit cut the answer short.
    pub more: bool,
    /// Keys in the whole range, whatever the limit.
    pub count: usize,
    /// The revision the answer is of (for a read of an older revision: the newest revision).
    pub revision: u64,
}

/// If all `compares` hold, does `success`, otherwise `failure`; all of it in one revision, or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Txn {
    pub compares: Vec<Compare>,
    pub success: Vec<Op>,
    pub failure: Vec<Op>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    pub key: Bytes,
    pub target: Target,
    pub relation: Relation,
}

/// What of the key is compared, and with what. A missing key has revisions, version and lease 0; its value equals nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    ModRevision(u64),
    CreateRevision(u64),
    Version(u64),
    Lease(i64),
    Value(Bytes),
    Exists(bool),
}

/// How the key's side relates to the given one: `Greater` holds when the key's is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Relation {
    #[default]
    Equal,
    NotEqual,
    Greater,
    Less,
}

impl Relation {
    pub(crate) fn holds(self, order: std::cmp::Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Greater => order.is_gt(),
            Self::Less => order.is_lt(),
        }
    }
}

impl Compare {
    pub fn mod_revision(key: impl Into<Bytes>, revision: u64) -> Self {
        Self::equal(key, Target::ModRevision(revision))
    }

    pub fn create_revision(key: impl Into<Bytes>, revision: u64) -> Self {
        Self::equal(key, Target::CreateRevision(revision))
    }

    pub fn version(key: impl Into<Bytes>, version: u64) -> Self {
        Self::equal(key, Target::Version(version))
    }

    pub fn value(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::equal(key, Target::Value(value.into()))
    }

    pub fn exists(key: impl Into<Bytes>) -> Self {
        Self::equal(key, Target::Exists(true))
    }

    pub fn absent(key: impl Into<Bytes>) -> Self {
        Self::equal(key, Target::Exists(false))
    }

    fn equal(key: impl Into<Bytes>, target: Target) -> Self {
        Self { key: key.into(), target, relation: Relation::Equal }
    }
}

/// One step of a transaction. No key may be written twice in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// `lease` 0 means none.
    Put {
        key: Bytes,
        value: Bytes,
        lease: i64,
    },
    Delete {
        key: Bytes,
    },
    /// As in [`RangeRequest`].
    DeleteRange {
        start: Bytes,
        end: Bytes,
    },
    /// Sees what earlier steps of the same transaction did.
    Get {
        key: Bytes,
    },
}

impl Op {
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::Put { key: key.into(), value: value.into(), lease: 0 }
    }

    pub fn delete(key: impl Into<Bytes>) -> Self {
        Self::Delete { key: key.into() }
    }

    pub fn get(key: impl Into<Bytes>) -> Self {
        Self::Get { key: key.into() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnResponse {
    /// The compares held.
    pub succeeded: bool,
    /// The revision after the transaction: its own if it wrote anything.
    pub revision: u64,
    /// One for each step that was done, in order.
    pub results: Vec<OpResult>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpResult {
    Put,
    /// How many keys went.
    Deleted(usize),
    Got(Option<KeyValue>),
}

/// Events of the keys in a range (as in [`RangeRequest`]) with `mod_revision >= from_revision`; 0 means from now on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WatchRequest {
    pub start: Bytes,
    pub end: Bytes,
    pub from_revision: u64,
    /// Also say what the key was before.
    pub prev_kv: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    Put,
    Delete,
}

/// A deletion's `kv` has only the key and the revision of the deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchEvent {
    pub kind: EventKind,
    pub kv: KeyValue,
    pub prev: Option<KeyValue>,
}

/// Events in order of revision, then key; never part of a revision. Without events it is a progress notification: everything up to
/// `revision` has been delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchBatch {
    pub revision: u64,
    pub events: Vec<WatchEvent>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub id: i64,
    pub ttl_s: u64,
}

type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// A range of keys.
#[derive(Debug, Clone)]
pub(crate) struct KeyRange {
    start: Bytes,
    end: Bytes,
}

impl KeyRange {
    pub(crate) fn new(start: Bytes, end: Bytes) -> Self {
        Self { start, end }
    }

    fn is_unbounded(&self) -> bool {
        self.end.as_ref() == b"\0"
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        if self.end.is_empty() {
            return key == self.start.as_ref();
        }
        key >= self.start.as_ref() && (self.is_unbounded() || key < self.end.as_ref())
    }

    /// Bounds for a `BTreeMap`, or `None` when the range is empty (where the map would panic).
    pub(crate) fn bounds(&self) -> Option<Bounds<'_>> {
        let start: &[u8] = &self.start;
        if self.end.is_empty() {
            return Some((Bound::Included(start), Bound::Included(start)));
        }
        if self.is_unbounded() {
            return Some((Bound::Included(start), Bound::Unbounded));
        }
        (start < self.end.as_ref()).then(|| (Bound::Included(start), Bound::Excluded(self.end.as_ref())))
    }
}

/// The `end` that makes a range of all keys that begin with `prefix`.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return Bytes::from(end);
        }
    }
    Bytes::from_static(b"\0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_ends() {
        let cases: &[(&[u8], &[u8])] = &[(b"/pods/", b"/pods0"), (b"a\xff", b"b"), (b"\xff\xff", b"\0"), (b"", b"\0")];
        for (prefix, end) in cases {
            assert_eq!(prefix_end(prefix).as_ref(), *end, "{prefix:?}");
        }
    }

    #[test]
    fn ranges_contain_what_their_bounds_say() {
        let cases: &[(&str, &str, &str, bool)] = &[
            ("a", "", "a", true),
            ("a", "", "ab", false),
            ("a", "c", "b", true),
            ("a", "c", "c", false),
            ("b", "a", "b", false),
            ("b", "\0", "zz", true),
            ("b", "\0", "a", false),
        ];
        for (start, end, key, expected) in cases {
            let range = KeyRange::new(Bytes::from(*start), Bytes::from(*end));
            assert_eq!(range.contains(key.as_bytes()), *expected, "{start:?}..{end:?} {key:?}");
            let map = std::collections::BTreeMap::from([(Bytes::from(*key), ())]);
            let found = range.bounds().is_some_and(|b| map.range::<[u8], _>(b).next().is_some());
            assert_eq!(found, *expected, "{start:?}..{end:?} {key:?}");
        }
    }
}
