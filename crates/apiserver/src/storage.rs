//! Writing objects to the store, and reading them at its newest state.
//!
//! Invariant: every write is a transaction that names the revision it builds on, so no write is lost to another; what is
//! answered has been made durable by the store.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use meta::Status;
use store::{Compare, KeyValue, Op, OpResult, RangeRequest, Store, StoreError, Txn};

use crate::feed::Feed;
use crate::metrics::Family;
use crate::object::Object;
use crate::registry::Served;
use crate::request::Verb;
use crate::trace;

pub struct Storage {
    pub store: Arc<dyn Store>,
    pub feed: Arc<Feed>,
    /// How long the store took, by what was asked of it.
    pub times: Family,
}

/// How a write that builds on a known state ended.
pub enum Written {
    /// Done, at this revision.
    At(u64),
    /// The key is in another state; this one (`None`: it is gone).
    Changed(Option<Arc<Object>>),
    /// The key is as expected, but not what was to change beside it.
    Contended,
}

/// What one transaction changes together with an object: nothing happens unless all of `compares` hold.
#[derive(Clone, Default)]
pub struct Beside {
    pub compares: Vec<Compare>,
    pub ops: Vec<Op>,
}

impl Beside {
    /// Changes a key that is as it was at revision `at`; 0: that is not there.
    pub fn change(&mut self, at: u64, op: Op) {
        if let Op::Put { key, .. } | Op::Delete { key } = &op {
            self.compares.push(Compare::mod_revision(key.clone(), at));
        }
        self.ops.push(op);
    }
}

impl Storage {
    /// Waits until the caches show everything that was written before now.
    pub async fn fresh(&self) -> Result<(), Status> {
        let revision = self.store.revision().await.map_err(|e| store_error(&e))?;
        self.feed.reach(revision).await
    }

    /// Lets the caches catch up as far as they can without asking anybody.
    pub async fn fresh_if_known(&self) -> Result<(), Status> {
        match self.store.known_revision() {
            Some(revision) => self.feed.reach(revision).await,
            None => Ok(()),
        }
    }

    /// The object from the cache, not older than now.
    pub async fn get(&self, served: &Served, key: &str) -> Result<Option<Arc<Object>>, Status> {
        self.fresh().await?;
        Ok(served.cache.get(key))
    }

    /// The object from the store itself.
    pub async fn read(&self, served: &Served, key: &str) -> Result<Option<Arc<Object>>, Status> {
        let request = RangeRequest { start: served.store_key(key), ..RangeRequest::default() };
        let _span = trace::of_store("Get etcd3", served, key);
        let found = self.timed(Verb::Get, served, self.store.range(request)).await?;
        Ok(found.kvs.into_iter().next().and_then(|kv| object_of(key, kv)))
    }

    async fn timed<T>(
        &self,
        verb: Verb,
        served: &Served,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Status> {
        let started = Instant::now();
        let done = work.await;
        self.times.observe(verb, served, started.elapsed());
        done.map_err(|e| store_error(&e))
    }

    /// Writes the object at `key` with a lease (`None` deletes it), which is as it was at revision `at` (0: there is none
    /// yet), and what changes beside it.
    pub async fn write(
        &self,
        served: &Served,
        key: &str,
        at: u64,
        value: Option<(Bytes, i64)>,
        beside: Beside,
    ) -> Result<Written, Status> {
        let full = served.store_key(key);
        let (verb, name) = match (&value, at) {
            (None, _) => (Verb::Delete, "Delete etcd3"),
            (Some(_), 0) => (Verb::Create, "Create etcd3"),
            (Some(_), _) => (Verb::Update, "GuaranteedUpdate etcd3"),
        };
        let _span = trace::of_store(name, served, key);
        let op = match value {
            Some((value, lease)) => Op::Put { key: full.clone(), value, lease },
            None => Op::Delete { key: full.clone() },
        };
        let mut compares = vec![Compare::mod_revision(full.clone(), at)];
        compares.extend(beside.compares);
        let success = std::iter::once(op).chain(beside.ops).collect();
        let txn = Txn { compares, success, failure: vec![Op::Get { key: full }] };
        let done = self.timed(verb, served, self.store.txn(txn)).await?;
        if done.succeeded {
            return Ok(Written::At(done.revision));
        }
        let now = done.results.into_iter().find_map(|r| match r {
            OpResult::Got(kv) => kv,
            _ => None,
        });
        if now.as_ref().map_or(0, |kv| kv.mod_revision) == at {
            return Ok(Written::Contended);
        }
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
