//! Opening: from the files of a directory to the index. Reads the newest checkpoint and the log behind it; cuts off the torn end that a crash
//! may leave and removes files that nothing needs. Invariant: whatever was acknowledged is found again, or opening fails and says where
//! the damage is; only an end that was never synced is dropped.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::StoreError;
use crate::checkpoint::{self, Loaded, parse_checkpoint_name};
use crate::disk::{Disk, is_lock};
use crate::format::{
    FRAME_HEADER_BYTES, FrameHeader, PutRecord, Record, SEGMENT_HEADER_BYTES, SegmentHeader, find_frame, own_key,
    records,
};
use crate::index::{Index, LeaseKeys, Position, ValueRef, Version};
use crate::segment::{DiskValue, Log, Segment, Segments, parse_segment_name, segment_name};

#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) index: Index,
    pub(crate) segments: Arc<Segments>,
    /// The newest segment; in a directory that is only looked at, possibly with a torn end.
    pub(crate) active: Arc<Segment>,
    /// Number and length of the checkpoint that was read.
    pub(crate) checkpoint: Option<(u64, u64)>,
    /// Bytes of log that were read behind it.
    pub(crate) replayed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Repair and clean up.
    Open,
    /// Change nothing: for `check`.
    Look,
}

pub(crate) fn recover(disk: &dyn Disk, mode: Mode) -> Result<Recovered, StoreError> {
    let files = open_files(disk, mode)?;
    let loaded = match files.checkpoint {
        Some(number) => checkpoint::load(disk, number, &files.segments)?,
        None => Loaded::default(),
    };
    let mut index = loaded.index;
    if files.checkpoint.is_none() {
        index.position = Position { segment: 1, offset: SEGMENT_HEADER_BYTES as u64 };
    }
    let start = index.position;
    drop_unborn(disk, &files, start, mode)?;
    let segments = files.segments;
    let mut log: Vec<Arc<Segment>> = segments.all().into_iter().filter(|s| s.id() >= start.segment).collect();
    if log.is_empty() && files.checkpoint.is_none() && mode == Mode::Open {
        let segment = Log::create(disk, start.segment)?;
        segments.insert(segment.clone());
        log.push(segment);
    }
    for (i, expected) in (start.segment..).take(log.len().max(1)).enumerate() {
        if log.get(i).is_none_or(|s| s.id() != expected) {
            return Err(StoreError::corrupt(format!("{} is missing", segment_name(expected))));
        }
    }
    let mut replayed = 0;
    let last = log.len() - 1;
    for (i, segment) in log.iter().enumerate() {
        replayed += replay(disk, &mut index, segment, i == last, mode)?;
    }
    index.finish_restore();
    if mode == Mode::Open {
        remove_needless(disk, &segments, start, &loaded.segments)?;
    }
    let checkpoint = files.checkpoint.map(|number| (number, loaded.bytes));
    Ok(Recovered { index, segments, active: log.swap_remove(last), checkpoint, replayed })
}

struct Files {
    segments: Arc<Segments>,
    /// Segments whose header is not right: id, length, what is wrong.
    bad: Vec<(u64, u64, String)>,
    /// Number of the newest checkpoint.
    checkpoint: Option<u64>,
}

/// Opens every segment; finds the newest checkpoint. Older checkpoints and half written ones are removed.
fn open_files(disk: &dyn Disk, mode: Mode) -> Result<Files, StoreError> {
    let place = disk.place();
    let names = disk.list().map_err(|e| StoreError::io(format!("listing {place}"), &place, &e))?;
    let checkpoint = names.iter().filter_map(|n| parse_checkpoint_name(n)).max();
    let segments = Arc::new(Segments::default());
    let mut bad = Vec::new();
    for name in &names {
        if let Some(id) = parse_segment_name(name) {
            match open_segment(disk, id)? {
                Ok(segment) => segments.insert(segment),
                Err((size, why)) => bad.push((id, size, why)),
            }
            continue;
        }
        let number = parse_checkpoint_name(name);
        let needless = number.is_some_and(|n| Some(n) != checkpoint) || name.ends_with(".ckpt.tmp");
        if needless && mode == Mode::Open {
            disk.remove(name).map_err(|e| StoreError::io(format!("removing {name}"), &place, &e))?;
        } else if number.is_none() && !needless && !is_lock(name) {
            tracing::warn!(%name, dir = %place, "a file in the store's directory is not the store's; it is left alone");
        }
    }
    Ok(Files { segments, bad, checkpoint })
}

/// Removes segments at the end of the log that hold nothing: they were being made, or were made and not used yet, when the process
/// ended. Any other segment without a proper header is damage.
fn drop_unborn(disk: &dyn Disk, files: &Files, start: Position, mode: Mode) -> Result<(), StoreError> {
    let sizes = files.segments.all().into_iter().map(|s| (s.id(), s.size.load(Ordering::Acquire), true));
    let mut all: Vec<(u64, u64, bool)> =
        sizes.chain(files.bad.iter().map(|(id, size, _)| (*id, *size, false))).collect();
    all.sort_unstable();
    while let Some(&(id, size, whole)) = all.last() {
        let never_started = files.checkpoint.is_none() && id == start.segment && !whole;
        if size > SEGMENT_HEADER_BYTES as u64 || !(id > start.segment || never_started) {
            break;
        }
        let name = segment_name(id);
        if mode == Mode::Open {
            disk.remove(&name).map_err(|e| StoreError::io(format!("removing {name}"), &disk.place(), &e))?;
        }
        files.segments.remove(id);
        all.pop();
    }
    match files.bad.iter().find(|(id, ..)| all.iter().any(|(other, ..)| id == other)) {
        Some((id, _, why)) => Err(StoreError::corrupt(format!("{}: {why}", segment_name(*id)))),
        None => Ok(()),
    }
}

/// Removes segments before the start of the log that the checkpoint does not point into: the crash came between its completion and
/// their removal.
fn remove_needless(
    disk: &dyn Disk,
    segments: &Segments,
    start: Position,
    used: &BTreeSet<u64>,
) -> Result<(), StoreError> {
    for segment in segments.all() {
        if segment.id() < start.segment && !used.contains(&segment.id()) {
            let name = segment.name();
            disk.remove(&name).map_err(|e| StoreError::io(format!("removing {name}"), &disk.place(), &e))?;
            segments.remove(segment.id());
        }
    }
    Ok(())
}

/// The inner error, length and reason, when its header is not right.
type Opened = Result<Arc<Segment>, (u64, String)>;

fn open_segment(disk: &dyn Disk, id: u64) -> Result<Opened, StoreError> {
    let name = segment_name(id);
    let io = |e: std::io::Error| StoreError::io(format!("reading {name}"), &disk.place(), &e);
    let file = disk.open(&name).map_err(io)?;
    let size = file.size().map_err(io)?;
    if size < SEGMENT_HEADER_BYTES as u64 {
        return Ok(Err((size, "it is cut short".into())));
    }
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    file.read_at(&mut bytes, 0).map_err(io)?;
    Ok(match SegmentHeader::decode(&bytes) {
        Ok(header) if header.id != id => Err((size, format!("it is segment {:016x}", header.id))),
        Ok(header) => Ok(Arc::new(Segment::new(header, file, size))),
        Err(why) => Err((size, why)),
    })
}

/// Takes a segment's frames into the index, from the index's position on. Returns the bytes read.
fn replay(
    disk: &dyn Disk,
    index: &mut Index,
    segment: &Arc<Segment>,
    last: bool,
    mode: Mode,
) -> Result<u64, StoreError> {
    let name = segment.name();
    let io = |e: std::io::Error| StoreError::io(format!("reading {name}"), &disk.place(), &e);
    let size = segment.size.load(Ordering::Acquire);
    let start =
        if segment.id() == index.position.segment { index.position.offset } else { SEGMENT_HEADER_BYTES as u64 };
    if start > size {
        return Err(StoreError::corrupt(format!("{name} ends at byte {size}, before the checkpoint's {start}")));
    }
    let mut at = start;
    let mut payload = Vec::new();
    while at < size {
        if !read_frame(segment, at, size, &mut payload).map_err(io)? {
            if !last {
                return Err(StoreError::corrupt(format!("{name}: the frame at byte {at} fails its checksum")));
            }
            cut_torn_end(disk, segment, at, size, mode)?;
            break;
        }
        for record in records(&payload) {
            let record = record.map_err(|e| StoreError::corrupt(format!("{name}, frame at byte {at}: {e}")))?;
            restore(index, segment, at, record)
                .map_err(|e| StoreError::corrupt(format!("{name}, frame at byte {at}: {e}")))?;
        }
        at += (FRAME_HEADER_BYTES + payload.len()) as u64;
    }
    index.position = Position { segment: segment.id(), offset: at };
    Ok(at - start)
}

/// False when there is no whole frame.
fn read_frame(segment: &Segment, at: u64, size: u64, payload: &mut Vec<u8>) -> std::io::Result<bool> {
    let mut bytes = [0; FRAME_HEADER_BYTES];
    if at + bytes.len() as u64 > size {
        return Ok(false);
    }
    segment.file.read_at(&mut bytes, at)?;
    let Some(header) = FrameHeader::decode(&bytes, at) else { return Ok(false) };
    let begin = at + bytes.len() as u64;
    if begin + header.payload_bytes as u64 > size {
        return Ok(false);
    }
    payload.resize(header.payload_bytes, 0);
    segment.file.read_at(payload, begin)?;
    Ok(header.matches(segment.header.salt, &bytes, payload))
}

/// The end of the log is not a whole frame. A frame is only written when the one before is synced, so a whole one further on means
/// that this one was whole once: that is damage, not a crash.
fn cut_torn_end(disk: &dyn Disk, segment: &Segment, at: u64, size: u64, mode: Mode) -> Result<(), StoreError> {
    let name = segment.name();
    let io = |e: std::io::Error| StoreError::io(format!("repairing {name}"), &disk.place(), &e);
    let mut rest = vec![0; (size - at) as usize];
    segment.file.read_at(&mut rest, at).map_err(io)?;
    if let Some(later) = find_frame(&rest, at, segment.header.salt) {
        let what = format!("{name}: the frame at byte {at} is damaged, a later one at byte {later} is whole");
        return Err(StoreError::corrupt(what));
    }
    if mode == Mode::Open {
        tracing::info!(%name, at, bytes = size - at, "cut off a write that was never finished");
        segment.file.set_len(at).and_then(|()| segment.file.sync()).map_err(io)?;
    }
    segment.size.store(at, Ordering::Release);
    Ok(())
}

fn restore(index: &mut Index, segment: &Arc<Segment>, frame_at: u64, record: Record<'_>) -> Result<(), String> {
    match record {
        Record::Put(put) => {
            step_revision(index, put.mod_revision)?;
            let value = place(segment, frame_at, &put);
            let version = Version {
                mod_revision: put.mod_revision,
                create_revision: put.create_revision,
                version: put.version,
                lease: put.lease,
                value: ValueRef::Disk(value),
            };
            index.restore(own_key(put.key), version);
        }
        Record::Delete { mod_revision, key } => {
            step_revision(index, mod_revision)?;
            index.restore(own_key(key), Version::tombstone(mod_revision));
        }
        Record::Move(put) => {
            // False when the version was compacted away before the checkpoint reached its key.
            index.relocate(put.key, put.mod_revision, place(segment, frame_at, &put));
        }
        Record::LeaseGrant { id, ttl_s } => {
            index.leases.insert(id, LeaseKeys { ttl_s, ..LeaseKeys::default() });
        }
        Record::LeaseRevoke { id } => {
            index.leases.remove(&id);
        }
        Record::Compact { revision } => index.compacted = index.compacted.max(revision),
    }
    Ok(())
}

fn place(segment: &Arc<Segment>, frame_at: u64, put: &PutRecord<'_>) -> DiskValue {
    DiskValue {
        segment: segment.clone(),
        offset: (frame_at + (FRAME_HEADER_BYTES + put.value_at) as u64) as u32,
        len: put.value.len() as u32,
        crc: crc32fast::hash(put.value),
    }
}

/// Revisions come without a gap; several records may share one.
fn step_revision(index: &mut Index, revision: u64) -> Result<(), String> {
    if revision != index.revision && revision != index.revision + 1 {
        return Err(format!("revision {revision} follows {}", index.revision));
    }
    index.revision = revision;
    Ok(())
}
