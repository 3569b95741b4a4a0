//! The memory store for servers whose clock may be paused. Such a clock runs ahead whenever every task waits, and does not
//! know of the store's own thread: a write that this thread takes a moment for would be late by minutes.
//!
//! Invariant: while a write is on its way, one of the runtime's threads waits for it; for those a paused clock stands still.

use std::sync::Arc;

use async_trait::async_trait;
use store::{Embedded, Lease, RangeRequest, RangeResponse, Store, StoreError, Txn, TxnResponse, Watch, WatchRequest};
use tokio::runtime::Handle;

pub struct Still(pub Arc<Embedded>);

impl Still {
    async fn wait<T, F>(&self, work: impl FnOnce(Arc<Embedded>) -> F + Send + 'static) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>>,
    {
        let store = self.0.clone();
        let done = tokio::task::spawn_blocking(move || Handle::current().block_on(work(store)));
        done.await.expect("the store does not panic")
    }
}

#[async_trait]
impl Store for Still {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        self.0.range(request).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, StoreError> {
        self.wait(|store| async move { store.txn(txn).await }).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<Watch, StoreError> {
        self.0.watch(request).await
    }

    async fn compact(&self, revision: u64) -> Result<(), StoreError> {
        self.wait(move |store| async move { store.compact(revision).await }).await
    }

    async fn lease_grant(&self, id: i64, ttl_s: u64) -> Result<Lease, StoreError> {
        self.wait(move |store| async move { store.lease_grant(id, ttl_s).await }).await
    }

    async fn lease_keep_alive(&self, id: i64) -> Result<Lease, StoreError> {
        self.wait(move |store| async move { store.lease_keep_alive(id).await }).await
    }

    async fn lease_revoke(&self, id: i64) -> Result<(), StoreError> {
        self.wait(move |store| async move { store.lease_revoke(id).await }).await
    }

    async fn revision(&self) -> Result<u64, StoreError> {
        self.0.revision().await
    }

    fn known_revision(&self) -> Option<u64> {
        self.0.known_revision()
    }
}
