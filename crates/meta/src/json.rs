//! Reading and writing a [`Value`] as JSON, and through serde.
//!
//! The parser (sonic-rs) is hidden here. Bounds: nesting deeper than [`MAX_DEPTH`] is refused, so hostile input cannot
//! exhaust the stack; the size of the input is the caller's to bound.

mod syntax;

use std::cell::{Cell, RefCell};
use std::fmt;

use compact_str::CompactString;
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::value::{Map, Value};

/// How deep lists and objects may nest. Go's decoder allows 10,000; no real object passes 100.
pub const MAX_DEPTH: usize = 128;

/// Duplicate fields noted in one document; more are counted as one.
const MAX_DUPLICATES: usize = 64;

/// Why bytes are no JSON document.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(String);

/// Parses one JSON document.
pub fn parse(bytes: &[u8]) -> Result<Value, ParseError> {
    parse_noting_duplicates(bytes).map(|(v, _)| v)
}

/// Parses one JSON document and answers, beside it, the paths (`spec.replicas`, `spec.containers[0].name`) of the
/// fields that stood more than once. The last of them is the one kept, as in Go.
pub fn parse_noting_duplicates(bytes: &[u8]) -> Result<(Value, Vec<String>), ParseError> {
    let notes = Notes::default();
    let mut reader = sonic_rs::Deserializer::from_slice(bytes);
    let value = Seed { notes: &notes, parent: None }.deserialize(&mut reader).map_err(|e| refused(bytes, &e))?;
    reader.end().map_err(|e| refused(bytes, &e))?;
    Ok((value, notes.duplicates.into_inner()))
}

/// The paths of all fields of a JSON document in the order in which they stand there, as often as they do; none of what is
/// no document.
pub fn field_order(bytes: &[u8]) -> Vec<String> {
    let notes = Notes { order: Some(RefCell::default()), ..Notes::default() };
    let mut reader = sonic_rs::Deserializer::from_slice(bytes);
    let read = Seed { notes: &notes, parent: None }.deserialize(&mut reader);
    read.ok().and(notes.order).map(RefCell::into_inner).unwrap_or_default()
}

/// In Go's words where they are known, in those of our parser otherwise.
fn refused(bytes: &[u8], error: &sonic_rs::Error) -> ParseError {
    ParseError(
        syntax::error(bytes)
            .unwrap_or_else(|| error.to_string().lines().next().unwrap_or_default().trim_end().to_string()),
    )
}

#[derive(Default)]
struct Notes {
    depth: Cell<usize>,
    duplicates: RefCell<Vec<String>>,
    /// All paths, when they are wanted.
    order: Option<RefCell<Vec<String>>>,
}

/// Where in the document the reader stands: a linked list on the stack, so that a path costs nothing until it is asked.
#[derive(Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

struct Place<'a> {
    parent: Option<&'a Place<'a>>,
    step: Step<'a>,
}

impl Place<'_> {
    fn write(&self, out: &mut String) {
        if let Some(parent) = self.parent {
            parent.write(out);
        }
        match self.step {
            Step::Key(k) => {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(k);
            }
            Step::Index(i) => out.push_str(&format!("[{i}]")),
        }
    }
}

struct Seed<'a> {
    notes: &'a Notes,
    parent: Option<&'a Place<'a>>,
}

impl<'a> Seed<'a> {
    fn enter<E: de::Error>(&self) -> Result<(), E> {
        let depth = self.notes.depth.get() + 1;
        self.notes.depth.set(depth);
        if depth > MAX_DEPTH { Err(E::custom(format!("exceeded max depth of {MAX_DEPTH}"))) } else { Ok(()) }
    }

    fn leave(&self) {
        self.notes.depth.set(self.notes.depth.get() - 1);
    }

    fn path(&self, key: &str) -> String {
        let mut path = String::new();
        Place { parent: self.parent, step: Step::Key(key) }.write(&mut path);
        path
    }

    fn note(&self, key: &str) {
        let path = self.path(key);
        let mut all = self.notes.duplicates.borrow_mut();
        if all.len() < MAX_DUPLICATES && !all.contains(&path) {
            all.push(path);
        }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_any(self)
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Int(v))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Value::Float(v))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.into()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        self.enter()?;
        let mut items = Vec::new();
        loop {
            let place = Place { parent: self.parent, step: Step::Index(items.len()) };
            match seq.next_element_seed(Seed { notes: self.notes, parent: Some(&place) })? {
                Some(item) => items.push(item),
                None => break,
            }
        }
        self.leave();
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        self.enter()?;
        let mut entries: Vec<(CompactString, Value)> = Vec::new();
        while let Some(key) = map.next_key::<CompactString>()? {
            if let Some(order) = &self.notes.order {
                order.borrow_mut().push(self.path(&key));
            }
            let value = {
                let place = Place { parent: self.parent, step: Step::Key(&key) };
                map.next_value_seed(Seed { notes: self.notes, parent: Some(&place) })?
            };
            entries.push((key, value));
        }
        self.leave();
        Ok(Value::Object(Map::from_entries(entries, |key| self.note(key))))
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        Seed { notes: &Notes::default(), parent: None }.deserialize(deserializer)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(b) => serializer.serialize_bool(*b),
            Value::Int(i) => serializer.serialize_i64(*i),
            Value::Float(f) => serializer.serialize_f64(*f),
            Value::String(s) => serializer.serialize_str(s),
            Value::Array(a) => {
                let mut seq = serializer.serialize_seq(Some(a.len()))?;
                a.iter().try_for_each(|v| seq.serialize_element(v))?;
                seq.end()
            }
            Value::Object(m) => {
                let mut map = serializer.serialize_map(Some(m.len()))?;
                m.iter().try_for_each(|(k, v)| map.serialize_entry(k, v))?;
                map.end()
            }
        }
    }
}

thread_local! {
    /// Where documents are written before their length is known.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}
/// More than this is not kept between documents.
const SCRATCH_BYTES: usize = 256 * 1024;

impl Value {
    /// Canonical JSON: keys sorted, no white space. The vector has no room to spare: it may be kept for long.
    pub fn to_vec(&self) -> Vec<u8> {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            self.write_to(scratch);
            let exact = scratch.as_slice().to_vec();
            if scratch.capacity() > SCRATCH_BYTES {
                *scratch = Vec::new();
            }
            exact
        })
    }

    /// Appends the canonical JSON to `out`.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        match self {
            Value::Null => out.extend_from_slice(b"null"),
            Value::Bool(true) => out.extend_from_slice(b"true"),
            Value::Bool(false) => out.extend_from_slice(b"false"),
            Value::Int(i) => write_display(out, i),
            // A float without a fraction is written as an integer, as Go does.
            Value::Float(f) if f.fract() == 0.0 && f.abs() < 1e15 => write_display(out, &(*f as i64)),
            Value::Float(f) if f.is_finite() => write_display(out, f),
            Value::Float(_) => out.extend_from_slice(b"null"),
            Value::String(s) => write_string(out, s),
            Value::Array(a) => {
                out.push(b'[');
                for (i, v) in a.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    v.write_to(out);
                }
                out.push(b']');
            }
            Value::Object(m) => {
                out.push(b'{');
                for (i, (k, v)) in m.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    write_string(out, k);
                    out.push(b':');
                    v.write_to(out);
                }
                out.push(b'}');
            }
        }
    }
}

fn write_display(out: &mut Vec<u8>, v: &dyn fmt::Display) {
    use std::io::Write;
    write!(out, "{v}").expect("writing to memory cannot fail");
}

/// Appends `text` as a JSON string.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let plain = plain_bytes(rest);
        out.extend_from_slice(&rest[..plain]);
        let Some(&byte) = rest.get(plain) else { break };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => out.extend_from_slice(format!("\\u{control:04x}").as_bytes()),
        }
        rest = &rest[plain + 1..];
    }
    out.push(b'"');
}

/// How many bytes at the start need no escape; eight are looked at in one step.
fn plain_bytes(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // The high bit of each byte that is below `n`, exact for the lowest such byte; bytes above 0x7f never are.
    let below = |word: u64, n: u64| word.wrapping_sub(ONES * n) & !word & HIGH;
    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let special =
            below(word, 0x20) | below(word ^ (ONES * u64::from(b'"')), 1) | below(word ^ (ONES * u64::from(b'\\')), 1);
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let special = |b: &u8| *b < 0x20 || *b == b'"' || *b == b'\\';
    at + bytes[at..].iter().position(special).unwrap_or(bytes.len() - at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_bytes() {
        for (input, output) in [
            (r#" {"b": 1, "a": [true, null, 1.5, 1e2, -0]} "#, r#"{"a":[true,null,1.5,100,0],"b":1}"#),
            (r#"{"s":"a\"\\\n\u0001\u00e9\ud83d\ude00"}"#, "{\"s\":\"a\\\"\\\\\\n\\u0001é😀\"}"),
            ("9223372036854775807", "9223372036854775807"),
            ("\"<>&\"", "\"<>&\""),
        ] {
            assert_eq!(parse(input.as_bytes()).expect(input).to_string(), output);
        }
    }

    #[test]
    fn escapes_are_found_wherever_they_stand() {
        for special in ['"', '\\', '\n', '\u{1}', '\u{1f}', ' ', '\u{7f}', 'é', '😀'] {
            for at in 0..20 {
                let text = format!("{}{special}{}", "a".repeat(at), "b".repeat(20 - at));
                let mut out = Vec::new();
                write_string(&mut out, &text);
                assert_eq!(serde_json::from_slice::<String>(&out).expect("a JSON string"), text);
            }
        }
    }

    #[test]
    fn duplicates_are_noted_with_their_path() {
        let (v, duplicates) =
            parse_noting_duplicates(br#"{"spec":{"a":[{"x":1,"x":2,"x":3}],"n":1,"n":2},"z":0,"z":1}"#).expect("json");
        assert_eq!(v.to_string(), r#"{"spec":{"a":[{"x":3}],"n":2},"z":1}"#);
        assert_eq!(duplicates, ["spec.a[0].x", "spec.n", "z"]);
        assert_eq!(field_order(br#"{"b":[{"c":1,"c":2}],"a":{"d":1}}"#), ["b", "b[0].c", "b[0].c", "a", "a.d"]);
        assert!(field_order(b"{").is_empty());
    }

    #[test]
    fn bad_documents_are_refused() {
        for bad in ["", "{", "{\"a\":}", "[1,]", "{} x", "nul", "\"\\ud800\"", "\u{0}"] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(parse(b"\"\xff\"").is_err());
        let deep = "[".repeat(100_000);
        assert!(parse(deep.as_bytes()).is_err());
        let fits = format!("{}{}", "[".repeat(100), "]".repeat(100));
        assert!(parse(fits.as_bytes()).is_ok());
    }
}
