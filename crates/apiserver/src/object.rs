//! One stored object: its JSON bytes and the few fields that lists, watches and selectors need.
//!
//! The bytes are what the store holds, without `resourceVersion`; it is put in at a known offset whenever the object is
//! sent. Invariant: an `Object` never changes; a new version is a new `Object`.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use compact_str::CompactString;
use meta::Value;

use crate::protobuf;
use crate::row::{Cells, holds_marks};
use crate::skim::skim;

/// Names and values that field selectors read.
pub type Fields = Box<[(CompactString, CompactString)]>;

#[derive(Debug)]
pub struct Object {
    /// `NAMESPACE/NAME`, or `NAME` in the cluster scope: the store's key without the resource's prefix.
    pub key: CompactString,
    /// The revision at which it was last written.
    pub rv: u64,
    pub namespace: CompactString,
    pub name: CompactString,
    pub uid: CompactString,
    /// Sorted by key.
    pub labels: Box<[(CompactString, CompactString)]>,
    pub deleting: bool,
    value: Bytes,
    splice: u32,
    /// The offset after the metadata.
    metadata_end: u32,
    managed: Range<u32>,
    bare: bool,
    fields: OnceLock<Fields>,
    /// `None` inside when they are not to be kept.
    cells: OnceLock<Option<Box<Cells>>>,
    /// The object in protobuf, as it is sent; made at first use.
    message: OnceLock<Bytes>,
    /// The custom schema under which the bytes can be sent as they are; 0 for none.
    clean_for: AtomicU32,
    /// As a custom schema shows it, where that is not as stored; of the schema that asked last.
    shown: Mutex<Option<(u32, Arc<Object>)>>,
}

impl Object {
    /// Reads a stored value; `None` when it is no object with metadata.
    pub fn read(key: &str, value: Bytes, rv: u64) -> Option<Object> {
        let value = protobuf::stored(value)?;
        let found = skim(&value)?;
        Some(Object {
            key: key.into(),
            rv,
            namespace: found.namespace,
            name: found.name,
            uid: found.uid,
            labels: found.labels.into(),
            deleting: found.deleting,
            splice: u32::try_from(found.splice).ok()?,
            metadata_end: u32::try_from(found.end).ok()?,
            managed: u32::try_from(found.managed.start).ok()?..u32::try_from(found.managed.end).ok()?,
            bare: found.bare,
            value,
            fields: OnceLock::new(),
            cells: OnceLock::new(),
            message: OnceLock::new(),
            clean_for: AtomicU32::new(0),
            shown: Mutex::default(),
        })
    }

    /// The same state as of a later revision: how a deletion shows the last state.
    pub fn at_revision(&self, rv: u64) -> Object {
        Object {
            key: self.key.clone(),
            rv,
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            labels: self.labels.clone(),
            deleting: self.deleting,
            value: self.value.clone(),
            splice: self.splice,
            metadata_end: self.metadata_end,
            managed: self.managed.clone(),
            bare: self.bare,
            fields: self.fields.clone(),
            cells: OnceLock::new(),
            message: OnceLock::new(),
            clean_for: AtomicU32::new(self.clean_for.load(Ordering::Relaxed)),
            shown: Mutex::default(),
        }
    }

    pub fn is_clean_for(&self, schema: u32) -> bool {
        self.clean_for.load(Ordering::Relaxed) == schema
    }

    pub fn set_clean_for(&self, schema: u32) {
        self.clean_for.store(schema, Ordering::Relaxed);
    }

    pub fn shown_by(&self, schema: u32) -> Option<Arc<Object>> {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.as_ref().filter(|(by, _)| *by == schema).map(|(_, object)| object.clone())
    }

    pub fn set_shown_by(&self, schema: u32, object: Arc<Object>) {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some((schema, object));
    }

    /// The stored bytes, without resourceVersion.
    pub fn stored(&self) -> &Bytes {
        &self.value
    }

    /// Whether the stored bytes hold these: cheap beside parsing, where a member is rare.
    pub fn holds(&self, text: &str) -> bool {
        memchr::memmem::find(&self.value, text.as_bytes()).is_some()
    }

    /// Appends the object as it is sent.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let at = self.splice as usize;
        out.extend_from_slice(&self.value[..at]);
        self.write_version(out);
        out.extend_from_slice(&self.value[at..]);
    }

    /// Appends the object's metadata alone, as the value of a member.
    pub fn write_metadata_to(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        self.write_version(out);
        out.extend_from_slice(&self.value[self.splice as usize..self.metadata_end as usize]);
    }

    fn write_version(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\"resourceVersion\":\"");
        write_decimal(out, self.rv);
        out.extend_from_slice(if self.bare { b"\"" } else { b"\"," });
    }

    /// The cells of the object's row, worked out at first use; `None` when they are not to be kept.
    pub fn cells(&self, kind: &api::kinds::Kind) -> Option<&Cells> {
        let make = || {
            let known = !holds_marks(&self.value);
            known.then(|| Cells::new(&self.document_without_owners(), kind).map(Box::new)).flatten()
        };
        self.cells.get_or_init(make).as_deref()
    }

    /// Parses the object as stored, without who owns which field: a large part of it that few read.
    pub fn document_without_owners(&self) -> Value {
        let managed = self.managed.start as usize..self.managed.end as usize;
        if managed.is_empty() {
            return self.stored_document();
        }
        let mut json = Vec::with_capacity(self.value.len() - managed.len() + 4);
        json.extend_from_slice(&self.value[..managed.start]);
        json.extend_from_slice(b"null");
        json.extend_from_slice(&self.value[managed.end..]);
        meta::parse(&json).unwrap_or_else(|_| Value::object())
    }

    /// The object as a protobuf message without an envelope; of a custom resource, only its metadata.
    pub fn message(&self) -> &Bytes {
        self.message.get_or_init(|| protobuf::object(&self.document()))
    }

    /// How many bytes `write_to` appends.
    pub fn len_bytes(&self) -> usize {
        self.value.len() + 21 + self.rv.checked_ilog10().unwrap_or(0) as usize + usize::from(!self.bare)
    }

    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.len_bytes());
        self.write_to(&mut out);
        out.into()
    }

    /// Parses the object, with its resourceVersion.
    pub fn document(&self) -> Value {
        let mut value = self.stored_document();
        value.set(&["metadata", "resourceVersion"], self.rv.to_string());
        value
    }

    /// Parses the object as stored, without its resourceVersion.
    pub fn stored_document(&self) -> Value {
        // What was skimmed parses too, except when it was corrupt below its header; then it reads as an empty object,
        // which every validation refuses.
        meta::parse(&self.value).unwrap_or_else(|_| Value::object())
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.binary_search_by(|(k, _)| k.as_str().cmp(key)).ok().map(|i| self.labels[i].1.as_str())
    }

    /// The fields that the kind offers to selectors beside name and namespace, read at first use.
    pub fn fields(&self, read: impl FnOnce(&Value) -> Fields) -> &Fields {
        self.fields.get_or_init(|| read(&self.document_without_owners()))
    }
}

/// Appends a number in decimal.
pub fn write_decimal(out: &mut Vec<u8>, mut n: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_put_in() {
        for (stored, rv, sent) in [
            (r#"{"metadata":{"name":"a"}}"#, 12, r#"{"metadata":{"resourceVersion":"12","name":"a"}}"#),
            (r#"{"metadata":{}}"#, 0, r#"{"metadata":{"resourceVersion":"0"}}"#),
        ] {
            let object = Object::read("a", Bytes::from_static(stored.as_bytes()), rv).expect("object");
            assert_eq!(object.to_bytes(), sent);
            assert_eq!(object.len_bytes(), sent.len());
            let mut metadata = Vec::new();
            object.write_metadata_to(&mut metadata);
            assert_eq!(format!("{{\"metadata\":{}}}", String::from_utf8_lossy(&metadata)), sent);
        }
    }
}
