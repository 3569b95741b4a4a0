//! What can go wrong in a store, in words that say what to do next.
//! Invariant: an error is plain data (`Clone`), since one failed group commit answers many writers.

use std::io;

/// Every way a store refuses or fails. Revisions are counts of writes, sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The revision asked for is older than the compaction at revision `at`.
    #[error("the revision asked for was compacted away at revision {at}; list again and go on from the new revision")]
    Compacted { at: u64 },
    #[error("revision {requested} does not exist yet, the newest is {current}; ask for that one, or wait")]
    FutureRevision { requested: u64, current: u64 },
    /// The write was undone; reads go on, and writes work again as soon as there is room.
    #[error("no space left for the store in {dir}; free disk space there and write again (reads still work)")]
    NoSpace { dir: String },
    #[error("the store is closed; open it again")]
    Closed,
    #[error("the store is corrupt: {what}; restore its directory from a backup")]
    Corrupt { what: String },
    /// Reading or writing failed. After a write it is unknown whether the write survives a restart.
    #[error("{what}: {cause}; check the disk under the store and the kernel log")]
    Io { what: String, cause: String },
    #[error("lease {id} does not exist or has expired; grant a new one")]
    LeaseNotFound { id: i64 },
    #[error("lease {id} exists already; choose another id, or 0 for a free one")]
    LeaseExists { id: i64 },
    #[error("invalid store request: {what}")]
    Invalid { what: String },
    #[error("the transaction holds {bytes} bytes, the limit is {limit_bytes}; split it")]
    TooLarge { bytes: usize, limit_bytes: usize },
    /// The watcher did not take its events in time. Nothing was skipped before this error.
    #[error("the watcher fell behind by {events} events and was ended; watch again from the last revision it saw")]
    WatchLagged { events: usize },
    #[error("the store in {dir} is in use by {owner}; stop that process or choose another directory")]
    Locked { dir: String, owner: String },
    /// No member of etcd can be reached or has a leader. A write was not done.
    #[error("etcd cannot be used: {cause}; try again, and look after etcd if it stays so (nothing was written)")]
    Unavailable { cause: String },
    /// The answer to a write was lost.
    #[error("etcd did not answer: {cause}; the write may have happened or not: read again before you write again")]
    Unknown { cause: String },
    #[error(
        "etcd's database has reached its quota; compact and defragment it, then run `etcdctl alarm disarm` (reads still work)"
    )]
    Quota,
    #[error("the transaction holds {bytes} bytes, more than etcd takes; split it, or raise etcd's --max-request-bytes")]
    RequestTooLarge { bytes: usize },
    #[error("etcd refused: {cause}; see to what it says, and to the user and certificate that it is shown")]
    Refused { cause: String },
}

impl StoreError {
    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into() }
    }

    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into() }
    }

    /// An I/O error met while doing `what` (such as "writing 0001.log") in the directory `dir`.
    pub(crate) fn io(what: impl Into<String>, dir: &str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { dir: dir.to_string() },
            _ => Self::Io { what: what.into(), cause: error.to_string() },
        }
    }
}
