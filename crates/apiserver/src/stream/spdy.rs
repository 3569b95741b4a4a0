//! SPDY/3.1 frames, as far as remote commands use them: SYN_STREAM, SYN_REPLY, RST_STREAM, PING, GOAWAY, DATA.
//!
//! Pure: bytes in, frames out. Flow control is left out on purpose: the peers of this protocol (container runtimes and
//! kubectl, both on moby/spdystream) neither send nor heed window updates. Bounds: [`MAX_FRAME_BYTES`], and
//! [`MAX_HEADER_BYTES`] after decompression. Source: the SPDY Protocol draft 3.1; the dictionary is its section 2.6.10.1.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

static DICTIONARY: &[u8] = include_bytes!("spdy-dictionary.bin");

/// The largest frame taken; its length field allows 16 MiB.
pub const MAX_FRAME_BYTES: usize = 1 << 20;
const MAX_HEADER_BYTES: usize = 64 << 10;

const VERSION: u16 = 0x8003;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const FLAG_FIN: u8 = 1;

#[derive(Debug, thiserror::Error)]
#[error("not SPDY/3.1: {0}")]
pub struct SpdyError(String);

pub type Headers = Vec<(String, String)>;

/// What a peer said.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    SynStream {
        id: u32,
        fin: bool,
        headers: Headers,
    },
    SynReply {
        id: u32,
        fin: bool,
        headers: Headers,
    },
    Reset {
        id: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
    Data {
        id: u32,
        fin: bool,
        data: Bytes,
    },
    /// A control frame that changes nothing here.
    Other,
}

/// Writes frames. Header compression goes on from frame to frame, so one writer serves one connection.
pub struct Writer {
    compress: Compress,
}

impl Writer {
    pub fn new() -> Result<Self, SpdyError> {
        let mut compress = Compress::new(Compression::fast(), true);
        compress.set_dictionary(DICTIONARY).map_err(|e| SpdyError(e.to_string()))?;
        Ok(Writer { compress })
    }

    pub fn syn_stream(&mut self, id: u32, headers: &[(&str, &str)], out: &mut BytesMut) -> Result<(), SpdyError> {
        let block = self.header_block(headers)?;
        control(out, SYN_STREAM, 0, block.len() + 10);
        out.put_u32(id);
        out.put_u32(0); // associated with no other stream
        out.put_u16(0); // priority 0, slot 0
        out.extend_from_slice(&block);
        Ok(())
    }

    #[cfg(test)]
    fn syn_reply(&mut self, id: u32, headers: &[(&str, &str)], out: &mut BytesMut) -> Result<(), SpdyError> {
        let block = self.header_block(headers)?;
        control(out, SYN_REPLY, 0, block.len() + 4);
        out.put_u32(id);
        out.extend_from_slice(&block);
        Ok(())
    }

    fn header_block(&mut self, headers: &[(&str, &str)]) -> Result<Vec<u8>, SpdyError> {
        let mut plain = Vec::with_capacity(128);
        plain.put_u32(headers.len() as u32);
        for (name, value) in headers {
            for text in [name, value] {
                plain.put_u32(text.len() as u32);
                plain.put_slice(text.as_bytes());
            }
        }
        let mut block = Vec::with_capacity(plain.len() + 128);
        let before = self.compress.total_in();
        self.compress.compress_vec(&plain, &mut block, FlushCompress::Sync).map_err(|e| SpdyError(e.to_string()))?;
        if self.compress.total_in() - before != plain.len() as u64 {
            return Err(SpdyError("a header block does not fit".into()));
        }
        Ok(block)
    }
}

fn control(out: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    out.put_u16(VERSION);
    out.put_u16(kind);
    out.put_u32((u32::from(flags) << 24) | length as u32);
}

pub fn data(id: u32, fin: bool, payload: &[u8], out: &mut BytesMut) {
    out.put_u32(id);
    out.put_u32((u32::from(fin) << 24) | payload.len() as u32);
    out.extend_from_slice(payload);
}

pub fn ping(id: u32, out: &mut BytesMut) {
    control(out, PING, 0, 4);
    out.put_u32(id);
}

/// Reads frames from what has arrived.
pub struct Reader {
    decompress: Decompress,
}

impl Reader {
    pub fn new() -> Self {
        Reader { decompress: Decompress::new(true) }
    }

    /// Takes the first whole frame off `buffer`; `None` when more bytes are needed.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, SpdyError> {
        let Some(head) = buffer.first_chunk::<8>() else { return Ok(None) };
        let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let flags = head[4];
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(SpdyError(format!("a frame of {length} bytes")));
        }
        if buffer.len() < 8 + length {
            return Ok(None);
        }
        buffer.advance(8);
        let body = buffer.split_to(length).freeze();
        let fin = flags & FLAG_FIN != 0;
        if first & 0x8000_0000 == 0 {
            return Ok(Some(Frame::Data { id: first, fin, data: body }));
        }
        if (first >> 16) as u16 != VERSION {
            return Err(SpdyError(format!("version {}", (first >> 16) & 0x7fff)));
        }
        let short = || SpdyError("a frame that is too short".into());
        let id = body.first_chunk::<4>().map(|b| u32::from_be_bytes(*b) & 0x7fff_ffff);
        Ok(Some(match first as u16 {
            SYN_STREAM => {
                let id = id.ok_or_else(short)?;
                let block = body.get(10..).ok_or_else(short)?;
                Frame::SynStream { id, fin, headers: self.headers(block)? }
            }
            SYN_REPLY => {
                let id = id.ok_or_else(short)?;
                let block = body.get(4..).ok_or_else(short)?;
                Frame::SynReply { id, fin, headers: self.headers(block)? }
            }
            RST_STREAM => Frame::Reset { id: id.ok_or_else(short)? },
            PING => Frame::Ping { id: id.ok_or_else(short)? },
            GOAWAY => Frame::GoAway,
            _ => Frame::Other,
        }))
    }

    fn headers(&mut self, block: &[u8]) -> Result<Headers, SpdyError> {
        let mut plain = Vec::with_capacity(1024);
        let began = self.decompress.total_in();
        loop {
            let used = (self.decompress.total_in() - began) as usize;
            let result = self.decompress.decompress_vec(&block[used..], &mut plain, FlushDecompress::Sync);
            match result {
                Err(e) if e.needs_dictionary().is_some() => {
                    self.decompress.set_dictionary(DICTIONARY).map_err(|e| SpdyError(e.to_string()))?;
                }
                Err(e) => return Err(SpdyError(e.to_string())),
                Ok(_) if plain.len() > MAX_HEADER_BYTES => return Err(SpdyError("headers that are too long".into())),
                Ok(_) if plain.len() == plain.capacity() => plain.reserve(plain.capacity()),
                Ok(_) if (self.decompress.total_in() - began) as usize >= block.len() => break,
                Ok(_) => return Err(SpdyError("a damaged header block".into())),
            }
        }
        parse_headers(&plain).ok_or_else(|| SpdyError("a damaged header block".into()))
    }
}

fn parse_headers(mut plain: &[u8]) -> Option<Headers> {
    let count = plain.try_get_u32().ok()?;
    let mut text = || -> Option<String> {
        let length = plain.try_get_u32().ok()? as usize;
        let bytes = plain.get(..length)?;
        plain = &plain[length..];
        Some(String::from_utf8_lossy(bytes).into_owned())
    };
    let mut headers = Headers::new();
    for _ in 0..count {
        headers.push((text()?, text()?));
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let (mut writer, mut reader, mut wire) = (Writer::new().expect("writer"), Reader::new(), BytesMut::new());
        writer.syn_stream(1, &[("streamtype", "error")], &mut wire).expect("frame");
        writer.syn_stream(3, &[("streamtype", "stdin"), ("port", "80")], &mut wire).expect("frame");
        writer.syn_reply(3, &[], &mut wire).expect("frame");
        data(3, true, b"hello", &mut wire);
        ping(7, &mut wire);
        let pair = |a: &str, b: &str| (a.to_string(), b.to_string());
        let expected = [
            Frame::SynStream { id: 1, fin: false, headers: vec![pair("streamtype", "error")] },
            Frame::SynStream { id: 3, fin: false, headers: vec![pair("streamtype", "stdin"), pair("port", "80")] },
            Frame::SynReply { id: 3, fin: false, headers: vec![] },
            Frame::Data { id: 3, fin: true, data: Bytes::from_static(b"hello") },
            Frame::Ping { id: 7 },
        ];
        // Byte by byte: a frame is there when its last byte is, not before.
        let mut arrived = BytesMut::new();
        let mut frames = Vec::new();
        for byte in wire {
            arrived.put_u8(byte);
            while let Some(frame) = reader.next(&mut arrived).expect("frames") {
                frames.push(frame);
            }
        }
        assert_eq!(frames, expected);
    }

    #[test]
    fn hostile_bytes_are_refused() {
        for bad in [
            &[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff][..],
            &[0x80, 2, 0, 1, 0, 0, 0, 0][..],
            &[0x80, 3, 0, 1, 0, 0, 0, 2, 0, 0][..],
            &[0x80, 3, 0, 2, 0, 0, 0, 8, 0, 0, 0, 1, 9, 9, 9, 9][..],
        ] {
            assert!(Reader::new().next(&mut BytesMut::from(bad)).is_err(), "{bad:?}");
        }
    }
}
