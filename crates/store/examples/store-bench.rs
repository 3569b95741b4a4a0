//! Prints what the store does on this disk: durable writes by number of clients, reads, reopening.
//! `cargo run --release -p store --example store-bench [SECONDS [DIR]]`; writes below DIR (a temporary directory) and removes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use store::{Compare, Embedded, Op, Options, RangeRequest, Store, Txn, WatchRequest};

const VALUE_BYTES: usize = 1500;

fn create(key: String, value: Bytes) -> Txn {
    Txn { compares: vec![Compare::absent(key.clone())], success: vec![Op::put(key, value)], failure: Vec::new() }
}

async fn writes(store: &Arc<Embedded>, clients: u64, length: Duration, next: &Arc<AtomicU64>) -> Vec<Duration> {
    let end = Instant::now() + length;
    let mut tasks = Vec::new();
    for _ in 0..clients {
        let (store, next) = (store.clone(), next.clone());
        tasks.push(tokio::spawn(async move {
            let mut latencies = Vec::new();
            while Instant::now() < end {
                let key = format!("/registry/pods/default/pod-{:08}", next.fetch_add(1, Ordering::Relaxed));
                let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
                let start = Instant::now();
                store.txn(create(key, value)).await.expect("the disk takes writes");
                latencies.push(start.elapsed());
            }
            latencies
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.expect("no panics"));
    }
    all.sort();
    all
}

fn resident_mib() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0.0);
    pages * 4096.0 / f64::from(1 << 20)
}

#[tokio::main]
async fn main() {
    let seconds: f64 = std::env::args().nth(1).map_or(3.0, |s| s.parse().expect("SECONDS is a number"));
    let base = std::env::args().nth(2).map_or_else(std::env::temp_dir, Into::into);
    let dir = base.join(format!("knarr-store-bench-{}", std::process::id()));
    let store = store::open(&dir, Options::default()).expect("the store opens");
    let everything = WatchRequest { start: "/".into(), end: "0".into(), ..WatchRequest::default() };
    let mut watch = store.watch(everything).await.expect("a watch starts");
    let watched = tokio::spawn(async move {
        let mut events = 0;
        while let Some(Ok(batch)) = watch.next().await {
            events += batch.events.len();
        }
        events
    });
    println!("creates of {VALUE_BYTES} bytes, each synced before its answer, one watcher on everything");
    println!("{:>8} {:>10} {:>10} {:>9} {:>9}", "clients", "writes/s", "per group", "p50 ms", "p99 ms");
    let next = Arc::new(AtomicU64::new(0));
    for clients in [1, 10, 100, 1000] {
        let before = store.stats().commits;
        let start = Instant::now();
        let latencies = writes(&store, clients, Duration::from_secs_f64(seconds), &next).await;
        let elapsed = start.elapsed().as_secs_f64();
        let groups = (store.stats().commits - before).max(1);
        let at = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize].as_secs_f64() * 1000.0;
        println!(
            "{clients:>8} {:>10.0} {:>10.1} {:>9.2} {:>9.2}",
            latencies.len() as f64 / elapsed,
            latencies.len() as f64 / groups as f64,
            at(0.5),
            at(0.99)
        );
    }
    let stats = store.stats();
    println!(
        "{} keys, {:.0} MiB on disk, {:.0} MiB resident",
        stats.keys,
        stats.disk_bytes as f64 / f64::from(1 << 20),
        resident_mib()
    );

    let page = RangeRequest { start: "/".into(), end: "0".into(), limit: 10_000, ..RangeRequest::default() };
    let start = Instant::now();
    let read = store.range(page).await.expect("reads work").kvs.len();
    println!("range of {read} keys with values: {:.1} ms", start.elapsed().as_secs_f64() * 1000.0);
    let start = Instant::now();
    drop(store);
    println!("close: {:.1} ms", start.elapsed().as_secs_f64() * 1000.0);
    println!("the watcher saw {} events", watched.await.expect("no panics"));
    let start = Instant::now();
    let store = store::open(&dir, Options::default()).expect("the store opens again");
    println!("open: {:.1} ms", start.elapsed().as_secs_f64() * 1000.0);
    let start = Instant::now();
    let report = store.check().expect("the store is sound");
    println!(
        "check of {} versions, {:.0} MiB: {:.1} ms",
        report.versions,
        report.value_bytes as f64 / f64::from(1 << 20),
        start.elapsed().as_secs_f64() * 1000.0
    );
    drop(store);
    std::fs::remove_dir_all(&dir).expect("the directory can be removed");
}
