//! Protobuf's wire format: tags, varints, lengths.
//!
//! Invariant: reading stays inside of the bytes it was given and ends at the first thing that is wrong; writing goes from the
//! end to the front, so that a message's length is known when it is written.

use super::Error;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// The fields of a message, in their order; after an error there are none.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for (i, byte) in self.0.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f).checked_shl(7 * i as u32)?;
            if byte & 0x80 == 0 {
                self.0 = &self.0[i + 1..];
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u64, Wire<'a>)> {
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                Wire::Bytes(self.take(len)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        (tag >> 3 != 0).then_some((tag >> 3, wire))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Wire<'a>), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or_else(|| Error::Malformed("unexpected EOF or illegal tag".into())))
    }
}

pub fn utf8(bytes: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(bytes).map_err(|_| Error::Malformed("a string is not valid UTF-8".into()))
}

/// A message under way: bytes are put before those that are there.
pub struct Out {
    bytes: Vec<u8>,
    at: usize,
}

impl Out {
    pub fn with_capacity(len: usize) -> Out {
        Out { bytes: vec![0; len], at: len }
    }

    /// How much was written.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub fn finish(self) -> Vec<u8> {
        self.bytes[self.at..].to_vec()
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        if self.at < bytes.len() {
            let used = self.len();
            let mut larger = vec![0; (2 * self.bytes.len()).max(used + bytes.len()).max(256)];
            let at = larger.len() - used;
            larger[at..].copy_from_slice(&self.bytes[self.at..]);
            (self.bytes, self.at) = (larger, at);
        }
        self.at -= bytes.len();
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
    }

    pub fn varint(&mut self, mut n: u64) {
        let mut bytes = [0u8; 10];
        let mut len = 0;
        loop {
            bytes[len] = (n & 0x7f) as u8 | if n > 0x7f { 0x80 } else { 0 };
            n >>= 7;
            len += 1;
            if n == 0 {
                break;
            }
        }
        self.raw(&bytes[..len]);
    }

    fn tag(&mut self, number: u16, wire: u64) {
        self.varint(u64::from(number) << 3 | wire);
    }

    pub fn number(&mut self, number: u16, value: u64) {
        self.varint(value);
        self.tag(number, 0);
    }

    pub fn fixed64(&mut self, number: u16, value: u64) {
        self.raw(&value.to_le_bytes());
        self.tag(number, 1);
    }

    pub fn bytes(&mut self, number: u16, value: &[u8]) {
        let before = self.len();
        self.raw(value);
        self.close(number, before);
    }

    /// Makes a field of what was written since the length was `before`.
    pub fn close(&mut self, number: u16, before: usize) {
        self.varint((self.len() - before) as u64);
        self.tag(number, 2);
    }
}
