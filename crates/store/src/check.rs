//! `check()`: does everything add up? Stops writes for a moment, verifies the index, reads every value, and reads the directory anew to
//! compare. Reads only. Invariant: changes nothing.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{PoisonError, mpsc};

use crate::StoreError;
use crate::embedded::Embedded;
use crate::index::{Index, ValueRef, record_bytes};
use crate::queue::Request;
use crate::recover::{Mode, recover};

/// What a check looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckReport {
    pub revision: u64,
    pub keys: usize,
    pub versions: usize,
    pub value_bytes: u64,
    pub segments: usize,
}

impl Embedded {
    /// Verifies the whole store; `Corrupt` says what does not add up. Blocks; writes wait meanwhile.
    pub fn check(&self) -> Result<CheckReport, StoreError> {
        // No files change while this is locked, no writes happen while the commit thread is held.
        let _files = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let _release_on_drop = self.hold_writes()?;
        while self.shared.write().drop_garbage(usize::MAX) {}
        let index = self.shared.read();
        let mut problems = index.problems();
        let report = self.read_all(&index, &mut problems);
        if let Some(disk) = &self.disk {
            let again = recover(&**disk, Mode::Look)?;
            compare(&index, &again.index, &mut problems);
        }
        if problems.is_empty() {
            return Ok(report);
        }
        let more = problems.len().saturating_sub(5);
        problems.truncate(5);
        Err(StoreError::corrupt(format!("{} (and {more} more)", problems.join("; "))))
    }

    /// Waits for the writes that are on their way; the next ones wait until the answer is dropped.
    pub(crate) fn hold_writes(&self) -> Result<mpsc::SyncSender<()>, StoreError> {
        let (held_sender, held) = mpsc::sync_channel(1);
        let (release_on_drop, release) = mpsc::sync_channel(0);
        // On a closed store nothing moves anyway.
        if self.shared.queue.push(Request::Hold { held: held_sender, release }).is_ok() {
            held.recv().map_err(|_| StoreError::Closed)?;
        }
        Ok(release_on_drop)
    }

    fn read_all(&self, index: &Index, problems: &mut Vec<String>) -> CheckReport {
        let mut report =
            CheckReport { revision: index.revision, keys: index.keys.len(), versions: 0, value_bytes: 0, segments: 0 };
        let mut live: BTreeMap<u64, i64> = BTreeMap::new();
        for (key, history) in &index.keys {
            for version in history.as_slice() {
                report.versions += 1;
                match &version.value {
                    ValueRef::Tombstone => {}
                    ValueRef::Memory(value) => report.value_bytes += value.len() as u64,
                    ValueRef::Disk(place) => {
                        *live.entry(place.segment.id()).or_default() += record_bytes(key, place.len);
                        match place.read() {
                            Ok(value) => report.value_bytes += value.len() as u64,
                            Err(e) => problems.push(e.to_string()),
                        }
                    }
                }
            }
        }
        for segment in self.shared.segments.all() {
            report.segments += 1;
            let counted = segment.live.load(Ordering::Acquire);
            let found = live.remove(&segment.id()).unwrap_or(0);
            if counted != found {
                problems.push(format!("{}: {found} bytes are alive, {counted} were counted", segment.name()));
            }
        }
        problems.extend(live.keys().map(|id| format!("segment {id:016x} is used but not known")));
        report
    }
}

/// What is in memory against what a new process would find.
fn compare(now: &Index, again: &Index, problems: &mut Vec<String>) {
    // Not the position: an empty segment at the end is not there to the next process.
    let head = |i: &Index| (i.revision, i.compacted);
    if head(now) != head(again) {
        problems.push(format!("memory is at {:?}, the directory at {:?}", head(now), head(again)));
    }
    if now.keys.len() != again.keys.len() {
        problems.push(format!("{} keys in memory, {} in the directory", now.keys.len(), again.keys.len()));
    }
    for (key, history) in &now.keys {
        let name = String::from_utf8_lossy(key);
        let other = again.keys.get(key).map_or(&[][..], |h| h.as_slice());
        let ours: Vec<_> = history.as_slice().iter().map(describe).collect();
        let theirs: Vec<_> = other.iter().map(describe).collect();
        if ours != theirs {
            problems.push(format!("{name}: {ours:?} in memory, {theirs:?} in the directory"));
        }
    }
    let leases = |i: &Index| i.leases.iter().map(|(id, l)| (*id, l.ttl_s)).collect::<BTreeMap<_, _>>();
    if leases(now) != leases(again) {
        problems.push("leases in memory and in the directory differ".into());
    }
}

type Description = ([u64; 3], i64, Option<(u64, u32, u32, u32)>);

fn describe(version: &crate::index::Version) -> Description {
    let place = match &version.value {
        ValueRef::Disk(p) => Some((p.segment.id(), p.offset, p.len, p.crc)),
        _ => None,
    };
    ([version.mod_revision, version.create_revision, version.version], version.lease, place)
}
