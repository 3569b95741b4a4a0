//! Many callers at once: compares decide in commit order, readers see whole revisions, watchers miss nothing wherever they begin.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::run;
use crate::disk::sim::SimDisk;
use crate::embedded::open_on;
use crate::{Compare, Embedded, Op, Options, RangeRequest, Store, StoreError, Txn, WatchRequest};

const WRITERS: u64 = 8;
const WRITES: u64 = 150;

fn store() -> Arc<Embedded> {
    let options = Options { segment_bytes: 16 << 10, ..Options::default() };
    open_on(Arc::new(SimDisk::default()), None, options).unwrap()
}

/// Adds one to two counters that must always be equal; a lost race is run again.
fn count_up(store: &Embedded) {
    loop {
        let old = run(store.get("/n/a".into())).unwrap();
        let (revision, n) = old.map_or((0, 0), |kv| (kv.mod_revision, parse(&kv.value)));
        let value = Bytes::from((n + 1).to_string());
        let txn = Txn {
            compares: vec![Compare::mod_revision("/n/a", revision)],
            success: vec![Op::put("/n/a", value.clone()), Op::put("/n/b", value)],
            failure: Vec::new(),
        };
        if run(store.txn(txn)).unwrap().succeeded {
            return;
        }
    }
}

fn parse(value: &[u8]) -> u64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

fn both() -> RangeRequest {
    RangeRequest { start: "/n/".into(), end: "/n0".into(), ..RangeRequest::default() }
}

/// From wherever it begins to the last number, or the newest at its beginning, without a gap.
fn follow(store: &Embedded, last: Option<u64>) {
    let (mut watch, last) = loop {
        let listed = run(store.range(both())).unwrap();
        let request = WatchRequest {
            start: "/n/".into(),
            end: "/n0".into(),
            from_revision: listed.revision.saturating_sub(40).max(2),
            prev_kv: true,
        };
        match run(store.watch(request)) {
            Ok(watch) => {
                let newest = listed.kvs.first().map_or(1, |kv| parse(&kv.value));
                break (watch, last.unwrap_or(newest));
            }
            Err(StoreError::Compacted { .. }) => {}
            Err(e) => panic!("{e}"),
        }
    };
    let mut before = None;
    loop {
        for pair in run(watch.next()).unwrap().unwrap().events.chunks(2) {
            let [a, b] = pair else { panic!("half a revision: {pair:?}") };
            assert_eq!((a.kv.key.as_ref(), b.kv.key.as_ref()), (&b"/n/a"[..], &b"/n/b"[..]));
            assert_eq!((a.kv.mod_revision, &a.kv.value), (b.kv.mod_revision, &b.kv.value));
            let n = parse(&a.kv.value);
            if let Some(before) = before {
                assert_eq!(n, before + 1);
            }
            if n > 1
                && let Some(prev) = &a.prev
            {
                assert_eq!(parse(&prev.value), n - 1);
            }
            before = Some(n);
            if n == last {
                return;
            }
        }
    }
}

#[test]
fn races_are_decided_and_everybody_sees_the_same() {
    let store = store();
    let last = WRITERS * WRITES;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> =
            (0..WRITERS).map(|_| scope.spawn(|| (0..WRITES).for_each(|_| count_up(&store)))).collect();
        for _ in 0..3 {
            scope.spawn(|| follow(&store, Some(last)));
        }
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let kvs = run(store.range(both())).unwrap().kvs;
                if let [a, b] = &kvs[..] {
                    assert_eq!(a.value, b.value);
                } else {
                    assert!(kvs.is_empty());
                }
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let revision = run(store.revision()).unwrap();
                match run(store.compact(revision.saturating_sub(100).max(1))) {
                    Ok(()) | Err(StoreError::Compacted { .. }) => {}
                    Err(e) => panic!("{e}"),
                }
                follow(&store, None);
            }
        });
        writers.into_iter().for_each(|w| w.join().unwrap());
        done.store(true, Ordering::SeqCst);
    });
    assert_eq!(parse(&run(store.get("/n/b".into())).unwrap().unwrap().value), last);
    store.check().unwrap();
}
