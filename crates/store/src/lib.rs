//! Versioned keys and values, durable: revisions, transactions, ranges at a revision, watches, compaction, leases. Bytes only.
//! [`open`] gives the embedded store in a directory, [`memory`] the same engine without a log, [`Etcd`] a cluster of etcd. A write is
//! answered when it is synced.
//! Invariant: an acknowledged write is found again after any crash; a reader sees all of a revision or none.

mod check;
mod checkpoint;
mod clock;
mod commit;
mod disk;
mod embedded;
mod error;
mod etcd;
mod format;
mod group;
mod housekeeping;
mod index;
mod queue;
mod recover;
mod request;
mod segment;
#[cfg(test)]
mod tests;
mod watch;

use async_trait::async_trait;
use bytes::Bytes;

pub use check::CheckReport;
pub use clock::{Clock, ManualClock, SystemClock};
pub use embedded::{Embedded, Options, Stats, memory, memory_with, open};
pub use error::StoreError;
pub use etcd::{Etcd, EtcdOptions};
pub use request::{
    Compare, EventKind, KeyValue, Lease, Op, OpResult, RangeRequest, RangeResponse, Relation, Target, Txn, TxnResponse,
    WatchBatch, WatchEvent, WatchRequest, prefix_end,
};
pub use watch::{ProgressRequester, Watch};

/// A store, whatever keeps it. All revisions count writes of the whole store.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Keys of a range, in order, all as of one revision.
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError>;

    /// Compares, then writes, as one; answered once it is durable. When the future is dropped the transaction may still happen.
    async fn txn(&self, txn: Txn) -> Result<TxnResponse, StoreError>;

    /// Events from a revision on: complete, in order. `Compacted` when history no longer reaches back so far.
    async fn watch(&self, request: WatchRequest) -> Result<Watch, StoreError>;

    /// Gives up history before `revision`: reads and watches of older revisions then answer `Compacted`.
    async fn compact(&self, revision: u64) -> Result<(), StoreError>;

    /// A lease of `ttl_s` seconds (at least 1); id 0 lets the store choose one.
    async fn lease_grant(&self, id: i64, ttl_s: u64) -> Result<Lease, StoreError>;

    /// Starts the lease's time anew.
    async fn lease_keep_alive(&self, id: i64) -> Result<Lease, StoreError>;

    /// Ends the lease; deletes its keys.
    async fn lease_revoke(&self, id: i64) -> Result<(), StoreError>;

    /// The newest revision.
    async fn revision(&self) -> Result<u64, StoreError>;

    /// The newest revision, where nobody has to be asked for it.
    fn known_revision(&self) -> Option<u64> {
        None
    }

    /// The key alone.
    async fn get(&self, key: Bytes) -> Result<Option<KeyValue>, StoreError> {
        let request = RangeRequest { start: key, ..RangeRequest::default() };
        Ok(self.range(request).await?.kvs.pop())
    }
}
