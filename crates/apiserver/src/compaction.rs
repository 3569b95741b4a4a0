//! Forgets history: every five minutes, what is older than five minutes, as upstream's `--etcd-compaction-interval`.
//!
//! Writes `compact_rev_key`, by which the API servers of one store agree who compacts, as upstream's do. Invariant: a
//! revision stays readable for at least one interval, so that lists can be continued and watches resumed.

use std::sync::Arc;
use std::time::Duration;

use store::{Compare, Op, OpResult, Store, StoreError, Txn};
use tokio_util::sync::CancellationToken;

pub const EVERY: Duration = Duration::from_secs(300);
/// Its version counts the rounds; its value is the revision that the round compacts to. Source: etcd3/compact.go.
const KEY: &str = "compact_rev_key";

/// What is known since the last round.
#[derive(Default)]
struct Round {
    number: u64,
    revision: u64,
}

/// Compacts until `shutdown`.
pub async fn keep(store: Arc<dyn Store>, shutdown: CancellationToken) {
    let mut round = Round::default();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        if let Err(error) = round.next(&*store).await {
            tracing::warn!("cannot compact the store's history: {error}");
        }
    }
}

impl Round {
    /// The first who comes forgets what came before its last round; the others only learn of it.
    async fn next(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        let txn = Txn {
            compares: vec![Compare::version(KEY, self.number)],
            success: vec![Op::put(KEY, self.revision.to_string())],
            failure: vec![Op::get(KEY)],
        };
        let done = store.txn(txn).await?;
        let old = std::mem::replace(&mut self.revision, done.revision);
        if !done.succeeded {
            self.number = match done.results.first() {
                Some(OpResult::Got(Some(kv))) => kv.version,
                _ => 0,
            };
            return Ok(());
        }
        self.number += 1;
        // In its first round a server does not know which revision is old.
        if old == 0 {
            return Ok(());
        }
        match store.compact(old).await {
            // Somebody else compacted further: just as well.
            Ok(()) | Err(StoreError::Compacted { .. }) => tracing::debug!("history before revision {old} is forgotten"),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::RangeRequest;

    async fn put(store: &dyn Store) -> u64 {
        let txn = Txn { compares: Vec::new(), success: vec![Op::put("/registry/a", "b")], failure: Vec::new() };
        store.txn(txn).await.expect("written").revision
    }

    #[tokio::test]
    async fn one_interval_of_history_is_kept() {
        let store = store::memory();
        let oldest = async || {
            for revision in 1.. {
                let request = RangeRequest { start: "/registry/a".into(), revision, ..RangeRequest::default() };
                match store.range(request).await {
                    Ok(_) => return revision,
                    Err(StoreError::Compacted { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            0
        };
        let (mut one, mut two) = (Round::default(), Round::default());
        one.next(&*store).await.expect("a round");
        for _ in 0..3 {
            let seen = one.revision;
            put(&*store).await;
            // The other comes too late in each round.
            two.next(&*store).await.expect("a round");
            one.next(&*store).await.expect("a round");
            assert_eq!((oldest().await, two.number + 1), (seen, one.number));
        }
        // The first is gone: the other learns of its last round, then takes over.
        two.next(&*store).await.expect("a round");
        let seen = two.revision;
        put(&*store).await;
        two.next(&*store).await.expect("a round");
        assert_eq!(oldest().await, seen);
    }
}
