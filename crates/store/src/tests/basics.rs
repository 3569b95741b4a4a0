//! What is the embedded store's own: its limits, its clock, its directory, its end. What every store does is in `both`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::run;
use crate::{
    Embedded, EventKind, ManualClock, Op, Options, RangeRequest, Store, StoreError, Txn, WatchRequest, memory,
    memory_with, open,
};

fn put(store: &Embedded, key: &str, value: &str) -> u64 {
    let txn = Txn { success: vec![Op::put(key.to_string(), value.to_string())], ..Txn::default() };
    run(store.txn(txn)).unwrap().revision
}

fn everything() -> WatchRequest {
    WatchRequest { start: "/".into(), end: "0".into(), ..WatchRequest::default() }
}

#[test]
fn a_slow_watcher_ends_with_an_error() {
    let store = memory_with(Options { watch_events: 3, ..Options::default() });
    let mut slow = run(store.watch(everything())).unwrap();
    let mut quick = run(store.watch(everything())).unwrap();
    for i in 0..4 {
        put(&store, &format!("/{i}"), "x");
        let batch = run(quick.next()).unwrap().unwrap();
        assert_eq!(batch.events.len(), 1);
    }
    assert_eq!(run(slow.next()), Some(Err(StoreError::WatchLagged { events: 4 })));
    assert_eq!(run(slow.next()), None);
    assert_eq!(store.shared.hub.watchers(), 1);
}

#[test]
fn keys_die_with_their_lease() {
    let clock = Arc::new(ManualClock::default());
    let store = memory_with(Options { clock: clock.clone(), ..Options::default() });
    let lease = run(store.lease_grant(0, 10)).unwrap();
    let op = |key: &'static str| Op::Put { key: key.into(), value: "x".into(), lease: lease.id };
    run(store.txn(Txn { success: vec![op("/a"), op("/b")], ..Txn::default() })).unwrap();
    let mut watch = run(store.watch(everything())).unwrap();
    clock.advance(Duration::from_secs(9));
    run(store.lease_keep_alive(lease.id)).unwrap();
    clock.advance(Duration::from_secs(9));
    store.poke();
    assert_eq!(
        run(store.range(RangeRequest { start: "/".into(), end: "0".into(), ..Default::default() })).unwrap().count,
        2
    );
    clock.advance(Duration::from_secs(1));
    store.poke();
    let batch = run(watch.next()).unwrap().unwrap();
    let seen: Vec<_> = batch.events.iter().map(|e| (e.kind, e.kv.key.clone(), e.kv.mod_revision)).collect();
    assert_eq!(seen, [(EventKind::Delete, Bytes::from("/a"), 3), (EventKind::Delete, Bytes::from("/b"), 3)]);
    assert_eq!(run(store.lease_keep_alive(lease.id)), Err(StoreError::LeaseNotFound { id: lease.id }));
    store.check().unwrap();
}

#[test]
fn a_lease_of_many_keys_goes_in_several_revisions() {
    let store = memory();
    run(store.lease_grant(7, 10)).unwrap();
    let puts = (0..2500).map(|i| Op::Put { key: format!("/{i:04}").into(), value: "x".into(), lease: 7 });
    run(store.txn(Txn { success: puts.collect(), ..Txn::default() })).unwrap();
    run(store.lease_revoke(7)).unwrap();
    assert_eq!(run(store.revision()), Ok(5));
    assert_eq!(
        run(store.range(RangeRequest { start: "/".into(), end: "0".into(), ..Default::default() })).unwrap().count,
        0
    );
    store.check().unwrap();
}

#[test]
fn closing_ends_writes_and_watches() {
    let store = memory();
    put(&store, "/a", "x");
    let mut watch = run(store.watch(everything())).unwrap();
    store.close();
    assert_eq!(run(watch.next()), Some(Err(StoreError::Closed)));
    assert_eq!(run(store.txn(Txn { success: vec![Op::put("/a", "y")], ..Txn::default() })), Err(StoreError::Closed));
    assert_eq!(run(store.get("/a".into())).unwrap().unwrap().value, "x");
    assert!(matches!(run(store.watch(everything())), Err(StoreError::Closed)));
}

#[test]
fn a_directory_is_opened_once_kept_private_and_found_again() {
    use std::os::unix::fs::PermissionsExt;
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("store");
    let store = open(&dir, Options::default()).unwrap();
    put(&store, "/a", "x");
    let expected =
        StoreError::Locked { dir: dir.display().to_string(), owner: format!("process {}", std::process::id()) };
    assert_eq!(open(&dir, Options::default()).unwrap_err(), expected);
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for entry in std::fs::read_dir(&dir).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    drop(store);
    let store = open(&dir, Options::default()).unwrap();
    assert_eq!(run(store.get("/a".into())).unwrap().unwrap().value, "x");
    store.check().unwrap();
}

#[test]
fn space_is_given_back_after_compaction() {
    let temporary = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 64 << 10, ..Options::default() };
    let store = open(temporary.path(), options).unwrap();
    put(&store, "/kept", "from the first segment");
    for i in 0..400 {
        put(&store, &format!("/{}", i % 10), &"x".repeat(2000));
        if i % 50 == 49 {
            run(store.compact(run(store.revision()).unwrap())).unwrap();
            store.shared.bell.settle();
        }
    }
    let stats = store.stats();
    assert!(stats.disk_bytes < 200 << 10, "{stats:?}");
    assert_eq!(run(store.get("/kept".into())).unwrap().unwrap().value, "from the first segment");
    store.check().unwrap();
}
