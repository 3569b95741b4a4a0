//! Durable writes per second of the store alone, by 1, 10 and 100 clients: the more wait, the more go into a group that
//! is synced at once. Beside it the disk's own sync, which is the measure of all of them, and etcd, where it is installed.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use store::{Compare, Etcd, EtcdOptions, Op, Options, Store, Txn};
use tokio::task::JoinSet;

use crate::Settings;
use crate::etcd;
use crate::load::{Latencies, ms};
use crate::report::Report;

const VALUE_BYTES: usize = 1500;

pub async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("bench-").tempdir_in(&settings.dir)?;
    let sync = syncs(&dir.path().join("plain"), settings.pick(500, 100))?;
    let note = format!("p99 {:.2}; {VALUE_BYTES} B each", sync.at(0.99));
    report.add_noting("append and fdatasync, p50", sync.median(), "ms", note);

    let store = store::open(dir.path().join("store"), Options::default()).context("cannot open a store")?;
    let length = Duration::from_secs(settings.pick(4, 1));
    let next = Arc::new(AtomicU64::new(0));
    for clients in [1, 10, 100] {
        let (before, began) = (store.stats().commits, Instant::now());
        let latencies = writes(store.clone(), clients, length, &next).await?;
        let elapsed = began.elapsed().as_secs_f64();
        let groups = (store.stats().commits - before).max(1);
        let (l, group) = (&latencies, latencies.len() as f64 / groups as f64);
        let note = format!("{group:.1} a group; p50 {:.2}, p99 {:.2}, max {:.1} ms", l.median(), l.at(0.99), l.at(1.0));
        let by = if clients == 1 { "1 client".into() } else { format!("{clients} clients") };
        report.add_noting(format!("writes of {VALUE_BYTES} B, {by}"), l.len() as f64 / elapsed, "/s", note);
    }
    if std::process::Command::new("etcd").arg("--version").output().is_ok() {
        let servers = etcd::EtcdServers::start(1);
        let tls = Some(Arc::new(pki::tls::client(&servers.ca_pem, Some(&servers.client))?));
        let store = Etcd::new(EtcdOptions { servers: servers.urls(), tls, ..EtcdOptions::default() })?;
        let l = writes(store, 100, length, &next).await?;
        let note = format!("over TLS; p50 {:.2}, p99 {:.2}, max {:.1} ms", l.median(), l.at(0.99), l.at(1.0));
        let rate = l.len() as f64 / length.as_secs_f64();
        report.add_noting(format!("writes of {VALUE_BYTES} B to one etcd, 100 clients"), rate, "/s", note);
    }
    Ok(())
}

async fn writes(store: Arc<dyn Store>, clients: usize, length: Duration, next: &Arc<AtomicU64>) -> Result<Latencies> {
    let began = Instant::now();
    let mut tasks: JoinSet<Result<Vec<f64>>> = JoinSet::new();
    for _ in 0..clients {
        let (store, next) = (store.clone(), next.clone());
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            while began.elapsed() < length {
                let key = format!("/registry/pods/default/pod-{:08}", next.fetch_add(1, Ordering::Relaxed));
                let put = Op::put(key.clone(), Bytes::from(vec![b'x'; VALUE_BYTES]));
                let create = Txn { compares: vec![Compare::absent(key)], success: vec![put], failure: Vec::new() };
                let sent = Instant::now();
                store.txn(create).await?;
                latencies.push(ms(sent.elapsed()));
            }
            Ok(latencies)
        });
    }
    let mut all = Vec::new();
    while let Some(done) = tasks.join_next().await {
        all.extend(done??);
    }
    Ok(Latencies::new(all))
}

/// What one write costs on this disk without a store.
fn syncs(path: &Path, count: usize) -> Result<Latencies> {
    let mut file = File::create(path)?;
    let value = [b'x'; VALUE_BYTES];
    let mut times = Vec::new();
    for _ in 0..count {
        let began = Instant::now();
        file.write_all(&value)?;
        file.sync_data()?;
        times.push(ms(began.elapsed()));
    }
    Ok(Latencies::new(times))
}
