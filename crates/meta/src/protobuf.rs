//! Documents as protobuf and back, by the schema table: what Go clients speak and what upstream's stores hold.
//!
//! A body is the envelope `k8s\0` + `runtime.Unknown` (API concepts, "Protobuf encoding") around the kind's message.
//! Reads and writes bytes and [`Value`]s only. Invariants: input of any bytes gives a document or an error, with bounded
//! nesting and in time linear in its length but for a factor of the logarithm; a normalised document (see
//! [`TypeRef::prune`]) is written byte for byte as upstream writes it.

mod decode;
mod encode;
mod wire;

pub use encode::{encode, frame, list_part, unknown};

use crate::schema::{DecodeError, TypeRef};
use crate::{Map, Value};
use wire::{Fields, Wire};

/// What every enveloped body starts with.
pub const MAGIC: &[u8] = b"k8s\0";
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// Why bytes are no document. The wording is upstream's where clients see it.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoEnvelope,
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    Unregistered { api_version: String, kind: String },
    #[error("proto: {0}")]
    Malformed(String),
    #[error("{0}")]
    Unfit(#[from] DecodeError),
}

/// Finds the type of an apiVersion and kind.
pub type Find<'f, 's> = &'f dyn Fn(&str, &str) -> Option<TypeRef<'s>>;

/// The document in an enveloped body, with the apiVersion and kind of its envelope. Fields that Go would write although
/// nobody set them are not in it: `TypeRef::prune` puts them there.
pub fn decode(body: &[u8], find: Find<'_, '_>) -> Result<Value, Error> {
    decode::enveloped(body, find, 0)
}

/// As `decode`, in the normal form in which documents are stored; whether they are of the type is all that can fail.
pub fn normal(body: &[u8], find: Find<'_, '_>) -> Result<Value, Error> {
    let mut document = decode(body, find)?;
    let api_version = document.remove(&["apiVersion"]).unwrap_or_default();
    let kind = document.remove(&["kind"]).unwrap_or_default();
    let ty = find(api_version.as_str().unwrap_or_default(), kind.as_str().unwrap_or_default());
    ty.map(|ty| ty.prune(&mut document)).transpose()?;
    document.set(&["apiVersion"], api_version);
    document.set(&["kind"], kind);
    Ok(document)
}

/// The apiVersion, kind and message of an envelope.
fn open(body: &[u8]) -> Result<(String, String, &[u8]), Error> {
    let rest = body.strip_prefix(MAGIC).ok_or(Error::NoEnvelope)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Fields(rest) {
        match field? {
            (1, Wire::Bytes(meta)) => {
                for field in Fields(meta) {
                    match field? {
                        (1, Wire::Bytes(text)) => api_version = wire::utf8(text)?.into(),
                        (2, Wire::Bytes(text)) => kind = wire::utf8(text)?.into(),
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    Ok((api_version, kind, raw))
}

/// The message of `message` that has this number, with its own tag and length: how metadata is cut out of an object.
pub fn part(message: &[u8], wanted: u64) -> Option<std::ops::Range<usize>> {
    let mut fields = Fields(message);
    loop {
        let start = message.len() - fields.0.len();
        match fields.next()?.ok()? {
            (number, Wire::Bytes(_)) if number == wanted => return Some(start..message.len() - fields.0.len()),
            _ => {}
        }
    }
}

fn object(map: Map) -> Value {
    Value::Object(map)
}

#[cfg(test)]
mod tests;
