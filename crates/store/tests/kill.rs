//! Kills a writing process with -9, again and again, and looks for every write that it had reported as acknowledged.
//! `KNARR_KILL_ROUNDS` sets how often (200). Uses a temporary directory and processes of this same test program.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use store::{Embedded, Op, Options, RangeRequest, Store, Txn};

const DIR: &str = "KNARR_KILL_DIR";
const THREADS: usize = 6;
const KEYS: u64 = 40;

fn options() -> Options {
    // Small, so that segments finish, checkpoints are written and segments removed all the time.
    Options { segment_bytes: 128 << 10, ..Options::default() }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// A value that shows whether it is whole.
fn value(thread: usize, number: u64) -> Bytes {
    let text = format!("{thread} {number};");
    let len = 100 + (number * 37 % 2000) as usize;
    Bytes::from(text.bytes().cycle().take(len).collect::<Vec<u8>>())
}

fn parse(value: &[u8]) -> (usize, u64) {
    let text = std::str::from_utf8(value).unwrap();
    let (thread, number) = text.split(';').next().unwrap().split_once(' ').unwrap();
    (thread.parse().unwrap(), number.parse().unwrap())
}

fn key(thread: usize, number: u64) -> Bytes {
    Bytes::from(format!("/t{thread}/k{:02}", number % KEYS))
}

/// Writes until it is killed. Each thread counts on: its key for a number is overwritten each time round, a second key in the same
/// transaction always holds the newest number, and now and then a key is deleted in the transaction.
fn write(store: &Embedded, thread: usize, first: u64, out: &Mutex<std::io::Stdout>) {
    for number in first.. {
        let newest = Bytes::from(format!("/t{thread}/newest"));
        let mut success =
            vec![Op::put(key(thread, number), value(thread, number)), Op::put(newest, value(thread, number))];
        if number.is_multiple_of(5) {
            success.push(Op::delete(key(thread, number + 1)));
        }
        let revision = run(store.txn(Txn { success, ..Txn::default() })).unwrap().revision;
        let line = format!("ack {thread} {number} {revision} .\n");
        out.lock().unwrap().write_all(line.as_bytes()).unwrap();
        if thread == 0 && number.is_multiple_of(64) {
            run(store.compact(revision)).unwrap();
        }
    }
}

/// Does something only in the processes that the test below starts.
#[test]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let store = store::open(dir, options()).unwrap();
    let out = Mutex::new(std::io::stdout());
    // A line of its own, after what the test harness has written.
    out.lock().unwrap().write_all(b"\nready\n").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let newest = run(store.get(Bytes::from(format!("/t{thread}/newest")))).unwrap();
            let first = newest.map_or(1, |kv| parse(&kv.value).1 + 1);
            let (store, out) = (&store, &out);
            scope.spawn(move || write(store, thread, first, out));
        }
    });
}

#[derive(Default)]
struct Acknowledged {
    newest: BTreeMap<usize, u64>,
    revision: u64,
    count: u64,
}

/// One life of a child. `opened`: it counts from when the store is open, else from the start of the process.
fn round(dir: &Path, acknowledged: &Arc<Mutex<Acknowledged>>, opened: bool, life: Duration) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (ready_sender, ready) = mpsc::channel();
    let shared = acknowledged.clone();
    let reader = std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["ready"] => ready_sender.send(()).unwrap(),
                ["ack", thread, number, revision, "."] => {
                    let mut seen = shared.lock().unwrap();
                    seen.newest.insert(thread.parse().unwrap(), number.parse().unwrap());
                    seen.revision = seen.revision.max(revision.parse().unwrap());
                    seen.count += 1;
                }
                _ => {}
            }
        }
    });
    if opened {
        ready.recv().expect("the child opens the store");
    }
    // Not waiting for anything: the moment is what is random.
    std::thread::park_timeout(life);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");
    reader.join().unwrap();
}

fn verify(dir: &Path, acknowledged: &mut Acknowledged) {
    let store = store::open(dir, options()).unwrap();
    assert!(run(store.revision()).unwrap() >= acknowledged.revision);
    for thread in 0..THREADS {
        let Some(&acked) = acknowledged.newest.get(&thread) else { continue };
        let newest = run(store.get(Bytes::from(format!("/t{thread}/newest")))).unwrap().unwrap();
        let (_, number) = parse(&newest.value);
        // One more may have been on its way.
        assert!(number == acked || number == acked + 1, "thread {thread}: {acked} acknowledged, {number} found");
        let range = RangeRequest {
            start: Bytes::from(format!("/t{thread}/k")),
            end: Bytes::from(format!("/t{thread}/l")),
            ..RangeRequest::default()
        };
        let found = run(store.range(range)).unwrap().kvs;
        let found: BTreeMap<Bytes, Bytes> = found.into_iter().map(|kv| (kv.key, kv.value)).collect();
        assert_eq!(found, expected(thread, number), "thread {thread} at {number}");
        // Whoever reads it may rely on it from now on.
        acknowledged.newest.insert(thread, number);
    }
    store.check().unwrap();
}

/// What a thread's keys are after it has written up to `newest`.
fn expected(thread: usize, newest: u64) -> BTreeMap<Bytes, Bytes> {
    let mut keys = BTreeMap::new();
    for number in newest.saturating_sub(2 * KEYS).max(1)..=newest {
        keys.insert(key(thread, number), value(thread, number));
        if number.is_multiple_of(5) {
            keys.remove(&key(thread, number + 1));
        }
    }
    keys
}

#[test]
fn kill_9_loses_no_acknowledged_write() {
    let rounds: u64 = std::env::var("KNARR_KILL_ROUNDS").map_or(200, |v| v.parse().unwrap());
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("store");
    let acknowledged = Arc::new(Mutex::new(Acknowledged::default()));
    let start = Instant::now();
    for i in 0..rounds {
        // Each fourth dies while it starts and opens.
        let opened = i % 4 != 3;
        let longest_us = if opened { 150_000 } else { 15_000 };
        round(&dir, &acknowledged, opened, Duration::from_micros(rand::random_range(0..longest_us)));
        verify(&dir, &mut acknowledged.lock().unwrap());
    }
    let seen = acknowledged.lock().unwrap();
    // Past the test harness, which would keep it to itself.
    let mut out = std::io::stderr();
    writeln!(
        out,
        "killed {rounds} times with -9 in {:.1} s; all {} acknowledged writes were found",
        start.elapsed().as_secs_f64(),
        seen.count
    )
    .unwrap();
}
