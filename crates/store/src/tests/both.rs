//! What every store does, by example: the embedded one and etcd.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::run;
use crate::{
    Compare, EventKind, KeyValue, Op, OpResult, RangeRequest, Store, StoreError, Txn, WatchBatch, WatchRequest, memory,
    prefix_end,
};

/// Each gets keys of its own.
pub(super) fn every_case(store: &Arc<dyn Store>) {
    run(async {
        a_create_succeeds_once(&**store).await;
        compares(&**store).await;
        requests_that_make_no_sense_are_refused(&**store).await;
        ranges(&**store).await;
        watches_begin_in_the_past(&**store).await;
        progress_comes_when_asked_for_and_by_itself(&**store).await;
        leases(&**store).await;
        history_is_forgotten(&**store).await;
    });
}

#[test]
fn the_embedded_store_does_what_every_store_does() {
    every_case(&(memory() as Arc<dyn Store>));
}

async fn write(store: &dyn Store, ops: Vec<Op>) -> u64 {
    store.txn(Txn { success: ops, ..Txn::default() }).await.unwrap().revision
}

async fn put(store: &dyn Store, key: &str, value: &str) -> u64 {
    write(store, vec![Op::put(key.to_string(), value.to_string())]).await
}

fn below(prefix: &str) -> RangeRequest {
    RangeRequest { start: prefix.to_string().into(), end: prefix_end(prefix.as_bytes()), ..RangeRequest::default() }
}

fn watch_below(prefix: &str, from_revision: u64, prev_kv: bool) -> WatchRequest {
    let range = below(prefix);
    WatchRequest { start: range.start, end: range.end, from_revision, prev_kv }
}

async fn next(watch: &mut crate::Watch) -> WatchBatch {
    tokio::time::timeout(Duration::from_secs(60), watch.next()).await.unwrap().unwrap().unwrap()
}

/// Events up to and with `revision`, as `put /a=x @5 (was y)`.
async fn events(watch: &mut crate::Watch, revision: u64) -> Vec<String> {
    let mut all = Vec::new();
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    loop {
        let batch = next(watch).await;
        for event in &batch.events {
            let kv = &event.kv;
            let what = match event.kind {
                EventKind::Put => format!("put {}={}", text(&kv.key), text(&kv.value)),
                EventKind::Delete => format!("delete {}", text(&kv.key)),
            };
            let was = event.prev.as_ref().map_or(String::new(), |prev| format!(" (was {})", text(&prev.value)));
            all.push(format!("{what} @{}{was}", kv.mod_revision));
        }
        if batch.revision >= revision {
            return all;
        }
    }
}

async fn a_create_succeeds_once(store: &dyn Store) {
    let create = |value: &'static str| Txn {
        compares: vec![Compare::absent("/create/a")],
        success: vec![Op::put("/create/a", value)],
        failure: vec![Op::get("/create/a")],
    };
    let before = store.revision().await.unwrap();
    let first = store.txn(create("one")).await.unwrap();
    assert_eq!((first.succeeded, first.revision), (true, before + 1));
    let second = store.txn(create("two")).await.unwrap();
    assert_eq!((second.succeeded, second.revision), (false, before + 1));
    let kv = KeyValue {
        key: "/create/a".into(),
        value: "one".into(),
        create_revision: before + 1,
        mod_revision: before + 1,
        version: 1,
        lease: 0,
    };
    assert_eq!(second.results, [OpResult::Got(Some(kv))]);
}

async fn compares(store: &dyn Store) {
    use crate::Relation::{Equal, Greater, Less, NotEqual};
    use crate::Target::{Exists, Value, Version};
    put(store, "/compare/a", "b").await;
    for (key, target, relation, expected) in [
        ("a", Exists(true), Equal, true),
        ("a", Exists(false), Equal, false),
        ("a", Exists(false), Greater, true),
        ("a", Exists(true), Greater, false),
        ("none", Exists(false), Equal, true),
        ("none", Exists(true), Less, true),
        ("none", Exists(true), NotEqual, true),
        ("a", Value("a".into()), Greater, true),
        ("none", Value("".into()), Equal, false),
        ("none", Value("".into()), NotEqual, false),
        ("a", Version(1), Equal, true),
        ("none", Version(1), Less, true),
    ] {
        let compare = Compare { key: format!("/compare/{key}").into(), target: target.clone(), relation };
        let done = store.txn(Txn { compares: vec![compare], ..Txn::default() }).await.unwrap();
        assert_eq!(done.succeeded, expected, "{key} {relation:?} {target:?}");
    }
}

async fn requests_that_make_no_sense_are_refused(store: &dyn Store) {
    let before = store.revision().await.unwrap();
    let leased = Op::Put { key: "/a".into(), value: "x".into(), lease: 9 };
    for (ops, expected) in [
        (vec![Op::put("", "x")], "invalid store request: a key is empty; name one"),
        (vec![Op::put("/a", "x"), Op::put("/a", "y")], "is written twice in one transaction; do it once"),
        (vec![leased], "lease 9 does not exist or has expired; grant a new one"),
        (vec![Op::put("/a", vec![0; 17 << 20])], "the transaction holds 17825794 bytes, "),
    ] {
        let error = store.txn(Txn { success: ops, ..Txn::default() }).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert_eq!(store.revision().await, Ok(before));
    assert_eq!(store.lease_keep_alive(9).await, Err(StoreError::LeaseNotFound { id: 9 }));
    assert_eq!(store.lease_revoke(9).await, Err(StoreError::LeaseNotFound { id: 9 }));
}

async fn ranges(store: &dyn Store) {
    let mut revisions = Vec::new();
    for key in ["a", "b", "c"] {
        revisions.push(put(store, &format!("/range/{key}"), key).await);
    }
    let deleted = write(store, vec![Op::delete("/range/a")]).await;
    let read = async |request: RangeRequest| {
        let found = store.range(request).await.unwrap();
        assert_eq!(found.revision, deleted);
        let text = |kv: &KeyValue| String::from_utf8_lossy(&[&kv.key[..], b"=", &kv.value[..]].concat()).into_owned();
        (found.kvs.iter().map(text).collect::<Vec<_>>().join(" "), found.more, found.count)
    };
    let all = below("/range/");
    assert_eq!(read(all.clone()).await, ("/range/b=b /range/c=c".into(), false, 2));
    let old = RangeRequest { revision: revisions[1], ..all.clone() };
    assert_eq!(read(old.clone()).await, ("/range/a=a /range/b=b".into(), false, 2));
    assert_eq!(read(RangeRequest { limit: 1, ..old }).await, ("/range/a=a".into(), true, 2));
    assert_eq!(read(RangeRequest { keys_only: true, ..all.clone() }).await, ("/range/b= /range/c=".into(), false, 2));
    assert_eq!(read(RangeRequest { count_only: true, limit: 1, ..all.clone() }).await, (String::new(), false, 2));
    let future = store.range(RangeRequest { revision: deleted + 7, ..all }).await;
    assert_eq!(future, Err(StoreError::FutureRevision { requested: deleted + 7, current: deleted }));
}

async fn watches_begin_in_the_past(store: &dyn Store) {
    let first = put(store, "/watch/a", "1").await;
    put(store, "/elsewhere", "x").await;
    let ops = vec![Op::put("/watch/b", "2"), Op::put("/watch/a", "2")];
    let second = write(store, ops).await;
    let mut watch = store.watch(watch_below("/watch/", first, true)).await.unwrap();
    let mut later = store.watch(watch_below("/watch/", second + 1, false)).await.unwrap();
    let mut now = store.watch(watch_below("/watch/", 0, false)).await.unwrap();
    let third = write(store, vec![Op::DeleteRange { start: "/watch/".into(), end: "/watch0".into() }]).await;
    let expected = [
        format!("put /watch/a=1 @{first}"),
        // In the order of keys, not of the transaction.
        format!("put /watch/a=2 @{second} (was 1)"),
        format!("put /watch/b=2 @{second}"),
        format!("delete /watch/a @{third} (was 2)"),
        format!("delete /watch/b @{third} (was 2)"),
    ];
    assert_eq!(events(&mut watch, third).await, expected);
    let expected = [format!("delete /watch/a @{third}"), format!("delete /watch/b @{third}")];
    assert_eq!(events(&mut later, third).await, expected);
    assert_eq!(events(&mut now, third).await, expected);
}

async fn progress_comes_when_asked_for_and_by_itself(store: &dyn Store) {
    let request = watch_below("/progress/", 0, false);
    let mut watch = store.watch(request.clone()).await.unwrap();
    let requester = watch.progress_requester();
    let first = put(store, "/progress/a", "x").await;
    let second = put(store, "/elsewhere", "x").await;
    requester.request();
    assert_eq!(events(&mut watch, second).await, [format!("put /progress/a=x @{first}")]);

    let mut watch = store.watch(request).await.unwrap().progress_every(Duration::from_millis(1));
    let third = put(store, "/elsewhere", "y").await;
    let requester = watch.progress_requester();
    requester.request();
    let progress = next(&mut watch).await;
    assert_eq!((progress.revision, progress.events.len()), (third, 0));
}

async fn leases(store: &dyn Store) {
    let lease = store.lease_grant(0, 600).await.unwrap();
    let held = store.lease_grant(77, 600).await.unwrap();
    assert_eq!((lease.ttl_s, held.id, held.ttl_s), (600, 77, 600));
    assert_eq!(store.lease_grant(77, 5).await, Err(StoreError::LeaseExists { id: 77 }));
    assert_eq!(store.lease_keep_alive(77).await, Ok(held));
    let op = |key: &'static str, lease| Op::Put { key: key.into(), value: "x".into(), lease };
    let ops = vec![op("/lease/a", lease.id), op("/lease/b", lease.id), op("/lease/c", 77)];
    let revision = write(store, ops).await;
    assert_eq!(store.get("/lease/a".into()).await.unwrap().unwrap().lease, lease.id);
    let mut watch = store.watch(watch_below("/lease/", revision + 1, false)).await.unwrap();
    store.lease_revoke(lease.id).await.unwrap();
    let expected = [format!("delete /lease/a @{}", revision + 1), format!("delete /lease/b @{}", revision + 1)];
    assert_eq!(events(&mut watch, revision + 1).await, expected);
    // This one's time runs out; not before it is used, however slow the machine is.
    let short = store.lease_grant(0, 5).await.unwrap();
    let put = write(store, vec![op("/lease/d", short.id)]).await;
    let expected = [format!("put /lease/d=x @{put}"), format!("delete /lease/d @{}", put + 1)];
    assert_eq!(events(&mut watch, put + 1).await, expected);
    assert_eq!(store.range(below("/lease/")).await.unwrap().count, 1);
}

async fn history_is_forgotten(store: &dyn Store) {
    let old = put(store, "/history/a", "1").await;
    let mut going = store.watch(watch_below("/history/", old, false)).await.unwrap();
    assert_eq!(events(&mut going, old).await.len(), 1);
    let now = put(store, "/history/a", "2").await;
    assert_eq!(events(&mut going, now).await.len(), 1);
    store.compact(now).await.unwrap();
    let gone = StoreError::Compacted { at: now };
    assert_eq!(store.compact(old).await, Err(gone.clone()));
    assert_eq!(store.compact(now + 5).await, Err(StoreError::FutureRevision { requested: now + 5, current: now }));
    let at = |revision| RangeRequest { revision, ..below("/history/") };
    assert_eq!(store.range(at(old)).await, Err(gone.clone()));
    assert_eq!(store.range(at(now)).await.unwrap().kvs[0].value, "2");
    for from in [old, now] {
        assert_eq!(store.watch(watch_below("/history/", from, false)).await.err(), Some(gone.clone()), "{from}");
    }
    let last = put(store, "/history/a", "3").await;
    assert_eq!(events(&mut going, last).await, [format!("put /history/a=3 @{last}")]);
}
