//! Forgets history: every five minutes, what is older than five minutes, as upstream's `--etcd-compaction-interval`.
//!
//! Invariant: a revision stays readable for at least one interval, so that lists can be continued and watches resumed.

use std::sync::Arc;
use std::time::Duration;

use store::{Store, StoreError};
use tokio_util::sync::CancellationToken;

pub const EVERY: Duration = Duration::from_secs(300);

/// Compacts until `shutdown`.
pub async fn keep(store: Arc<dyn Store>, shutdown: CancellationToken) {
    let mut old = 0;
    loop {
        match store.revision().await {
            Ok(now) => {
                forget(store.as_ref(), old, now).await;
                old = now;
            }
            Err(error) => tracing::warn!("cannot ask the store for its revision: {error}"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Forgets what came before `old`, where anything has been written since.
async fn forget(store: &dyn Store, old: u64, now: u64) {
    if old == 0 || old == now {
        return;
    }
    match store.compact(old).await {
        // Somebody else compacted further: just as well.
        Ok(()) | Err(StoreError::Compacted { .. }) => tracing::debug!("history before revision {old} is forgotten"),
        Err(error) => tracing::warn!("cannot compact the store's history: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::{Op, RangeRequest, Txn};

    async fn put(store: &dyn Store) -> u64 {
        let txn = Txn { compares: Vec::new(), success: vec![Op::put("/registry/a", "b")], failure: Vec::new() };
        store.txn(txn).await.expect("written").revision
    }

    #[tokio::test]
    async fn one_interval_of_history_is_kept() {
        let store = store::memory();
        let read = async |revision: u64| {
            let request = RangeRequest { start: "/registry/a".into(), revision, ..RangeRequest::default() };
            store.range(request).await.map(|r| r.kvs.len())
        };
        // What `keep` sees at the beginning of three intervals.
        let seen = [put(store.as_ref()).await, put(store.as_ref()).await, put(store.as_ref()).await];
        for (old, now) in [(0, seen[0]), (seen[0], seen[1]), (seen[1], seen[2]), (seen[2], seen[2])] {
            forget(store.as_ref(), old, now).await;
        }
        assert!(matches!(read(seen[0]).await, Err(StoreError::Compacted { .. })));
        assert_eq!((read(seen[1]).await.expect("kept"), read(seen[2]).await.expect("kept")), (1, 1));
    }
}
