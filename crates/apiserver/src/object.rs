//! One stored object: its JSON bytes and the few fields that lists, watches and selectors need.
//!
//! The bytes are what the store holds, without `resourceVersion`; it is put in at a known offset whenever the object is
//! sent. Invariant: an `Object` never changes; a new version is a new `Object`.

use std::sync::OnceLock;

use bytes::Bytes;
use compact_str::CompactString;
use meta::Value;

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
    bare: bool,
    fields: OnceLock<Fields>,
}

impl Object {
    /// Reads a stored value; `None` when it is no object with metadata.
    pub fn read(key: &str, value: Bytes, rv: u64) -> Option<Object> {
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
            bare: found.bare,
            value,
            fields: OnceLock::new(),
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
            bare: self.bare,
            fields: self.fields.clone(),
        }
    }

    /// The stored bytes, without resourceVersion.
    pub fn stored(&self) -> &Bytes {
        &self.value
    }

    /// Appends the object as it is sent.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let at = self.splice as usize;
        out.extend_from_slice(&self.value[..at]);
        out.extend_from_slice(b"\"resourceVersion\":\"");
        write_decimal(out, self.rv);
        out.extend_from_slice(if self.bare { b"\"" } else { b"\"," });
        out.extend_from_slice(&self.value[at..]);
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
        self.fields.get_or_init(|| read(&self.stored_document()))
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
        }
    }
}
