//! The bytes of a log segment: header, frames, records. `docs/store-format.md` draws them; change both together.
//! Pure: encodes to and decodes from byte slices. Invariant: what does not check out is told apart from what is merely not there yet.

use bytes::{Buf, Bytes};

pub(crate) const SEGMENT_MAGIC: &[u8; 8] = b"KNARRLOG";
pub(crate) const SEGMENT_HEADER_BYTES: usize = 32;
pub(crate) const FORMAT_VERSION: u32 = 1;
pub(crate) const FRAME_MAGIC: [u8; 4] = *b"KNGF";
pub(crate) const FRAME_HEADER_BYTES: usize = 20;
/// Bytes of a put record besides key and value.
pub(crate) const PUT_FIXED_BYTES: usize = 1 + 4 * 8 + 4 + 4;
/// No frame is longer: a length above this is damage.
pub(crate) const FRAME_LIMIT_BYTES: usize = 256 << 20;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const LEASE_GRANT: u8 = 3;
const LEASE_REVOKE: u8 = 4;
const COMPACT: u8 = 5;
const MOVE: u8 = 6;

/// One change, as read back from a log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    Put(PutRecord<'a>),
    Delete {
        mod_revision: u64,
        key: &'a [u8],
    },
    LeaseGrant {
        id: i64,
        ttl_s: u64,
    },
    LeaseRevoke {
        id: i64,
    },
    Compact {
        revision: u64,
    },
    /// A put from an older segment, copied so that the segment can go.
    Move(PutRecord<'a>),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PutRecord<'a> {
    pub(crate) mod_revision: u64,
    pub(crate) create_revision: u64,
    pub(crate) version: u64,
    pub(crate) lease: i64,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    /// Where the value begins in the frame's payload.
    pub(crate) value_at: usize,
}

/// The header of a segment: what makes its frames its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) id: u64,
    /// Random; part of each frame's checksum, so that a frame of another file is never taken for one of this.
    pub(crate) salt: u32,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = [0; SEGMENT_HEADER_BYTES];
        out[..8].copy_from_slice(SEGMENT_MAGIC);
        out[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.salt.to_le_bytes());
        out[16..24].copy_from_slice(&self.id.to_le_bytes());
        let crc = crc32fast::hash(&out[..28]);
        out[28..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Result<Self, String> {
        if &bytes[..8] != SEGMENT_MAGIC {
            return Err("it does not begin as a segment".into());
        }
        if crc32fast::hash(&bytes[..28]) != u32_at(bytes, 28) {
            return Err("its header fails its checksum".into());
        }
        let version = u32_at(bytes, 8);
        if version != FORMAT_VERSION {
            return Err(format!("its format is {version}, this program reads {FORMAT_VERSION}"));
        }
        Ok(Self { id: u64_at(bytes, 16), salt: u32_at(bytes, 12) })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// A frame being written: everything one group commit changes.
#[derive(Debug)]
pub(crate) struct FrameBuilder {
    bytes: Vec<u8>,
}

impl FrameBuilder {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; FRAME_HEADER_BYTES] }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.len() == FRAME_HEADER_BYTES
    }

    /// Length with its header.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets the content; keeps the memory unless it is much.
    pub(crate) fn clear(&mut self) {
        self.bytes.truncate(FRAME_HEADER_BYTES);
        self.bytes.shrink_to(1 << 20);
    }

    /// Returns where the value begins, counted from the beginning of the frame.
    pub(crate) fn put(&mut self, put: &PutRecord<'_>) -> usize {
        self.put_as(PUT, put)
    }

    pub(crate) fn moved(&mut self, put: &PutRecord<'_>) -> usize {
        self.put_as(MOVE, put)
    }

    fn put_as(&mut self, kind: u8, put: &PutRecord<'_>) -> usize {
        self.bytes.push(kind);
        self.u64(put.mod_revision);
        self.u64(put.create_revision);
        self.u64(put.version);
        self.u64(put.lease as u64);
        self.u32(put.key.len());
        self.u32(put.value.len());
        self.bytes.extend_from_slice(put.key);
        let at = self.bytes.len();
        self.bytes.extend_from_slice(put.value);
        at
    }

    pub(crate) fn delete(&mut self, mod_revision: u64, key: &[u8]) {
        self.bytes.push(DELETE);
        self.u64(mod_revision);
        self.u32(key.len());
        self.bytes.extend_from_slice(key);
    }

    pub(crate) fn lease_grant(&mut self, id: i64, ttl_s: u64) {
        self.bytes.push(LEASE_GRANT);
        self.u64(id as u64);
        self.u64(ttl_s);
    }

    pub(crate) fn lease_revoke(&mut self, id: i64) {
        self.bytes.push(LEASE_REVOKE);
        self.u64(id as u64);
    }

    pub(crate) fn compact(&mut self, revision: u64) {
        self.bytes.push(COMPACT);
        self.u64(revision);
    }

    fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Lengths are checked against far smaller limits before they get here.
    fn u32(&mut self, value: usize) {
        self.bytes.extend_from_slice(&(value as u32).to_le_bytes());
    }

    /// The finished frame, for this place in this segment.
    pub(crate) fn finish(&mut self, salt: u32, offset: u64) -> &[u8] {
        let payload = (self.bytes.len() - FRAME_HEADER_BYTES) as u32;
        self.bytes[..4].copy_from_slice(&FRAME_MAGIC);
        self.bytes[4..8].copy_from_slice(&payload.to_le_bytes());
        self.bytes[8..16].copy_from_slice(&offset.to_le_bytes());
        let crc = frame_checksum(salt, &self.bytes[4..16], &self.bytes[FRAME_HEADER_BYTES..]);
        self.bytes[16..20].copy_from_slice(&crc.to_le_bytes());
        &self.bytes
    }
}

fn frame_checksum(salt: u32, header: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(header);
    hasher.update(payload);
    hasher.finalize()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) payload_bytes: usize,
    crc: u32,
}

impl FrameHeader {
    /// `None` when these bytes cannot begin a frame at `offset`.
    pub(crate) fn decode(bytes: &[u8; FRAME_HEADER_BYTES], offset: u64) -> Option<Self> {
        let payload_bytes = u32_at(bytes, 4) as usize;
        let fits = bytes[..4] == FRAME_MAGIC && u64_at(bytes, 8) == offset && payload_bytes <= FRAME_LIMIT_BYTES;
        fits.then(|| Self { payload_bytes, crc: u32_at(bytes, 16) })
    }

    pub(crate) fn matches(&self, salt: u32, bytes: &[u8; FRAME_HEADER_BYTES], payload: &[u8]) -> bool {
        payload.len() == self.payload_bytes && frame_checksum(salt, &bytes[4..16], payload) == self.crc
    }
}

/// The records of a payload whose checksum held. An error is a bug of the writer, or a newer writer.
pub(crate) fn records(payload: &[u8]) -> impl Iterator<Item = Result<Record<'_>, String>> {
    let mut rest = payload;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let before = payload.len() - rest.len();
        match record(&mut rest, payload.len()) {
            Some(record) => Some(Ok(record)),
            None => {
                rest = &[];
                Some(Err(format!("the record at byte {before} of its frame makes no sense")))
            }
        }
    })
}

fn record<'a>(rest: &mut &'a [u8], total: usize) -> Option<Record<'a>> {
    Some(match rest.try_get_u8().ok()? {
        PUT => Record::Put(put(rest, total)?),
        MOVE => Record::Move(put(rest, total)?),
        DELETE => {
            let mod_revision = rest.try_get_u64_le().ok()?;
            let key_bytes = rest.try_get_u32_le().ok()? as usize;
            Record::Delete { mod_revision, key: rest.split_off(..key_bytes)? }
        }
        LEASE_GRANT => Record::LeaseGrant { id: rest.try_get_i64_le().ok()?, ttl_s: rest.try_get_u64_le().ok()? },
        LEASE_REVOKE => Record::LeaseRevoke { id: rest.try_get_i64_le().ok()? },
        COMPACT => Record::Compact { revision: rest.try_get_u64_le().ok()? },
        _ => return None,
    })
}

fn put<'a>(rest: &mut &'a [u8], total: usize) -> Option<PutRecord<'a>> {
    let mod_revision = rest.try_get_u64_le().ok()?;
    let create_revision = rest.try_get_u64_le().ok()?;
    let version = rest.try_get_u64_le().ok()?;
    let lease = rest.try_get_i64_le().ok()?;
    let key_bytes = rest.try_get_u32_le().ok()? as usize;
    let value_bytes = rest.try_get_u32_le().ok()? as usize;
    let key = rest.split_off(..key_bytes)?;
    let value_at = total - rest.len();
    let value = rest.split_off(..value_bytes)?;
    Some(PutRecord { mod_revision, create_revision, version, lease, key, value, value_at })
}

/// Where a valid frame begins in `bytes`, which were read at `base` in the segment: none means that nothing was ever completed there.
pub(crate) fn find_frame(bytes: &[u8], base: u64, salt: u32) -> Option<u64> {
    let mut from = 0;
    while let Some(step) = bytes[from..].windows(4).position(|w| w == FRAME_MAGIC) {
        let at = from + step;
        let offset = base + at as u64;
        if let Some((header_bytes, rest)) = bytes[at..].split_first_chunk::<FRAME_HEADER_BYTES>()
            && let Some(header) = FrameHeader::decode(header_bytes, offset)
            && let Some(payload) = rest.get(..header.payload_bytes)
            && header.matches(salt, header_bytes, payload)
        {
            return Some(offset);
        }
        from = at + 1;
    }
    None
}

/// A key of its own, not a slice that would keep a whole buffer alive.
pub(crate) fn own_key(key: &[u8]) -> Bytes {
    Bytes::copy_from_slice(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> FrameBuilder {
        let mut frame = FrameBuilder::new();
        let put = PutRecord {
            mod_revision: 7,
            create_revision: 5,
            version: 2,
            lease: -3,
            key: b"/a",
            value: b"hello",
            value_at: 0,
        };
        assert_eq!(frame.put(&put), FRAME_HEADER_BYTES + PUT_FIXED_BYTES + 2);
        frame.delete(8, b"/b");
        frame.lease_grant(9, 30);
        frame.lease_revoke(9);
        frame.compact(6);
        frame.moved(&put);
        frame
    }

    #[test]
    fn frames_read_back() {
        let mut frame = sample();
        let bytes = frame.finish(42, 32).to_vec();
        let (header_bytes, payload) = bytes.split_first_chunk().unwrap();
        let header = FrameHeader::decode(header_bytes, 32).unwrap();
        assert!(header.matches(42, header_bytes, payload));
        assert!(!header.matches(43, header_bytes, payload));
        assert_eq!(FrameHeader::decode(header_bytes, 33), None);
        let read: Vec<_> = records(payload).map(Result::unwrap).collect();
        expect_test::expect_file!["tests/records.txt"].assert_debug_eq(&read);
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let mut frame = sample();
        let bytes = frame.finish(42, 32).to_vec();
        assert_eq!(find_frame(&bytes, 32, 42), Some(32));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(find_frame(&damaged, 32, 42), None, "bit {bit}");
        }
    }

    #[test]
    fn a_frame_is_found_after_rubbish_and_cut_ones_are_not() {
        let mut frame = sample();
        let bytes = frame.finish(1, 40).to_vec();
        let mut file = b"KNGFxxxx".to_vec();
        file.extend_from_slice(&bytes);
        assert_eq!(find_frame(&file, 32, 1), Some(40));
        assert_eq!(find_frame(&file[..file.len() - 1], 32, 1), None);
    }

    #[test]
    fn headers_read_back_and_damage_is_named() {
        let header = SegmentHeader { id: 3, salt: 9 };
        assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
        let mut damaged = header.encode();
        damaged[20] ^= 1;
        assert_eq!(SegmentHeader::decode(&damaged), Err("its header fails its checksum".into()));
        assert_eq!(SegmentHeader::decode(&[0; 32]), Err("it does not begin as a segment".into()));
    }

    #[test]
    fn rubbish_records_are_refused() {
        let cases: &[&[u8]] = &[&[99], &[PUT, 1], &[DELETE, 0, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0, 0, 1]];
        for payload in cases {
            assert!(records(payload).next().unwrap().is_err(), "{payload:?}");
        }
    }
}
