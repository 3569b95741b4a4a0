//! The store against the model: random calls from a printed seed, with faults of the disk, crashes and reopenings between them.
//! `KNARR_STORE_SEED` repeats one run, `KNARR_STORE_RUNS` sets how many there are.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::model::Model;
use super::run;
use crate::clock::Clock;
use crate::disk::sim::{Fault, Loss, SimDisk};
use crate::embedded::open_on;
use crate::request::KeyRange;
use crate::{
    Compare, Embedded, ManualClock, Op, Options, RangeRequest, Relation, Store, StoreError, Target, Txn, Watch,
    WatchEvent, WatchRequest, memory_with,
};

struct Watching {
    watch: Watch,
    request: WatchRequest,
    got: Vec<WatchEvent>,
}

struct Run {
    rng: StdRng,
    disk: Option<SimDisk>,
    clock: Arc<ManualClock>,
    store: Arc<dyn Store>,
    /// The same, unless it is etcd: then time passes by itself, and nothing happens at once.
    embedded: Option<Arc<Embedded>>,
    model: Model,
    /// What the model would be if a write that failed happened after all.
    maybes: Vec<Model>,
    watches: Vec<Watching>,
    faults: bool,
}

fn options(clock: &Arc<ManualClock>) -> Options {
    Options { segment_bytes: 3000, txn_bytes: 2000, clock: clock.clone(), ..Options::default() }
}

/// Whether an answer says what would have been said without faults.
fn refused(e: &StoreError) -> bool {
    !matches!(e, StoreError::Io { .. } | StoreError::NoSpace { .. } | StoreError::Closed)
}

impl Run {
    fn new(seed: u64, disk: Option<SimDisk>, faults: bool) -> Self {
        let clock = Arc::new(ManualClock::default());
        let store = match &disk {
            Some(disk) => open_on(Arc::new(disk.clone()), None, options(&clock)).unwrap(),
            None => memory_with(options(&clock)),
        };
        Self::over(seed, store.clone(), Some(store), disk, clock, faults)
    }

    fn over(
        seed: u64,
        store: Arc<dyn Store>,
        embedded: Option<Arc<Embedded>>,
        disk: Option<SimDisk>,
        clock: Arc<ManualClock>,
        faults: bool,
    ) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            disk,
            clock,
            store,
            embedded,
            model: Model::new(),
            maybes: Vec::new(),
            watches: Vec::new(),
            faults,
        }
    }

    fn key(&mut self) -> Bytes {
        Bytes::from(format!("/k/{:02}", self.rng.random_range(0..24)))
    }

    fn key_range(&mut self) -> (Bytes, Bytes) {
        match self.rng.random_range(0..4) {
            0 => (self.key(), Bytes::new()),
            1 => (self.key(), Bytes::from_static(b"\0")),
            2 => (Bytes::from_static(b"/k/"), Bytes::from_static(b"/k0")),
            _ => (self.key(), self.key()),
        }
    }

    fn value(&mut self) -> Bytes {
        let len = self.rng.random_range(0..250);
        Bytes::from((0..len).map(|_| self.rng.random()).collect::<Vec<u8>>())
    }

    fn lease(&mut self) -> i64 {
        if self.rng.random_bool(0.7) { 0 } else { self.rng.random_range(1..5) }
    }

    fn op(&mut self) -> Op {
        match self.rng.random_range(0..10) {
            0..6 => Op::Put { key: self.key(), value: self.value(), lease: self.lease() },
            6..8 => Op::Delete { key: self.key() },
            8 => Op::Get { key: self.key() },
            _ => {
                let (start, end) = (self.key(), self.key());
                Op::DeleteRange { start, end }
            }
        }
    }

    fn compare(&mut self) -> Compare {
        let key = self.key();
        let kv = self.model.now().get(&key).cloned().unwrap_or_default();
        let off = u64::from(self.rng.random_bool(0.2));
        let target = match self.rng.random_range(0..6) {
            0 => Target::ModRevision(kv.mod_revision + off),
            1 => Target::CreateRevision(kv.create_revision + off),
            2 => Target::Version(kv.version + off),
            3 => Target::Lease(kv.lease),
            4 => Target::Value(kv.value),
            _ => Target::Exists(self.rng.random()),
        };
        let relation = match self.rng.random_range(0..8) {
            0 => Relation::NotEqual,
            1 => Relation::Greater,
            2 => Relation::Less,
            _ => Relation::Equal,
        };
        Compare { key, target, relation }
    }

    fn random_txn(&mut self) -> Txn {
        let some = |run: &mut Self| (0..run.rng.random_range(1..4)).map(|_| run.op()).collect();
        let compares = (0..self.rng.random_range(0..3)).map(|_| self.compare()).collect();
        Txn { compares, success: some(self), failure: some(self) }
    }

    /// Settles a call: `expected` is what the model `after` says. Refusals must agree; failures may or may not have happened.
    fn settle<T: PartialEq + std::fmt::Debug>(
        &mut self,
        after: Model,
        expected: Result<T, StoreError>,
        got: Result<T, StoreError>,
    ) {
        match (expected, got) {
            (Ok(expected), Ok(got)) => {
                assert_eq!(got, expected);
                self.model = after;
                self.maybes.clear();
            }
            // The wording is not the model's business.
            (Err(StoreError::Invalid { .. }), Err(StoreError::Invalid { .. })) => {}
            // etcd does not say which one.
            (Err(StoreError::LeaseNotFound { .. }), Err(StoreError::LeaseNotFound { .. }))
                if self.embedded.is_none() => {}
            (Err(expected), Err(got)) if refused(&got) => assert_eq!(got, expected),
            (_, Err(got)) => {
                assert!(self.faults && !refused(&got), "failed without reason: {got}");
                self.maybes.push(after);
            }
            (Err(expected), Ok(got)) => panic!("{got:?} instead of {expected}"),
        }
    }

    fn step(&mut self) {
        let store = self.store.clone();
        let mut after = self.model.clone();
        match self.rng.random_range(0..100) {
            0..45 => {
                let op = self.op();
                self.txn(Txn { success: vec![op], ..Txn::default() });
            }
            45..62 => {
                let txn = self.random_txn();
                self.txn(txn);
            }
            62..74 => self.read(),
            74..79 => self.start_watch(),
            79..83 => self.drain_watches(),
            83..87 => {
                let mut revision =
                    self.rng.random_range(self.model.compacted.saturating_sub(1)..=self.model.revision + 1);
                if self.embedded.is_none() {
                    self.drain_watches();
                    revision = revision.max(2);
                }
                let expected = after.compact(revision);
                let got = run(store.compact(revision));
                self.settle(after, expected, got);
            }
            87..91 => {
                let (id, ttl_s) = (self.rng.random_range(1..5), self.rng.random_range(1..40));
                let ttl_s = if self.embedded.is_some() { ttl_s } else { ttl_s + 1000 };
                let at = self.clock.now() + Duration::from_secs(ttl_s);
                let expected = match after.leases.contains_key(&id) {
                    true => Err(StoreError::LeaseExists { id }),
                    false => {
                        after.leases.insert(id, (ttl_s, at));
                        Ok(())
                    }
                };
                let got = run(store.lease_grant(id, ttl_s)).map(|lease| assert_eq!(lease.ttl_s, ttl_s));
                self.settle(after, expected, got);
            }
            91..93 => {
                let id = self.rng.random_range(1..5);
                let now = self.clock.now();
                let expected = match after.leases.get_mut(&id) {
                    Some((ttl_s, at)) => {
                        *at = now + Duration::from_secs(*ttl_s);
                        Ok(())
                    }
                    None => Err(StoreError::LeaseNotFound { id }),
                };
                let got = run(store.lease_keep_alive(id)).map(drop);
                // Nothing is written: it works on a failing disk as well.
                if got.is_ok() {
                    self.model.leases = after.leases.clone();
                    for maybe in &mut self.maybes {
                        if let (Some(ours), Some(new)) = (maybe.leases.get_mut(&id), after.leases.get(&id)) {
                            *ours = *new;
                        }
                    }
                }
                assert_eq!(got, expected);
            }
            93..95 => {
                let id = self.rng.random_range(1..5);
                let expected = after.revoke(id);
                let got = run(store.lease_revoke(id));
                self.settle(after, expected, got);
            }
            95..98 => self.let_time_pass(),
            _ => self.reopen(Loss::Process),
        }
        if let Some(store) = &self.embedded {
            store.shared.bell.settle();
        }
    }

    fn txn(&mut self, txn: Txn) {
        if self.embedded.is_none() && [&txn.success, &txn.failure].iter().any(|ops| self.model.is_invalid(ops)) {
            // etcd looks at what would not be done as well, and lets a key be deleted twice.
            return;
        }
        let mut after = self.model.clone();
        let expected = after.txn(&txn);
        let got = run(self.store.clone().txn(txn));
        self.settle(after, expected, got);
    }

    fn read(&mut self) {
        let (start, end) = self.key_range();
        let revision = match self.rng.random_range(0..3) {
            0 => 0,
            _ => self.rng.random_range(0..=self.model.revision + 1),
        };
        let request = RangeRequest {
            start,
            end,
            revision,
            limit: self.rng.random_range(0..6),
            keys_only: self.rng.random_bool(0.1),
            count_only: self.rng.random_bool(0.1),
        };
        assert_eq!(run(self.store.range(request.clone())), self.model.range(&request), "{request:?}");
    }

    fn start_watch(&mut self) {
        let (start, end) = self.key_range();
        let from_revision = self.rng.random_range(0..=self.model.revision + 2);
        let request = WatchRequest { start, end, from_revision, prev_kv: self.rng.random() };
        match run(self.store.watch(request.clone())) {
            Ok(watch) => {
                assert!(from_revision == 0 || from_revision > self.model.compacted);
                let mut request = request;
                if request.from_revision == 0 {
                    request.from_revision = self.model.revision + 1;
                }
                self.watches.push(Watching { watch, request, got: Vec::new() });
            }
            Err(e) => {
                assert_eq!(e, StoreError::Compacted { at: self.model.compacted });
                assert!(from_revision <= self.model.compacted);
            }
        }
    }

    fn drain_watches(&mut self) {
        for w in &mut self.watches {
            if self.embedded.is_none() {
                w.watch.progress_requester().request();
                let mut reached = 0;
                while reached < self.model.revision {
                    let next = async { tokio::time::timeout(Duration::from_secs(60), w.watch.next()).await };
                    let batch = run(next).unwrap().unwrap().unwrap();
                    reached = batch.revision;
                    w.got.extend(batch.events);
                }
            }
            while let Some(batch) = w.watch.try_next() {
                w.got.extend(batch.unwrap().events);
            }
            let range = KeyRange::new(w.request.start.clone(), w.request.end.clone());
            let wanted = |e: &&WatchEvent| e.kv.mod_revision >= w.request.from_revision && range.contains(&e.kv.key);
            let mut expected: Vec<WatchEvent> = self.model.events.iter().filter(wanted).cloned().collect();
            if !w.request.prev_kv {
                expected.iter_mut().for_each(|e| e.prev = None);
            }
            // What an event followed may be gone by compaction when the watch began after it.
            assert_eq!(w.got.len(), expected.len(), "{:?}", w.request);
            for (got, mut expected) in w.got.iter().zip(expected) {
                if got.prev.is_none() {
                    expected.prev = None;
                }
                assert_eq!(*got, expected, "{:?}", w.request);
            }
        }
    }

    fn let_time_pass(&mut self) {
        let Some(store) = self.embedded.clone() else { return };
        // Held while the clock is turned: or else the commit thread, still on its way back to the queue, might see the new time
        // before the request that is to tell how the ending of leases went.
        let hold = store.hold_writes();
        self.clock.advance(Duration::from_secs(self.rng.random_range(1..15)));
        let now = self.clock.now();
        let mut after = self.model.clone();
        let due = after.due(now);
        for id in &due {
            after.revoke(*id).unwrap();
        }
        let nothing = Txn { success: vec![Op::get("/none")], ..Txn::default() };
        // The first is polled first, which is when it enters the queue.
        let (answer, ()) = run(async { tokio::join!(biased; self.store.txn(nothing), async { drop(hold) }) });
        match answer {
            Ok(_) => {
                self.model = after;
                self.maybes.clear();
            }
            Err(e) => {
                assert!(self.faults && !refused(&e), "{e}");
                self.maybes.push(after);
                for id in due {
                    let (_, at) = self.model.leases.get_mut(&id).unwrap();
                    *at = now + Duration::from_secs(1);
                }
            }
        }
    }

    fn reopen(&mut self, loss: Loss) {
        self.drain_watches();
        self.watches.clear();
        let (Some(disk), Some(store)) = (self.disk.clone(), self.embedded.clone()) else { return };
        store.close();
        disk.crash();
        let mut disk = disk.restart(&mut self.rng, loss);
        // Opening may be interrupted as well, and then once more.
        while self.faults && self.rng.random_bool(0.3) {
            disk.inject(self.rng.random_range(1..8), Fault::Crash);
            if let Ok(store) = open_on(Arc::new(disk.clone()), None, options(&self.clock)) {
                store.shared.bell.settle();
            }
            disk.crash();
            disk = disk.restart(&mut self.rng, loss);
        }
        let store = open_on(Arc::new(disk.clone()), None, options(&self.clock)).unwrap();
        self.disk = Some(disk);
        store.shared.bell.settle();
        (self.store, self.embedded) = (store.clone(), Some(store.clone()));
        self.adopt(&store);
    }

    /// Finds which of the possible pasts happened; it must be one of them, to the last byte.
    fn adopt(&mut self, store: &Embedded) {
        let now = self.clock.now();
        let (revision, compacted, leases) = {
            let index = store.shared.read();
            let mut leases: Vec<i64> = index.leases.keys().copied().collect();
            leases.sort();
            (index.revision, index.compacted, leases)
        };
        let fits = |m: &&Model| {
            m.revision == revision && m.compacted == compacted && m.leases.keys().copied().collect::<Vec<_>>() == leases
        };
        let candidates: Vec<Model> = std::iter::once(&self.model).chain(&self.maybes).filter(fits).cloned().collect();
        assert!(
            !candidates.is_empty(),
            "found revision {revision}, compacted {compacted}, leases {leases:?}; expected {:?} or one of {:?}",
            (self.model.revision, self.model.compacted, &self.model.leases),
            self.maybes.iter().map(|m| (m.revision, m.compacted, &m.leases)).collect::<Vec<_>>()
        );
        let all =
            RangeRequest { start: Bytes::from_static(b"\0"), end: Bytes::from_static(b"\0"), ..Default::default() };
        let found = run(self.store.range(all.clone()));
        let matching = candidates.into_iter().find(|m| m.range(&all) == found);
        self.model = matching.unwrap_or_else(|| panic!("revision {revision} is not what was written"));
        self.model.reopened(now);
        self.maybes.clear();
        for revision in self.model.compacted.max(1)..=self.model.revision {
            let request = RangeRequest { revision, ..all.clone() };
            assert_eq!(run(self.store.range(request.clone())), self.model.range(&request), "at {revision}");
        }
        store.check().unwrap();
    }

    /// Maybe arranges that something goes wrong soon.
    fn trouble(&mut self) {
        let Some(disk) = self.disk.clone() else { return };
        if !self.faults {
            return;
        }
        if disk.crashed() {
            let loss = if self.rng.random() { Loss::Power } else { Loss::Process };
            self.reopen(loss);
            return;
        }
        match self.rng.random_range(0..60) {
            0 => disk.inject(self.rng.random_range(1..20), Fault::Error),
            1 => disk.inject(self.rng.random_range(1..20), Fault::Short),
            2 => disk.inject(self.rng.random_range(1..20), Fault::Crash),
            3 => disk.set_space(Some(self.rng.random_range(0..2000))),
            4..8 => disk.set_space(None),
            _ => {}
        }
    }

    fn finish(mut self) {
        if let Some(disk) = &self.disk {
            disk.set_space(None);
        }
        if self.faults {
            self.reopen(Loss::Power);
        }
        self.drain_watches();
        self.watches.clear();
        if let Some(store) = &self.embedded {
            store.check().unwrap();
            assert_eq!(store.shared.hub.watchers(), 0);
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|v| v.parse().unwrap())
}

fn many(what: &str, default_runs: u64, steps: usize, mut start: impl FnMut(u64) -> Run) {
    let first = number("KNARR_STORE_SEED");
    let runs = number("KNARR_STORE_RUNS").unwrap_or(if first.is_some() { 1 } else { default_runs });
    let base = first.unwrap_or_else(|| rand::random_range(0..1 << 32));
    println!("{what}: {runs} runs from KNARR_STORE_SEED={base}");
    for i in 0..runs {
        let seed = base.wrapping_add(i);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut run = start(seed);
            for _ in 0..steps {
                run.step();
                run.trouble();
            }
            run.finish();
        }));
        if let Err(panic) = outcome {
            println!("{what}: failed with KNARR_STORE_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn memory_does_what_the_model_does() {
    many("memory", 20, 400, |seed| Run::new(seed, None, false));
}

#[test]
fn etcd_does_what_the_model_does() {
    let mut servers = Vec::new();
    many("etcd", 1, 1500, |seed| {
        servers = vec![super::etcd::Servers::start(1)];
        let store = super::etcd::connect(&servers[0], "/registry");
        Run::over(seed, store, None, None, Arc::default(), false)
    });
}

#[test]
fn disk_does_what_the_model_does() {
    many("disk", 30, 400, |seed| Run::new(seed, Some(SimDisk::default()), false));
}

#[test]
fn faults_and_crashes_lose_nothing() {
    many("faults", 120, 300, |seed| Run::new(seed, Some(SimDisk::default()), true));
}

/// One fixed piece of work, crashed at each of its steps in turn.
#[test]
fn a_crash_at_any_step_is_survived() {
    let work = |run: &mut Run| {
        for _ in 0..200 {
            if run.disk.as_ref().unwrap().crashed() {
                return;
            }
            run.step();
        }
    };
    let begin = || Run::new(11, Some(SimDisk::default()), true);
    let mut whole = begin();
    work(&mut whole);
    let steps = whole.disk.as_ref().unwrap().steps();
    assert!(steps > 100, "{steps}");
    for step in 1..=steps {
        for loss in [Loss::Process, Loss::Power] {
            let mut run = begin();
            run.disk.as_ref().unwrap().inject(step, Fault::Crash);
            work(&mut run);
            run.reopen(loss);
            run.txn(Txn { success: vec![Op::put("/k/after", "x")], ..Txn::default() });
            run.finish();
        }
    }
    println!("crashed at each of {steps} steps");
}
