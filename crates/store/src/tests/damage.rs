//! What damage does: it is named, never read as data.

use std::sync::Arc;

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::run;
use crate::disk::Disk;
use crate::disk::sim::{Fault, Loss, SimDisk};
use crate::embedded::open_on;
use crate::{Embedded, Op, Options, RangeRequest, Store, StoreError, Txn};

fn put(store: &Embedded, key: &str, value: &str) -> Result<u64, StoreError> {
    let txn = Txn { success: vec![Op::put(key.to_string(), value.to_string())], ..Txn::default() };
    run(store.txn(txn)).map(|r| r.revision)
}

fn value(store: &Embedded, key: &str) -> Result<Option<Bytes>, StoreError> {
    Ok(run(store.get(Bytes::from(key.to_string())))?.map(|kv| kv.value))
}

fn open(disk: &SimDisk) -> Result<Arc<Embedded>, StoreError> {
    open_on(Arc::new(disk.clone()), None, Options::default())
}

const FIRST: &str = "0000000000000001.log";

#[test]
fn damage_before_the_end_is_refused_and_a_torn_end_is_not() {
    let disk = SimDisk::default();
    let store = open(&disk).unwrap();
    put(&store, "/a", "one").unwrap();
    put(&store, "/b", "two").unwrap();
    store.check().unwrap();
    drop(store);
    let size = disk.content(FIRST).len();
    let mut rng = StdRng::seed_from_u64(1);

    let torn = disk.restart(&mut rng, Loss::Process);
    torn.damage(FIRST, size - 1);
    let store = open(&torn).unwrap();
    assert_eq!(value(&store, "/a"), Ok(Some(Bytes::from("one"))));
    assert_eq!(value(&store, "/b"), Ok(None));
    assert_eq!(put(&store, "/b", "again"), Ok(3));
    store.check().unwrap();

    for byte in 0..32 + (size - 32) / 2 {
        let damaged = disk.restart(&mut rng, Loss::Process);
        damaged.damage(FIRST, byte);
        match open(&damaged) {
            Err(StoreError::Corrupt { what }) => assert!(what.contains(FIRST), "byte {byte}: {what}"),
            other => panic!("byte {byte}: {other:?}"),
        }
    }
}

#[test]
fn a_damaged_value_is_an_error_for_its_reader_only() {
    let disk = SimDisk::default();
    let store = open(&disk).unwrap();
    put(&store, "/a", "one").unwrap();
    put(&store, "/b", "two").unwrap();
    let at = disk.content(FIRST).windows(3).position(|w| w == b"one").unwrap();
    disk.damage(FIRST, at);
    assert!(matches!(value(&store, "/a"), Err(StoreError::Corrupt { .. })));
    assert_eq!(value(&store, "/b"), Ok(Some(Bytes::from("two"))));
    assert!(matches!(store.check(), Err(StoreError::Corrupt { .. })));
}

#[test]
fn a_damaged_checkpoint_or_missing_segment_is_refused() {
    let disk = SimDisk::default();
    let options = || Options { segment_bytes: 500, ..Options::default() };
    let store = open_on(Arc::new(disk.clone()), None, options()).unwrap();
    for i in 0..30 {
        put(&store, &format!("/k{i}"), &"x".repeat(60)).unwrap();
        store.shared.bell.settle();
    }
    store.check().unwrap();
    drop(store);
    let names = disk.list().unwrap();
    let checkpoint = names.iter().find(|n| n.ends_with(".ckpt")).unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    for byte in 0..disk.content(checkpoint).len() {
        let damaged = disk.restart(&mut rng, Loss::Process);
        damaged.damage(checkpoint, byte);
        assert!(matches!(open(&damaged), Err(StoreError::Corrupt { .. })), "byte {byte}");
    }
    for name in names.iter().filter(|n| n.ends_with(".log")) {
        let damaged = disk.restart(&mut rng, Loss::Process);
        damaged.remove(name).unwrap();
        let last = name == names.iter().rfind(|n| n.ends_with(".log")).unwrap();
        match open(&damaged) {
            Err(StoreError::Corrupt { what }) => assert!(what.contains(name.as_str()), "{what}"),
            Ok(_) if last => {}
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_full_disk_stops_writes_until_there_is_room() {
    let disk = SimDisk::default();
    let store = open(&disk).unwrap();
    put(&store, "/a", "one").unwrap();
    disk.set_space(Some(20));
    for _ in 0..3 {
        assert_eq!(put(&store, "/b", "two"), Err(StoreError::NoSpace { dir: "simulated".into() }));
        assert_eq!(value(&store, "/a"), Ok(Some(Bytes::from("one"))));
    }
    disk.set_space(None);
    assert_eq!(put(&store, "/b", "two"), Ok(3));
    store.check().unwrap();
}

#[test]
fn each_failing_step_of_a_write_is_undone() {
    for step in 1..=2 {
        for fault in [Fault::Error, Fault::Short] {
            let disk = SimDisk::default();
            let store = open(&disk).unwrap();
            put(&store, "/a", "one").unwrap();
            disk.inject(step, fault);
            let error = put(&store, "/b", "two").unwrap_err();
            assert!(matches!(error, StoreError::Io { .. }), "{error}");
            store.check().unwrap();
            assert_eq!(value(&store, "/b"), Ok(None));
            assert_eq!(put(&store, "/c", "three"), Ok(3));
            store.check().unwrap();
            let all = RangeRequest { start: "/".into(), end: "0".into(), keys_only: true, ..RangeRequest::default() };
            let keys: Vec<Bytes> = run(store.range(all)).unwrap().kvs.into_iter().map(|kv| kv.key).collect();
            assert_eq!(keys, ["/a", "/c"]);
        }
    }
}
