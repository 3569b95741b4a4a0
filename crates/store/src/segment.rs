//! Log segments: append-only files that hold the values, and the writer that appends frames to the newest.
//! Writes `NNNNNNNNNNNNNNNN.log`. Invariant: everything below `durable` has been synced; a failed append is cut off again before anything
//! else is written, so that a bad frame with a good one behind it can only be damage.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::StoreError;
use crate::disk::{Disk, DiskFile};
use crate::format::{FrameBuilder, SEGMENT_HEADER_BYTES, SegmentHeader};

/// One file of the log.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Bytes written and synced.
    pub(crate) size: AtomicU64,
    /// Bytes of records that the index still points at.
    pub(crate) live: AtomicI64,
}

impl Segment {
    pub(crate) fn new(header: SegmentHeader, file: Arc<dyn DiskFile>, size: u64) -> Self {
        Self { header, file, size: AtomicU64::new(size), live: AtomicI64::new(0) }
    }

    pub(crate) fn id(&self) -> u64 {
        self.header.id
    }

    pub(crate) fn name(&self) -> String {
        segment_name(self.header.id)
    }
}

pub(crate) fn segment_name(id: u64) -> String {
    format!("{id:016x}.log")
}

pub(crate) fn parse_segment_name(name: &str) -> Option<u64> {
    let id = u64::from_str_radix(name.strip_suffix(".log")?, 16).ok()?;
    (segment_name(id) == name).then_some(id)
}

/// Where a value lies, with its checksum.
#[derive(Debug, Clone)]
pub(crate) struct DiskValue {
    pub(crate) segment: Arc<Segment>,
    pub(crate) offset: u32,
    pub(crate) len: u32,
    pub(crate) crc: u32,
}

impl DiskValue {
    pub(crate) fn read(&self) -> Result<Bytes, StoreError> {
        if self.len == 0 {
            return Ok(Bytes::new());
        }
        let mut value = vec![0; self.len as usize];
        let name = self.segment.name();
        self.segment
            .file
            .read_at(&mut value, u64::from(self.offset))
            .map_err(|e| StoreError::Io { what: format!("reading {name}"), cause: e.to_string() })?;
        if crc32fast::hash(&value) != self.crc {
            let what = format!("the value at byte {} of {name} fails its checksum", self.offset);
            return Err(StoreError::corrupt(what));
        }
        Ok(Bytes::from(value))
    }
}

/// All segments that exist, by id.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    by_id: Mutex<BTreeMap<u64, Arc<Segment>>>,
}

impl Segments {
    pub(crate) fn insert(&self, segment: Arc<Segment>) {
        self.lock().insert(segment.id(), segment);
    }

    pub(crate) fn remove(&self, id: u64) {
        self.lock().remove(&id);
    }

    pub(crate) fn get(&self, id: u64) -> Option<Arc<Segment>> {
        self.lock().get(&id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Segment>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<Segment>>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Appends to the newest segment; used by the commit thread only.
#[derive(Debug)]
pub(crate) struct Log {
    disk: Arc<dyn Disk>,
    segments: Arc<Segments>,
    pub(crate) active: Arc<Segment>,
    segment_bytes: u64,
    /// Something may lie behind the durable end.
    dirty: bool,
    /// Bytes appended since the store was made or opened, for deciding when a checkpoint is due.
    pub(crate) appended: u64,
}

/// Where an appended frame landed.
#[derive(Debug)]
pub(crate) struct Appended {
    pub(crate) segment: Arc<Segment>,
    pub(crate) offset: u64,
    pub(crate) rolled: bool,
}

impl Log {
    /// `active` must be whole: recovery has cut off what was not.
    pub(crate) fn new(disk: Arc<dyn Disk>, segments: Arc<Segments>, active: Arc<Segment>, segment_bytes: u64) -> Self {
        Self { disk, segments, active, segment_bytes, dirty: false, appended: 0 }
    }

    /// Makes segment `id`, empty and durable.
    pub(crate) fn create(disk: &dyn Disk, id: u64) -> Result<Arc<Segment>, StoreError> {
        let header = SegmentHeader { id, salt: rand::random() };
        let name = segment_name(id);
        let made = disk.create(&name).and_then(|file| {
            file.write_at(&header.encode(), 0)?;
            file.sync()?;
            disk.sync_dir()?;
            Ok(file)
        });
        let file = made.map_err(|e| StoreError::io(format!("making {name}"), &disk.place(), &e))?;
        Ok(Arc::new(Segment::new(header, file, SEGMENT_HEADER_BYTES as u64)))
    }

    /// Writes and syncs the frame. After an error nothing of it is left, or the log refuses to go on until nothing is.
    pub(crate) fn append(&mut self, frame: &mut FrameBuilder) -> Result<Appended, StoreError> {
        self.repair()?;
        let rolled = self.roll_if_full(frame.len() as u64)?;
        let offset = self.active.size.load(Ordering::Acquire);
        self.dirty = true;
        let bytes = frame.finish(self.active.header.salt, offset);
        let file = &self.active.file;
        if let Err(e) = file.write_at(bytes, offset).and_then(|()| file.sync()) {
            let error = StoreError::io(format!("writing {}", self.active.name()), &self.disk.place(), &e);
            tracing::warn!(%error, "store write failed and is being undone");
            // If this fails as well the next append tries again.
            let _ = self.repair();
            return Err(error);
        }
        self.dirty = false;
        self.appended += frame.len() as u64;
        self.active.size.store(offset + frame.len() as u64, Ordering::Release);
        Ok(Appended { segment: self.active.clone(), offset, rolled })
    }

    /// Cuts off what a failed append left.
    fn repair(&mut self) -> Result<(), StoreError> {
        if !self.dirty {
            return Ok(());
        }
        let file = &self.active.file;
        let size = self.active.size.load(Ordering::Acquire);
        file.set_len(size)
            .and_then(|()| file.sync())
            .map_err(|e| StoreError::io(format!("repairing {}", self.active.name()), &self.disk.place(), &e))?;
        self.dirty = false;
        Ok(())
    }

    fn roll_if_full(&mut self, more: u64) -> Result<bool, StoreError> {
        let size = self.active.size.load(Ordering::Acquire);
        if size == SEGMENT_HEADER_BYTES as u64 || size + more <= self.segment_bytes {
            return Ok(false);
        }
        let next = Self::create(&*self.disk, self.active.id() + 1)?;
        self.segments.insert(next.clone());
        self.active = next;
        Ok(true)
    }
}
