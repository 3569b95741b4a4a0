//! The housekeeper thread: after compactions it frees memory, empties segments that are mostly dead, writes checkpoints and removes what
//! no longer serves. Writes checkpoints; removes segments and old checkpoints. Invariant: a segment goes only when a durable checkpoint
//! lies behind it and does not point into it; work that fails is left for the next time.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};

use bytes::Bytes;

use crate::StoreError;
use crate::checkpoint::{self, checkpoint_name};
use crate::commit::Shared;
use crate::disk::Disk;
use crate::group::Moving;
use crate::index::{Found, ValueRef};
use crate::queue::Request;
use crate::segment::Segment;

/// Wakes the housekeeper.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    state: Mutex<BellState>,
    changed: Condvar,
    stopping: AtomicBool,
}

#[derive(Debug, Default)]
struct BellState {
    rung: bool,
    idle: bool,
}

impl Bell {
    pub(crate) fn ring(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).rung = true;
        self.changed.notify_all();
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.ring();
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// False when it is time to end.
    fn wait(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.idle = true;
        self.changed.notify_all();
        while !state.rung {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        *state = BellState::default();
        !self.stopping()
    }

    /// Waits until the housekeeper has nothing to do.
    #[cfg(test)]
    pub(crate) fn settle(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while (state.rung || !state.idle) && !self.stopping() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[derive(Debug)]
pub(crate) struct Housekeeper {
    pub(crate) shared: Arc<Shared>,
    /// None: a store in memory has only memory to free.
    pub(crate) disk: Option<Arc<dyn Disk>>,
    pub(crate) segment_bytes: u64,
    pub(crate) last: Arc<Mutex<LastCheckpoint>>,
}

/// Locked while files are being changed.
#[derive(Debug, Default)]
pub(crate) struct LastCheckpoint {
    pub(crate) number: Option<u64>,
    pub(crate) bytes: u64,
    /// `Shared::logged` when it was written.
    pub(crate) at_logged: u64,
}

/// Values carried to the end of the log in one group.
const MOVE_BYTES: usize = 1 << 20;
const KEYS_PER_HOLD: usize = 1024;
const GARBAGE_PER_HOLD: usize = 4096;
/// When closing, a shorter log than this is left to be read again.
const CLOSING_LOG_BYTES: u64 = 1 << 20;

impl Housekeeper {
    pub(crate) fn run(self) {
        while self.shared.bell.wait() {
            if let Err(error) = self.work() {
                tracing::warn!(%error, "store housekeeping will be tried again");
            }
        }
        if self.unsaved_bytes() >= CLOSING_LOG_BYTES
            && let Err(error) = self.checkpoint()
        {
            tracing::warn!(%error, "no checkpoint at closing; the next opening reads more log");
        }
    }

    fn unsaved_bytes(&self) -> u64 {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if self.disk.is_none() { 0 } else { self.shared.logged.load(Ordering::Relaxed) - last.at_logged }
    }

    fn work(&self) -> Result<(), StoreError> {
        while self.shared.write().drop_garbage(GARBAGE_PER_HOLD) {
            std::thread::yield_now();
        }
        if self.disk.is_none() {
            return Ok(());
        }
        let dead = self.mostly_dead();
        if !dead.is_empty() {
            self.empty(&dead)?;
        }
        let last_bytes = self.last.lock().unwrap_or_else(PoisonError::into_inner).bytes;
        if !dead.is_empty() || self.unsaved_bytes() >= self.segment_bytes.max(4 * last_bytes) {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Finished segments of which less than half is still needed.
    fn mostly_dead(&self) -> BTreeSet<u64> {
        let active = self.shared.read().position.segment;
        let dead = |s: &Arc<Segment>| {
            s.id() < active && s.live.load(Ordering::Acquire) * 2 < s.size.load(Ordering::Acquire) as i64
        };
        self.shared.segments.all().iter().filter(|s| dead(s)).map(|s| s.id()).collect()
    }

    /// Carries what is alive in these segments to the end of the log.
    fn empty(&self, dead: &BTreeSet<u64>) -> Result<(), StoreError> {
        let mut after: Option<Bytes> = None;
        let mut items: Vec<Moving> = Vec::new();
        let mut bytes = 0;
        loop {
            let (found, more) = self.living_in(dead, &mut after);
            for found in found {
                let value = found.load(false)?.value;
                bytes += value.len();
                items.push(Moving { found, value });
                if bytes >= MOVE_BYTES {
                    self.carry(std::mem::take(&mut items))?;
                    bytes = 0;
                }
            }
            if self.shared.bell.stopping() {
                return Err(StoreError::Closed);
            }
            if !more {
                break;
            }
        }
        if items.is_empty() { Ok(()) } else { self.carry(items) }
    }

    fn living_in(&self, dead: &BTreeSet<u64>, after: &mut Option<Bytes>) -> (Vec<Found>, bool) {
        let index = self.shared.read();
        let from = after.clone();
        let from = from.as_ref().map_or(Bound::Unbounded, |k| Bound::Excluded(k.as_ref()));
        let mut found = Vec::new();
        let mut n = 0;
        for (key, history) in index.keys.range::<[u8], _>((from, Bound::Unbounded)).take(KEYS_PER_HOLD) {
            for version in history.as_slice() {
                if matches!(&version.value, ValueRef::Disk(place) if dead.contains(&place.segment.id())) {
                    found.push(Found { key: key.clone(), version: version.clone() });
                }
            }
            *after = Some(key.clone());
            n += 1;
        }
        (found, n == KEYS_PER_HOLD)
    }

    fn carry(&self, items: Vec<Moving>) -> Result<(), StoreError> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.shared.queue.push(Request::Move { items, reply })?;
        answer.recv().map_err(|_| StoreError::Closed)?
    }

    fn checkpoint(&self) -> Result<(), StoreError> {
        let Some(disk) = &self.disk else { return Ok(()) };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let logged = self.shared.logged.load(Ordering::Relaxed);
        let number = last.number.map_or(1, |n| n + 1);
        let written = checkpoint::write(&**disk, number, &self.shared.index)?;
        let old = last.number.replace(number);
        last.bytes = written.bytes;
        last.at_logged = logged;
        // From here on failures only leave files behind, which the next opening removes.
        let io = |name: String, e: std::io::Error| StoreError::io(format!("removing {name}"), &disk.place(), &e);
        if let Some(name) = old.map(checkpoint_name) {
            disk.remove(&name).map_err(|e| io(name, e))?;
        }
        for segment in self.shared.segments.all() {
            if segment.id() < written.position.segment && !written.segments.contains(&segment.id()) {
                disk.remove(&segment.name()).map_err(|e| io(segment.name(), e))?;
                self.shared.segments.remove(segment.id());
            }
        }
        Ok(())
    }
}
