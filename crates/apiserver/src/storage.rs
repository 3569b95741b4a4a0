//! Writing objects to the store, and reading them at its newest state.
//!
//! Invariant: every write is a transaction that names the revision it builds on, so no write is lost to another; what is
//! answered has been made durable by the store.

use std::sync::Arc;

use bytes::Bytes;
use meta::Status;
use store::{Compare, KeyValue, Op, OpResult, RangeRequest, Store, StoreError, Txn};

use crate::feed::Feed;
use crate::object::Object;
use crate::registry::Served;

pub struct Storage {
    pub store: Arc<dyn Store>,
    pub feed: Arc<Feed>,
}

/// How a write that builds on a known state ended.
pub enum Written {
    /// Done, at this revision.
    At(u64),
    /// The key is in another state; this one (`None`: it is gone).
    Changed(Option<Arc<Object>>),
}

/// Another object that is replaced in the same transaction, provided that it still is as it was at revision `at`.
pub struct Along {
    pub key: Bytes,
    pub at: u64,
    pub value: Bytes,
}

impl Storage {
    /// Waits until the caches show everything that was written before now.
    pub async fn fresh(&self) -> Result<(), Status> {
        let revision = self.store.revision().await.map_err(|e| store_error(&e))?;
        self.feed.reach(revision).await
    }

    /// The object from the cache, not older than now.
    pub async fn get(&self, served: &Served, key: &str) -> Result<Option<Arc<Object>>, Status> {
        self.fresh().await?;
        Ok(served.cache.get(key))
    }

    /// The object from the store itself.
    pub async fn read(&self, served: &Served, key: &str) -> Result<Option<Arc<Object>>, Status> {
        let request = RangeRequest { start: served.store_key(key), ..RangeRequest::default() };
        let found = self.store.range(request).await.map_err(|e| store_error(&e))?;
        Ok(found.kvs.into_iter().next().and_then(|kv| object_of(key, kv)))
    }

    /// Puts the object in the place of the one of revision `at`, or as a new one (0). `Changed` to just that one says that
    /// something of `along` changed.
    pub async fn update(
        &self,
        served: &Served,
        key: &str,
        at: u64,
        value: Bytes,
        lease: i64,
        along: &[Along],
    ) -> Result<Written, Status> {
        let put = Op::Put { key: served.store_key(key), value, lease };
        self.replace(served, key, at, put, along).await
    }

    /// Deletes the object as it was at revision `at`.
    pub async fn delete(&self, served: &Served, key: &str, at: u64) -> Result<Written, Status> {
        let delete = Op::Delete { key: served.store_key(key) };
        self.replace(served, key, at, delete, &[]).await
    }

    async fn replace(&self, served: &Served, key: &str, at: u64, op: Op, along: &[Along]) -> Result<Written, Status> {
        let full = served.store_key(key);
        let others = along.iter().map(|a| Compare::mod_revision(a.key.clone(), a.at));
        let puts = along.iter().map(|a| Op::Put { key: a.key.clone(), value: a.value.clone(), lease: 0 });
        let txn = Txn {
            compares: [Compare::mod_revision(full.clone(), at)].into_iter().chain(others).collect(),
            success: [op].into_iter().chain(puts).collect(),
            failure: vec![Op::Get { key: full }],
        };
        let done = self.store.txn(txn).await.map_err(|e| store_error(&e))?;
        if done.succeeded {
            return Ok(Written::At(done.revision));
        }
        let now = done.results.into_iter().find_map(|r| match r {
            OpResult::Got(kv) => kv,
            _ => None,
        });
        Ok(Written::Changed(now.and_then(|kv| object_of(key, kv))))
    }
}

fn object_of(key: &str, kv: KeyValue) -> Option<Arc<Object>> {
    Object::read(key, kv.value, kv.mod_revision).map(Arc::new)
}

/// What a failure of the store is to the client.
pub fn store_error(error: &StoreError) -> Status {
    match error {
        StoreError::Compacted { .. } => Status::expired("The resourceVersion for the provided list is too old."),
        StoreError::FutureRevision { requested, current } => crate::feed::too_large(*requested, *current),
        StoreError::Closed => Status::unavailable("the store is closed; the server is shutting down"),
        StoreError::TooLarge { .. } | StoreError::RequestTooLarge { .. } => Status::too_large(error.to_string()),
        StoreError::Unavailable { .. } => Status::unavailable(error.to_string()),
        other => {
            tracing::error!("the store failed: {other}");
            Status::internal(other)
        }
    }
}
