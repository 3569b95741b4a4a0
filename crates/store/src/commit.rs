//! The commit thread: takes what waits as one group, evaluates it, writes and syncs its frame, makes it visible, tells watchers, answers.
//! Also ends leases when their time is up. Invariant: nothing is visible or answered before it is synced; readers are kept out only while
//! the synced group enters the index.

use std::collections::{BTreeSet, HashMap};
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, mpsc};
use std::time::Duration;

use crate::StoreError;
use crate::clock::Clock;
use crate::format::FrameBuilder;
use crate::group::{Group, Limits, Outcome};
use crate::housekeeping::Bell;
use crate::index::{Index, Position};
use crate::queue::{Queue, Reply, Request};
use crate::request::Lease;
use crate::segment::{Log, Segments};
use crate::watch::Hub;

/// What the threads and the callers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) index: RwLock<Index>,
    pub(crate) queue: Queue,
    pub(crate) hub: Arc<Hub>,
    pub(crate) segments: Arc<Segments>,
    pub(crate) bell: Bell,
    /// Bytes of log behind the last checkpoint when the store was opened, plus those written since.
    pub(crate) logged: AtomicU64,
    pub(crate) commits: AtomicU64,
}

impl Shared {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(crate) struct Committer {
    pub(crate) shared: Arc<Shared>,
    /// None: nothing is written, values stay in memory.
    pub(crate) log: Option<Log>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) limits: Limits,
    pub(crate) deadlines: Deadlines,
    pub(crate) frame: FrameBuilder,
}

/// When each lease ends.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    by_id: HashMap<i64, Duration>,
    in_order: BTreeSet<(Duration, i64)>,
}

impl Deadlines {
    pub(crate) fn set(&mut self, id: i64, at: Duration) {
        self.remove(id);
        self.by_id.insert(id, at);
        self.in_order.insert((at, id));
    }

    fn remove(&mut self, id: i64) {
        if let Some(at) = self.by_id.remove(&id) {
            self.in_order.remove(&(at, id));
        }
    }

    fn next(&self) -> Option<Duration> {
        self.in_order.first().map(|(at, _)| *at)
    }

    fn due(&self, now: Duration) -> Vec<i64> {
        self.in_order.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id).collect()
    }
}

/// A lease that could not be ended for want of space is tried again after this.
const EXPIRY_RETRY: Duration = Duration::from_secs(1);
/// Leases ended in one group; the rest follow in the next.
const EXPIRIES_PER_GROUP: usize = 64;

/// An answer that waits for the sync.
enum Pending {
    Txn(Reply<Outcome>, Outcome),
    Done(Reply<()>),
    Granted(Reply<Lease>, Lease),
    Revoked(Reply<()>, i64),
    Expired(i64),
    Moved(mpsc::SyncSender<Result<(), StoreError>>),
}

impl Drop for Committer {
    /// Also when the thread panics: nobody may wait for an answer that won't come.
    fn drop(&mut self) {
        self.shared.queue.close();
        self.shared.hub.close();
    }
}

impl Committer {
    pub(crate) fn run(mut self) {
        loop {
            let wait = self.deadlines.next().map(|at| at.saturating_sub(self.clock.now()));
            let Some(requests) = self.shared.queue.take(wait) else { return };
            self.commit(requests);
        }
    }

    fn commit(&mut self, requests: Vec<Request>) {
        let shared = self.shared.clone();
        let mut pending = Vec::with_capacity(requests.len());
        let mut holds = Vec::new();
        let group = {
            let index = shared.read();
            let mut group = Group::new(&index, mem::replace(&mut self.frame, FrameBuilder::new()));
            for request in requests {
                self.evaluate(&index, &mut group, request, &mut pending, &mut holds);
            }
            for id in self.deadlines.due(self.clock.now()).into_iter().take(EXPIRIES_PER_GROUP) {
                match group.revoke(&index, id) {
                    Ok(()) => pending.push(Pending::Expired(id)),
                    Err(_) => self.deadlines.remove(id),
                }
            }
            group
        };
        let result = self.write(group);
        for answer in pending {
            self.answer(answer, result.clone());
        }
        for (held, release) in holds {
            // The other side reads, then drops its end, which is what ends the wait.
            if held.send(()).is_ok() {
                let _ = release.recv();
            }
        }
    }

    /// Refusals are answered at once: they promise nothing that a crash could break.
    fn evaluate(
        &mut self,
        index: &Index,
        group: &mut Group,
        request: Request,
        pending: &mut Vec<Pending>,
        holds: &mut Vec<(mpsc::SyncSender<()>, mpsc::Receiver<()>)>,
    ) {
        match request {
            Request::Txn { txn, reply, _permit } => match group.txn(index, &txn, self.limits) {
                Ok(outcome) => pending.push(Pending::Txn(reply, outcome)),
                Err(e) => drop(reply.send(Err(e))),
            },
            Request::Compact { revision, reply } => match group.compact(revision) {
                Ok(()) => pending.push(Pending::Done(reply)),
                Err(e) => drop(reply.send(Err(e))),
            },
            Request::Grant { id, ttl_s, reply } => {
                let id = if id == 0 { free_lease_id(index, group) } else { id };
                match group.grant(index, id, ttl_s) {
                    Ok(()) => pending.push(Pending::Granted(reply, Lease { id, ttl_s })),
                    Err(e) => drop(reply.send(Err(e))),
                }
            }
            Request::KeepAlive { id, reply } => {
                let answer = match group.lease_ttl_s(index, id) {
                    Some(ttl_s) => {
                        self.deadlines.set(id, self.clock.now().saturating_add(Duration::from_secs(ttl_s)));
                        Ok(Lease { id, ttl_s })
                    }
                    None => Err(StoreError::LeaseNotFound { id }),
                };
                drop(reply.send(answer));
            }
            Request::Revoke { id, reply } => match group.revoke(index, id) {
                Ok(()) => pending.push(Pending::Revoked(reply, id)),
                Err(e) => drop(reply.send(Err(e))),
            },
            Request::Move { items, reply } => {
                items.iter().for_each(|item| group.moving(item));
                pending.push(Pending::Moved(reply));
            }
            Request::Hold { held, release } => holds.push((held, release)),
        }
    }

    /// Writes, syncs, makes visible, publishes. After an error the group never was.
    fn write(&mut self, mut group: Group) -> Result<(), StoreError> {
        if group.frame.is_empty() {
            self.frame = group.frame;
            return Ok(());
        }
        let compacts = group.compacts();
        let appended = match &mut self.log {
            None => None,
            Some(log) => match log.append(&mut group.frame) {
                Ok(appended) => Some(appended),
                Err(e) => {
                    self.frame = group.frame;
                    self.frame.clear();
                    return Err(e);
                }
            },
        };
        let bytes = group.frame.len() as u64;
        let revision = group.revision;
        let (events, mut frame) = {
            let mut index = self.shared.write();
            if let Some(a) = &appended {
                index.position = Position { segment: a.segment.id(), offset: a.offset + bytes };
            }
            group.apply(&mut index, appended.as_ref().map(|a| (&a.segment, a.offset)))
        };
        frame.clear();
        self.frame = frame;
        self.shared.hub.publish(events, revision);
        self.shared.commits.fetch_add(1, Ordering::Relaxed);
        self.shared.logged.fetch_add(bytes, Ordering::Relaxed);
        if compacts || appended.is_some_and(|a| a.rolled) {
            self.shared.bell.ring();
        }
        Ok(())
    }

    fn answer(&mut self, pending: Pending, result: Result<(), StoreError>) {
        let now = self.clock.now();
        // Nobody may be waiting any more; that is their business.
        match pending {
            Pending::Txn(reply, outcome) => drop(reply.send(result.map(|()| outcome))),
            Pending::Done(reply) => drop(reply.send(result)),
            Pending::Granted(reply, lease) => {
                if result.is_ok() {
                    self.deadlines.set(lease.id, now.saturating_add(Duration::from_secs(lease.ttl_s)));
                }
                drop(reply.send(result.map(|()| lease)));
            }
            Pending::Revoked(reply, id) => {
                if result.is_ok() {
                    self.deadlines.remove(id);
                }
                drop(reply.send(result));
            }
            Pending::Expired(id) => match result {
                Ok(()) => self.deadlines.remove(id),
                Err(error) => {
                    tracing::warn!(id, %error, "lease could not be ended yet");
                    self.deadlines.set(id, now + EXPIRY_RETRY);
                }
            },
            Pending::Moved(reply) => drop(reply.send(result)),
        }
    }
}

fn free_lease_id(index: &Index, group: &Group) -> i64 {
    loop {
        let id = rand::random_range(1..=i64::MAX);
        if group.lease_ttl_s(index, id).is_none() {
            return id;
        }
    }
}
