//! Reads a document as Go's decoder reads it into the kind's struct, and leaves what Go would write back.
//!
//! One pass: wrong types are refused, unknown fields dropped and noted, quantities and times made canonical, fields
//! that Go never omits filled with their zero values, empty ones that it omits dropped.
//! Compat: the wording of errors is that of sigs.k8s.io/json and of `strict decoding` (apimachinery). A wrong type is told
//! once all is read, the first of them; what reads its own JSON (times, quantities) ends the reading when it fails.
//! Invariant: pruning a pruned document changes nothing and notes nothing.

use super::{FieldRef, Kind, Scalar, TypeRef, zero};
use crate::quantity::Quantity;
use crate::{Map, Status, Value, time};
use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use std::fmt::Write;

/// Upstream notes no more than this many strict errors of one document.
const STRICT_ERRORS_MAX: usize = 100;

/// Why a document does not fit its kind; the text is the decoder's (`json: cannot unmarshal ...`).
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(pub String);

impl DecodeError {
    /// What the client gets: `Pod in version "v1" cannot be handled as a Pod: ...`.
    pub fn status(&self, version: &str, kind: &str) -> Status {
        Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {}", self.0))
    }

    /// The error that strict field validation makes of the notes.
    pub fn strict(notes: &[String]) -> DecodeError {
        let lines = notes.iter().take_while(|note| note.starts_with("line ")).count();
        // Compat: what the reader of YAML says is one error, on lines of its own.
        let yaml = (lines > 0).then(|| format!("yaml: unmarshal errors:\n  {}", notes[..lines].join("\n  ")));
        let all: Vec<String> = yaml.into_iter().chain(notes[lines..].iter().cloned()).collect();
        DecodeError(format!("strict decoding error: {}", all.join(", ")))
    }
}

impl TypeRef<'_> {
    /// Reads `value` as this type and normalises it in place. Answers the notes of strict decoding
    /// (`unknown field "spec.foo"`), in the document's order; the document then lacks those fields.
    pub fn prune(self, value: &mut Value) -> Result<Vec<String>, DecodeError> {
        let mut reader = Reader { notes: Vec::new(), wrong: None };
        reader.read(self, value, &Place { up: None, step: Step::Root, owner: "" })?;
        reader.wrong.map_or(Ok(reader.notes), Err)
    }

    /// What Go writes for a value of this type that was never set.
    pub fn zero(self) -> Value {
        zero::of(self)
    }
}

/// Where the reader is: a chain on the stack, spelled out only for an error.
struct Place<'a> {
    up: Option<&'a Place<'a>>,
    step: Step<'a>,
    /// The innermost struct that has a field on the way; empty at the root.
    owner: &'a str,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    /// Of this struct.
    Field(TypeRef<'a>, &'a str),
    Key(&'a str),
    Index(usize),
}

impl Place<'_> {
    /// `spec.containers[0].image`
    fn write_path(&self, out: &mut String) {
        if let Some(up) = self.up {
            up.write_path(out);
        }
        match self.step {
            Step::Root => {}
            Step::Field(_, name) | Step::Key(name) => {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(name);
            }
            // Writing to a String cannot fail.
            Step::Index(i) => drop(write!(out, "[{i}]")),
        }
    }

    /// `spec.containers.livenessProbe.ProbeHandler.exec`: type errors name fields only, and inline structs too.
    fn write_fields(&self, out: &mut Vec<String>) {
        if let Some(up) = self.up {
            up.write_fields(out);
        }
        if let Step::Field(holder, name) = self.step {
            holders(holder, name, out);
            out.push(name.into());
        }
    }
}

/// Names the inline structs that a field stands in; answers whether it is a field of this struct at all.
fn holders(ty: TypeRef<'_>, name: &str, out: &mut Vec<String>) -> bool {
    if ty.declared_fields().any(|field| !field.is_inline() && field.name() == name) {
        return true;
    }
    ty.declared_fields().filter(|field| field.is_inline()).any(|field| {
        let depth = out.len();
        out.push(field.ty().name().into());
        let found = holders(field.ty(), name, out);
        if !found {
            out.truncate(depth);
        }
        found
    })
}

/// What Go's decoder calls the value in an error.
fn called(value: &Value, with_number: bool) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "bool".into(),
        Value::Int(i) if with_number => format!("number {i}"),
        // With the point that it was written with, as a rule.
        Value::Float(f) if with_number && f.abs() < 1e16 => format!("number {f:?}"),
        Value::Float(f) if with_number => format!("number {f}"),
        Value::Int(_) | Value::Float(_) => "number".into(),
        Value::String(_) => "string".into(),
        Value::Array(_) => "array".into(),
        Value::Object(_) => "object".into(),
    }
}

fn mismatch(place: &Place<'_>, value: &Value, with_number: bool, go_type: &str) -> DecodeError {
    let called = called(value, with_number);
    if place.owner.is_empty() {
        return DecodeError(format!("json: cannot unmarshal {called} into Go value of type {go_type}"));
    }
    let mut path = Vec::new();
    place.write_fields(&mut path);
    DecodeError(format!(
        "json: cannot unmarshal {called} into Go struct field {}.{} of type {go_type}",
        place.owner,
        path.join(".")
    ))
}

struct Reader {
    notes: Vec<String>,
    /// The first value of a wrong type.
    wrong: Option<DecodeError>,
}

impl Reader {
    /// Notes what is wrong, and goes on.
    fn refuse(&mut self, wrong: DecodeError) -> Result<(), DecodeError> {
        self.wrong.get_or_insert(wrong);
        Ok(())
    }

    fn note_unknown(&mut self, place: &Place<'_>, field: &str) {
        if self.notes.len() >= STRICT_ERRORS_MAX {
            return;
        }
        let mut path = String::new();
        place.write_path(&mut path);
        let dot = if path.is_empty() { "" } else { "." };
        self.notes.push(format!("unknown field \"{path}{dot}{field}\""));
    }

    fn read(&mut self, ty: TypeRef<'_>, value: &mut Value, place: &Place<'_>) -> Result<(), DecodeError> {
        match ty.kind() {
            Kind::Struct => match value {
                Value::Object(map) => self.read_struct(ty, map, place),
                // Null changes nothing: what is there stays zero.
                Value::Null => {
                    *value = zero::of(ty);
                    Ok(())
                }
                _ => self.refuse(mismatch(place, value, false, &ty.go_type())),
            },
            Kind::List(_) => self.read_list(ty, value, place),
            Kind::Map => self.read_map(ty, value, place),
            Kind::Scalar(scalar) => self.read_scalar(ty, scalar, value, place),
            Kind::Any => Ok(()),
        }
    }

    /// Walks the document's keys and the type's fields side by side: both are sorted.
    fn read_struct(&mut self, ty: TypeRef<'_>, map: &mut Map, place: &Place<'_>) -> Result<(), DecodeError> {
        let name = ty.name();
        let owner = if name.is_empty() { place.owner } else { name };
        let mut out = Vec::with_capacity(map.len() + 2);
        let mut fields = ty.fields().peekable();
        for (key, mut value) in std::mem::take(map) {
            while let Some(field) = fields.next_if(|f| f.name() < key.as_str()) {
                fill(field, &mut out);
            }
            let Some(field) = fields.next_if(|f| f.name() == key.as_str()) else {
                if ty.preserves_unknown() {
                    out.push((key, value));
                } else {
                    self.note_unknown(place, &key);
                }
                continue;
            };
            if value.is_null() {
                fill(field, &mut out);
                continue;
            }
            let place = Place { up: Some(place), step: Step::Field(ty, field.name()), owner };
            self.read(field.ty(), &mut value, &place)?;
            if !zero::is_left_out(field, &value) {
                out.push((key, value));
            } else if zero::is_written_when_unset(field) {
                out.push((key, zero::of_field(field)));
            }
        }
        for field in fields {
            fill(field, &mut out);
        }
        *map = Map::from_entries(out, |_| {});
        Ok(())
    }

    fn read_list(&mut self, ty: TypeRef<'_>, value: &mut Value, place: &Place<'_>) -> Result<(), DecodeError> {
        let items = match value {
            Value::Null => return Ok(()),
            Value::Array(items) => items,
            _ => return self.refuse(mismatch(place, value, false, &ty.go_type())),
        };
        let Some(element) = ty.element() else {
            return Ok(());
        };
        for (i, item) in items.iter_mut().enumerate() {
            self.read_element(element, item, place, Step::Index(i))?;
        }
        Ok(())
    }

    fn read_map(&mut self, ty: TypeRef<'_>, value: &mut Value, place: &Place<'_>) -> Result<(), DecodeError> {
        let map = match value {
            Value::Null => return Ok(()),
            Value::Object(map) => map,
            _ => return self.refuse(mismatch(place, value, false, &ty.go_type())),
        };
        let Some(element) = ty.element() else {
            return Ok(());
        };
        for (key, item) in map.iter_mut() {
            self.read_element(element, item, place, Step::Key(key))?;
        }
        Ok(())
    }

    fn read_element(
        &mut self,
        element: TypeRef<'_>,
        item: &mut Value,
        place: &Place<'_>,
        step: Step<'_>,
    ) -> Result<(), DecodeError> {
        if item.is_null() {
            // Compat: upstream's store turns an absent text of bytes into an empty one.
            let bytes = matches!(element.kind(), Kind::Scalar(Scalar::Bytes));
            *item = if bytes { "".into() } else { zero::of(element) };
            return Ok(());
        }
        self.read(element, item, &Place { up: Some(place), step, owner: place.owner })?;
        // Compat: nil after a protobuf round trip, which is how upstream stores it.
        if item.is_empty() && matches!(element.kind(), Kind::List(_) | Kind::Map) {
            *item = Value::Null;
        }
        Ok(())
    }

    fn read_scalar(
        &mut self,
        ty: TypeRef<'_>,
        scalar: Scalar,
        value: &mut Value,
        place: &Place<'_>,
    ) -> Result<(), DecodeError> {
        if value.is_null() {
            *value = zero::of(ty);
            return Ok(());
        }
        let fits = match (scalar, &*value) {
            (Scalar::Bool, Value::Bool(_)) | (Scalar::String, Value::String(_)) => true,
            (Scalar::Int32, Value::Int(i)) => i32::try_from(*i).is_ok(),
            (Scalar::Int64, Value::Int(_)) => true,
            (Scalar::UInt8, Value::Int(i)) => u8::try_from(*i).is_ok(),
            (Scalar::UInt16, Value::Int(i)) => u16::try_from(*i).is_ok(),
            (Scalar::UInt32, Value::Int(i)) => u32::try_from(*i).is_ok(),
            (Scalar::UInt64, Value::Int(i)) => *i >= 0,
            (Scalar::Float64, Value::Int(_) | Value::Float(_)) => true,
            // An object whose content is not ours to read.
            (Scalar::Json | Scalar::Raw | Scalar::FieldsV1, _) => true,
            _ => false,
        };
        if fits {
            return Ok(());
        }
        match scalar {
            Scalar::Bool | Scalar::String | Scalar::Float64 => {
                self.refuse(mismatch(place, value, false, &ty.go_type()))
            }
            Scalar::Int32 | Scalar::Int64 | Scalar::UInt8 | Scalar::UInt16 | Scalar::UInt32 | Scalar::UInt64 => {
                self.refuse(mismatch(place, value, true, &ty.go_type()))
            }
            Scalar::SchemaOrBool | Scalar::SchemaOrArray | Scalar::SchemaOrStrings => {
                self.read_schema_or(ty, scalar, value, place)
            }
            Scalar::Bytes => read_bytes(value, place).or_else(|wrong| self.refuse(wrong)),
            Scalar::Time | Scalar::MicroTime => read_time(scalar, value, place),
            Scalar::Duration => read_duration(value, place),
            Scalar::Quantity => read_quantity(value),
            Scalar::IntOrString => match &*value {
                Value::String(_) => Ok(()),
                Value::Int(i) if i32::try_from(*i).is_ok() => Ok(()),
                _ => Err(mismatch(place, value, true, "int32")),
            },
            Scalar::Json | Scalar::Raw | Scalar::FieldsV1 => Ok(()),
        }
    }

    /// The three unions of a CRD's schema: the schema side is read, the other side has one shape.
    fn read_schema_or(
        &mut self,
        ty: TypeRef<'_>,
        scalar: Scalar,
        value: &mut Value,
        place: &Place<'_>,
    ) -> Result<(), DecodeError> {
        let props = ty.schema().find(&format!("{}.JSONSchemaProps", ty.package()));
        let Some(props) = props else { return Ok(()) };
        match (scalar, &mut *value) {
            (_, Value::Object(map)) => self.read_struct(props, map, place),
            (Scalar::SchemaOrBool, Value::Bool(_)) => Ok(()),
            (Scalar::SchemaOrBool, _) => Err(DecodeError("boolean or JSON schema expected".into())),
            (Scalar::SchemaOrArray, Value::Array(items)) => {
                for (i, item) in items.iter_mut().enumerate() {
                    self.read(props, item, &Place { up: Some(place), step: Step::Index(i), owner: place.owner })?;
                }
                Ok(())
            }
            (Scalar::SchemaOrStrings, Value::Array(items)) => match items.iter().find(|i| i.as_str().is_none()) {
                Some(item) => Err(mismatch(place, item, false, "string")),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

/// Adds what Go writes for a field that the document does not set.
fn fill(field: FieldRef<'_>, out: &mut Vec<(compact_str::CompactString, Value)>) {
    if zero::is_written_when_unset(field) {
        out.push((field.name().into(), zero::of_field(field)));
    }
}

/// As Go reads it: ends of lines and bits that say nothing are passed over.
fn read_bytes(value: &mut Value, place: &Place<'_>) -> Result<(), DecodeError> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
    );
    let text = match &*value {
        Value::String(text) => text,
        // Compat: a list of numbers is bytes too.
        Value::Array(items) => {
            let byte = |item: &Value| match item {
                Value::Null => Ok(0),
                Value::Int(number) if u8::try_from(*number).is_ok() => Ok(*number as u8),
                _ => Err(mismatch(place, item, true, "uint8")),
            };
            let bytes = items.iter().map(byte).collect::<Result<Vec<u8>, _>>()?;
            *value = STANDARD.encode(bytes).into();
            return Ok(());
        }
        _ => return Err(mismatch(place, value, false, "[]uint8")),
    };
    if STANDARD.decode(text.as_bytes()).is_ok() {
        return Ok(());
    }
    let text = text.replace(['\r', '\n'], "");
    match LENIENT.decode(text.as_bytes()) {
        Ok(bytes) => {
            *value = LENIENT.encode(bytes).into();
            Ok(())
        }
        Err(base64::DecodeError::InvalidByte(at, b'=')) => {
            // Go goes on to the end of what is filled up.
            let filled = text.as_bytes()[at..].iter().take(4 - at % 4).take_while(|b| **b == b'=').count();
            Err(DecodeError(format!("illegal base64 data at input byte {}", at + if at % 4 < 2 { 0 } else { filled })))
        }
        Err(base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _)) => {
            Err(DecodeError(format!("illegal base64 data at input byte {at}")))
        }
        // Go points at the end of what it could read.
        Err(_) => Err(DecodeError(format!("illegal base64 data at input byte {}", text.len() / 4 * 4))),
    }
}

fn read_time(scalar: Scalar, value: &mut Value, place: &Place<'_>) -> Result<(), DecodeError> {
    let Value::String(text) = &*value else {
        return Err(mismatch(place, value, false, "string"));
    };
    let layout = if scalar == Scalar::Time { "2006-01-02T15:04:05Z07:00" } else { "2006-01-02T15:04:05.000000Z07:00" };
    let Some(t) = looks_like_time(text).then(|| time::parse(text)).flatten() else {
        return Err(DecodeError(time_error(text, layout)));
    };
    if scalar == Scalar::MicroTime {
        check_micros(text, layout)?;
    }
    // Compat: Go's zero time is no time.
    if text.starts_with("0001-01-01T00:00:00") && t == ZERO_TIME {
        *value = Value::Null;
        return Ok(());
    }
    let canonical = if scalar == Scalar::Time { time::seconds(t) } else { time::micros(t) };
    if canonical != text.as_str() {
        *value = Value::String(canonical.into());
    }
    Ok(())
}

/// Go's: the first second of the year 1.
const ZERO_TIME: time::Timestamp = time::Timestamp::constant(-62_135_596_800, 0);

/// Six digits stand after the seconds, no more and no fewer.
fn check_micros(text: &str, layout: &str) -> Result<(), DecodeError> {
    let rest = text.get(19..).unwrap_or_default();
    let digits = rest.bytes().skip(1).take_while(u8::is_ascii_digit).count();
    let (rest, piece) = match digits {
        6 => return Ok(()),
        7.. if rest.starts_with('.') => (&rest[7..], "Z07:00"),
        _ => (rest, ".000000"),
    };
    Err(DecodeError(format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {piece:?}")))
}

/// RFC 3339 as Go takes it; jiff would take more (spaces, missing seconds, time zone names).
fn looks_like_time(text: &str) -> bool {
    let b = text.as_bytes();
    b.len() >= 20
        && b.iter().take(19).enumerate().all(|(i, c)| match i {
            4 | 7 => *c == b'-',
            10 => *c == b'T',
            13 | 16 => *c == b':',
            _ => c.is_ascii_digit(),
        })
        && b[19..].iter().all(|c| c.is_ascii_digit() || matches!(c, b'.' | b'+' | b'-' | b':' | b'Z'))
}

/// Go names the piece of the layout that did not match; the first piece is by far the most common.
fn time_error(text: &str, layout: &str) -> String {
    if let Some((time, extra)) = text.find('Z').map(|at| text.split_at(at + 1))
        && looks_like_time(time)
        && time::parse(time).is_some()
    {
        return format!("parsing time {text:?}: extra text: {extra:?}");
    }
    const PIECES: [&str; 11] = ["2006", "-", "01", "-", "02", "T", "15", ":", "04", ":", "05"];
    let mut rest = text;
    for piece in PIECES {
        let got = rest.get(..piece.len()).unwrap_or_default();
        let number = piece.as_bytes()[0].is_ascii_digit();
        let ok = if number { !got.is_empty() && got.bytes().all(|c| c.is_ascii_digit()) } else { got == piece };
        if !ok {
            return format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {piece:?}");
        }
        rest = &rest[piece.len()..];
    }
    format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as \"Z07:00\"")
}

fn read_duration(value: &Value, place: &Place<'_>) -> Result<(), DecodeError> {
    let Value::String(text) = value else {
        return Err(mismatch(place, value, false, "string"));
    };
    if time::parse_go_duration(text).is_some() {
        Ok(())
    } else {
        Err(DecodeError(format!("time: invalid duration {text:?}")))
    }
}

fn read_quantity(value: &mut Value) -> Result<(), DecodeError> {
    // Compat: quantities may stand as bare numbers, which are read by their text.
    let text: compact_str::CompactString = match &*value {
        Value::String(text) => text.trim().into(),
        Value::Int(i) => i.to_string().into(),
        Value::Float(f) => f.to_string().into(),
        // Go hands the JSON text itself to the parser of quantities.
        _ => "x".into(),
    };
    match Quantity::stored_text(&text) {
        Ok(canonical) => {
            if value.as_str() != Some(canonical.as_ref()) {
                *value = Value::String(canonical.as_ref().into());
            }
            Ok(())
        }
        Err(error) => Err(DecodeError(error.to_string())),
    }
}
