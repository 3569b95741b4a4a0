//! Checkpoints: the key index written out, so that opening reads the log only from there on and old segments can go.
//! Writes `NNNNNNNNNNNNNNNN.ckpt` by way of a temporary name. `docs/store-format.md` draws the bytes. Invariant: a checkpoint plus the log
//! from its position gives the index; versions changed while it was being written may be in it or not, the log says them again.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::{Buf, Bytes};

use crate::StoreError;
use crate::disk::{Disk, DiskFile};
use crate::format::{FORMAT_VERSION, own_key};
use crate::index::{History, Index, LeaseKeys, Position, ValueRef, Version};
use crate::segment::{DiskValue, Segments};

const MAGIC: &[u8; 8] = b"KNARRCKP";
/// Keys that are copied under one hold of the index's lock.
const KEYS_PER_HOLD: usize = 512;
const META: u8 = 1;
const KEYS: u8 = 2;
const END: u8 = 3;
const BLOCK_LIMIT_BYTES: usize = 256 << 20;

pub(crate) fn checkpoint_name(number: u64) -> String {
    format!("{number:016x}.ckpt")
}

pub(crate) fn temporary_name(number: u64) -> String {
    format!("{number:016x}.ckpt.tmp")
}

pub(crate) fn parse_checkpoint_name(name: &str) -> Option<u64> {
    let number = u64::from_str_radix(name.strip_suffix(".ckpt")?, 16).ok()?;
    (checkpoint_name(number) == name).then_some(number)
}

/// What a written checkpoint stands on.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) position: Position,
    pub(crate) bytes: u64,
    /// Segments that it points into.
    pub(crate) segments: BTreeSet<u64>,
}

struct BlockWriter<'a> {
    disk: &'a dyn Disk,
    file: Arc<dyn DiskFile>,
    name: String,
    at: u64,
}

impl BlockWriter<'_> {
    fn block(&mut self, payload: &[u8]) -> Result<(), StoreError> {
        let mut block = Vec::with_capacity(payload.len() + 8);
        block.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        block.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
        block.extend_from_slice(payload);
        self.raw(&block)
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file
            .write_at(bytes, self.at)
            .map_err(|e| StoreError::io(format!("writing {}", self.name), &self.disk.place(), &e))?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}

/// Writes checkpoint `number` and makes it durable under its name. Holds the index only for short reads.
pub(crate) fn write(disk: &dyn Disk, number: u64, index: &RwLock<Index>) -> Result<Written, StoreError> {
    let name = temporary_name(number);
    let result = write_named(disk, &name, number, index);
    if result.is_err() {
        let _ = disk.remove(&name);
    }
    result
}

fn write_named(disk: &dyn Disk, name: &str, number: u64, index: &RwLock<Index>) -> Result<Written, StoreError> {
    let io = |what: &str, e: &std::io::Error| StoreError::io(format!("{what} {name}"), &disk.place(), e);
    let file = disk.create(name).map_err(|e| io("making", &e))?;
    let mut out = BlockWriter { disk, file: file.clone(), name: name.to_string(), at: 0 };
    out.raw(MAGIC)?;
    out.raw(&FORMAT_VERSION.to_le_bytes())?;
    let (meta, position) = {
        let index = index.read().unwrap_or_else(PoisonError::into_inner);
        (encode_meta(&index), index.position)
    };
    out.block(&meta)?;

    let mut segments = BTreeSet::new();
    let mut keys = 0u64;
    let mut after: Option<Bytes> = None;
    loop {
        let mut payload = vec![KEYS];
        let more = {
            let index = index.read().unwrap_or_else(PoisonError::into_inner);
            let from = after.as_ref().map_or(Bound::Unbounded, |k| Bound::Excluded(k.as_ref()));
            let mut n = 0;
            for (key, history) in index.keys.range::<[u8], _>((from, Bound::Unbounded)).take(KEYS_PER_HOLD) {
                encode_key(&mut payload, key, history, &mut segments);
                after = Some(key.clone());
                n += 1;
            }
            keys += n;
            n == KEYS_PER_HOLD as u64
        };
        if payload.len() > 1 {
            out.block(&payload)?;
        }
        if !more {
            break;
        }
    }
    let mut end = vec![END];
    end.extend_from_slice(&keys.to_le_bytes());
    out.block(&end)?;
    let bytes = out.at;
    file.sync().map_err(|e| io("syncing", &e))?;
    disk.rename(name, &checkpoint_name(number)).map_err(|e| io("renaming", &e))?;
    disk.sync_dir().map_err(|e| io("syncing the directory of", &e))?;
    Ok(Written { position, bytes, segments })
}

fn encode_meta(index: &Index) -> Vec<u8> {
    let mut out = vec![META];
    let Index { revision, compacted, position, .. } = index;
    for number in [*revision, *compacted, position.segment, position.offset, index.leases.len() as u64] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for (id, lease) in &index.leases {
        out.extend_from_slice(&id.to_le_bytes());
        out.extend_from_slice(&lease.ttl_s.to_le_bytes());
    }
    out
}

fn encode_key(out: &mut Vec<u8>, key: &[u8], history: &History, segments: &mut BTreeSet<u64>) {
    let versions = history.as_slice();
    out.extend_from_slice(&(key.len() as u32).to_le_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(&(versions.len() as u32).to_le_bytes());
    for v in versions {
        out.extend_from_slice(&v.mod_revision.to_le_bytes());
        let ValueRef::Disk(place) = &v.value else {
            out.push(0);
            continue;
        };
        out.push(1);
        segments.insert(place.segment.id());
        for number in [v.create_revision, v.version, v.lease as u64, place.segment.id()] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for number in [place.offset, place.len, place.crc] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) index: Index,
    pub(crate) bytes: u64,
    /// Segments that it points into.
    pub(crate) segments: BTreeSet<u64>,
}

/// Reads checkpoint `number` into a new index; the segments that it points into must be open.
pub(crate) fn load(disk: &dyn Disk, number: u64, segments: &Segments) -> Result<Loaded, StoreError> {
    let name = checkpoint_name(number);
    let io = |e: &std::io::Error| StoreError::io(format!("reading {name}"), &disk.place(), e);
    let bad = |what: &str| StoreError::corrupt(format!("{name}: {what}"));
    let file = disk.open(&name).map_err(|e| io(&e))?;
    let size = file.size().map_err(|e| io(&e))?;
    let mut at = 12u64;
    let read = |offset: u64, len: usize| -> Result<Vec<u8>, StoreError> {
        if offset + len as u64 > size {
            return Err(bad("it is cut short"));
        }
        let mut bytes = vec![0; len];
        file.read_at(&mut bytes, offset).map_err(|e| io(&e))?;
        Ok(bytes)
    };
    let head = read(0, 12)?;
    if &head[..8] != MAGIC || head[8..] != FORMAT_VERSION.to_le_bytes() {
        return Err(bad("it does not begin as a checkpoint of this format"));
    }
    let mut loaded = Loaded { bytes: size, ..Loaded::default() };
    let mut keys = 0u64;
    let mut first = true;
    loop {
        let head = read(at, 8)?;
        let mut head = head.as_slice();
        let (len, crc) = (head.get_u32_le() as usize, head.get_u32_le());
        if len > BLOCK_LIMIT_BYTES {
            return Err(bad(&format!("the block at byte {at} has no sensible length")));
        }
        let payload = read(at + 8, len)?;
        if crc32fast::hash(&payload) != crc {
            return Err(bad(&format!("the block at byte {at} fails its checksum")));
        }
        let senseless = || bad(&format!("the block at byte {at} makes no sense"));
        let (&kind, mut rest) = payload.split_first().ok_or_else(senseless)?;
        match kind {
            META if first => decode_meta(&mut rest, &mut loaded.index).ok_or_else(senseless)?,
            KEYS if !first => {
                while !rest.is_empty() {
                    decode_key(&mut rest, &mut loaded, segments).ok_or_else(senseless)??;
                    keys += 1;
                }
            }
            END if !first => {
                let expected = rest.try_get_u64_le().map_err(|_| senseless())?;
                return if expected == keys { Ok(loaded) } else { Err(bad("keys are missing")) };
            }
            _ => return Err(senseless()),
        }
        first = false;
        at += 8 + len as u64;
    }
}

fn decode_meta(rest: &mut &[u8], index: &mut Index) -> Option<()> {
    index.revision = rest.try_get_u64_le().ok()?;
    index.compacted = rest.try_get_u64_le().ok()?;
    index.position.segment = rest.try_get_u64_le().ok()?;
    index.position.offset = rest.try_get_u64_le().ok()?;
    for _ in 0..rest.try_get_u64_le().ok()? {
        let id = rest.try_get_i64_le().ok()?;
        let ttl_s = rest.try_get_u64_le().ok()?;
        index.leases.insert(id, LeaseKeys { ttl_s, keys: BTreeSet::new() });
    }
    Some(())
}

/// `None`: not understood. An error: it points at a segment that is not there.
fn decode_key(rest: &mut &[u8], loaded: &mut Loaded, segments: &Segments) -> Option<Result<(), StoreError>> {
    let key_bytes = rest.try_get_u32_le().ok()? as usize;
    let key = own_key(rest.split_off(..key_bytes)?);
    for _ in 0..rest.try_get_u32_le().ok()? {
        let mod_revision = rest.try_get_u64_le().ok()?;
        if rest.try_get_u8().ok()? == 0 {
            loaded.index.restore(key.clone(), Version::tombstone(mod_revision));
            continue;
        }
        let create_revision = rest.try_get_u64_le().ok()?;
        let version = rest.try_get_u64_le().ok()?;
        let lease = rest.try_get_i64_le().ok()?;
        let id = rest.try_get_u64_le().ok()?;
        let (offset, len) = (rest.try_get_u32_le().ok()?, rest.try_get_u32_le().ok()?);
        let crc = rest.try_get_u32_le().ok()?;
        let Some(segment) = segments.get(id) else {
            let name = crate::segment::segment_name(id);
            return Some(Err(StoreError::corrupt(format!("{name} is missing"))));
        };
        let value = ValueRef::Disk(DiskValue { segment, offset, len, crc });
        loaded.segments.insert(id);
        loaded.index.restore(key.clone(), Version { mod_revision, create_revision, version, lease, value });
    }
    Some(Ok(()))
}
