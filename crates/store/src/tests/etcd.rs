//! The store in a real etcd: what every store does, and what becomes of writes and watches when members die.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::servers::EtcdServers;
use super::{both, run};
use crate::etcd::OUTAGE;
use crate::{
    Compare, Etcd, EtcdOptions, EventKind, Op, RangeRequest, Store, StoreError, Txn, WatchRequest, prefix_end,
};

#[path = "../../tests/support/etcd.rs"]
mod servers;

pub(super) use servers::EtcdServers as Servers;

pub(super) fn connect(servers: &EtcdServers, prefix: &str) -> Arc<dyn Store> {
    let tls = pki::tls::client(&servers.ca_pem, Some(&servers.client)).unwrap();
    let (servers, prefix) = (servers.urls(), prefix.to_string());
    Etcd::new(EtcdOptions { servers, tls: Some(Arc::new(tls)), prefix, ..EtcdOptions::default() }).unwrap()
}

fn create(key: String) -> Txn {
    let put = Op::put(key.clone(), vec![b'x'; 1000]);
    Txn { compares: vec![Compare::absent(key)], success: vec![put], failure: Vec::new() }
}

#[test]
fn etcd_does_what_every_store_does() {
    let servers = EtcdServers::start(1);
    let store = connect(&servers, "/registry");
    let (start, end) = (Bytes::from("/registry/"), Bytes::from("/registry0"));
    let mut first = run(store.watch(WatchRequest { start, end, from_revision: 1, ..WatchRequest::default() })).unwrap();
    first.progress_requester().request();
    assert_eq!(run(first.next()).unwrap().unwrap().revision, 1, "nothing happens in etcd's first revision");
    both::every_case(&store);

    // Two prefixes are two stores that count revisions together.
    let (one, two) = (connect(&servers, "/registry"), connect(&servers, "two"));
    let pods = RangeRequest { start: "/registry/".into(), end: "/registry0".into(), ..RangeRequest::default() };
    let mut watch =
        run(two.watch(WatchRequest { start: pods.start.clone(), end: pods.end.clone(), ..WatchRequest::default() }))
            .unwrap();
    run(one.txn(create("/registry/a".into()))).unwrap();
    let written = run(two.txn(create("/registry/b".into()))).unwrap();
    let keys = |store: &Arc<dyn Store>| {
        run(store.range(pods.clone())).unwrap().kvs.iter().map(|kv| kv.key.clone()).collect::<Vec<_>>()
    };
    assert_eq!((keys(&one), keys(&two)), (vec![Bytes::from("/registry/a")], vec![Bytes::from("/registry/b")]));
    assert!(run(one.get("/two/b".into())).unwrap().is_some());
    let event = loop {
        let batch = run(watch.next()).unwrap().unwrap();
        if let Some(event) = batch.events.into_iter().next() {
            break event;
        }
    };
    assert_eq!((event.kv.key.as_ref(), event.kv.mod_revision), (&b"/registry/b"[..], written.revision));
}

#[test]
fn without_etcd_calls_end_with_what_to_do() {
    let mut servers = EtcdServers::start(1);
    let store = connect(&servers, "/registry");
    run(store.txn(create("/registry/a".into()))).unwrap();
    servers.kill(0);
    let port = servers.urls()[0].rsplit(':').next().unwrap().to_string();
    // Those that were on their way while the connection broke may have been done or not.
    let error = loop {
        match run(store.txn(create("/registry/b".into()))).unwrap_err() {
            StoreError::Unknown { .. } => {}
            error => break error,
        }
    };
    let said = error.to_string();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{said}");
    assert!(said.contains(&format!("127.0.0.1:{port}: Connection refused")), "{said}");
    let began = Instant::now();
    assert!(matches!(run(store.revision()), Err(StoreError::Unavailable { .. })));
    assert!(began.elapsed() < OUTAGE / 2, "later calls wait as long as the first");

    let tls = pki::tls::client(&servers.ca_pem, None).unwrap();
    servers.restart(0);
    assert!(run(store.get("/registry/a".into())).unwrap().is_some());
    let urls = servers.urls();
    let anonymous =
        Etcd::new(EtcdOptions { servers: urls, tls: Some(Arc::new(tls)), ..EtcdOptions::default() }).unwrap();
    assert!(run(anonymous.revision()).is_err(), "etcd asks for certificates");
}

/// What the writers were told.
#[derive(Default)]
struct Told {
    acknowledged: BTreeMap<Bytes, u64>,
    unknown: usize,
    unavailable: usize,
}

/// Writes new keys until told to stop.
async fn writer(store: Arc<dyn Store>, me: usize, stop: Arc<AtomicBool>, done: Arc<AtomicUsize>) -> Told {
    let mut told = Told::default();
    for n in 0.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let key = format!("/registry/load/{me}/{n:06}");
        match store.txn(create(key.clone())).await {
            Ok(written) => {
                assert!(written.succeeded, "{key} was written twice");
                told.acknowledged.insert(key.into(), written.revision);
                done.fetch_add(1, Ordering::AcqRel);
            }
            Err(StoreError::Unknown { .. }) => told.unknown += 1,
            Err(StoreError::Unavailable { .. }) => told.unavailable += 1,
            Err(error) => panic!("{key}: {error}"),
        }
    }
    told
}

/// Writes while `trouble` happens; then nothing acknowledged is missing and the watch saw everything once, in order.
fn under_load(mut servers: EtcdServers, trouble: impl FnOnce(&mut EtcdServers, &dyn Fn())) {
    let store = connect(&servers, "/registry");
    let start = Bytes::from("/registry/load/");
    let all = RangeRequest { end: prefix_end(&start), start, ..RangeRequest::default() };
    let request = WatchRequest { start: all.start.clone(), end: all.end.clone(), ..WatchRequest::default() };
    let mut watch = run(store.watch(request)).unwrap();
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let runtime = super::RUNTIME.handle();
    let writers: Vec<_> =
        (0..8).map(|me| runtime.spawn(writer(store.clone(), me, stop.clone(), done.clone()))).collect();
    let more = || {
        let (from, began) = (done.load(Ordering::Acquire), Instant::now());
        while done.load(Ordering::Acquire) < from + 200 {
            assert!(began.elapsed() < Duration::from_secs(180), "writes do not go on");
            run(async { tokio::time::sleep(Duration::from_millis(5)).await });
        }
    };
    more();
    trouble(&mut servers, &more);
    more();
    stop.store(true, Ordering::Release);
    let mut told = Told::default();
    for writer in writers {
        let one = run(writer).unwrap();
        told.acknowledged.extend(one.acknowledged);
        told.unknown += one.unknown;
        told.unavailable += one.unavailable;
    }
    let found = run(store.range(all)).unwrap();
    println!(
        "{} acknowledged, {} of unknown outcome, {} refused, {} found",
        told.acknowledged.len(),
        told.unknown,
        told.unavailable,
        found.count
    );
    let stored: BTreeMap<Bytes, u64> = found.kvs.into_iter().map(|kv| (kv.key, kv.mod_revision)).collect();
    for (key, revision) in &told.acknowledged {
        assert_eq!(stored.get(key), Some(revision), "{key:?}");
    }
    assert!(stored.len() <= told.acknowledged.len() + told.unknown);
    let mut seen = BTreeMap::new();
    let mut last = 0;
    watch.progress_requester().request();
    run(async {
        while last < found.revision {
            let batch = tokio::time::timeout(Duration::from_secs(60), watch.next()).await.unwrap().unwrap().unwrap();
            for event in batch.events {
                assert!(event.kind == EventKind::Put && event.kv.mod_revision > last, "{event:?} after {last}");
                last = event.kv.mod_revision;
                assert_eq!(seen.insert(event.kv.key, last), None);
            }
            last = last.max(batch.revision);
        }
    });
    assert_eq!(seen, stored);
}

#[test]
fn killing_etcd_under_load_loses_nothing() {
    under_load(EtcdServers::start(1), |servers, more| {
        for _ in 0..3 {
            servers.kill(0);
            servers.restart(0);
            more();
        }
    });
}

#[test]
fn another_member_takes_over() {
    under_load(EtcdServers::start(3), |servers, more| {
        for i in 0..3 {
            servers.kill(i);
            more();
            servers.restart(i);
        }
    });
}
