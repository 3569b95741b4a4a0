//! Messages into values. Field numbers come from the table; unknown fields are skipped, as Go's readers do.
//!
//! Invariant: a value nests no deeper than [`MAX_DEPTH`], whatever envelopes it holds.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use compact_str::CompactString;

use super::wire::{Fields, Wire, utf8};
use super::{Error, Find, MAGIC, object, open};
use crate::schema::{FieldRef, Kind, Scalar, TypeRef};
use crate::time::{self, Timestamp};
use crate::{Map, Value};

const MAX_DEPTH: usize = 100;

pub(super) fn enveloped(body: &[u8], find: Find<'_, '_>, depth: usize) -> Result<Value, Error> {
    let (api_version, kind, raw) = open(body)?;
    let Some(ty) = find(&api_version, &kind) else {
        return Err(Error::Unregistered { api_version, kind });
    };
    let mut document = Decoder { find }.message(ty, raw, depth)?;
    document.set(&["apiVersion"], api_version);
    document.set(&["kind"], kind);
    Ok(document)
}

/// The entries of a map field, collected: put into the map one by one they could cost their number squared.
type Pending<'s> = (FieldRef<'s>, Vec<(CompactString, Value)>);

struct Decoder<'f, 's> {
    find: Find<'f, 's>,
}

fn malformed<T>(what: impl Into<String>) -> Result<T, Error> {
    Err(Error::Malformed(what.into()))
}

fn mistyped<T>(what: &str) -> Result<T, Error> {
    malformed(format!("wrong wire type for {what}"))
}

impl<'s> Decoder<'_, 's> {
    fn message(&self, ty: TypeRef<'_>, bytes: &[u8], depth: usize) -> Result<Value, Error> {
        if depth > MAX_DEPTH {
            return malformed(format!("exceeded max depth of {MAX_DEPTH}"));
        }
        let mut out = Map::new();
        let mut maps: Vec<Pending<'_>> = Vec::new();
        for field in Fields(bytes) {
            let (number, wire) = field?;
            let Some(field) = ty.field_numbered(number) else { continue };
            if field.ty().kind() == Kind::Map {
                let entry = self.entry(field.ty(), wire, depth)?;
                match maps.iter_mut().find(|(of, _)| of.name() == field.name()) {
                    Some((_, entries)) => entries.push(entry),
                    None => maps.push((field, vec![entry])),
                }
            } else {
                self.add(&mut out, field, wire, depth)?;
            }
        }
        for (field, entries) in maps {
            out.insert(field.name(), object(Map::from_entries(entries, |_| {})));
        }
        Ok(object(out))
    }

    fn add(&self, out: &mut Map, field: FieldRef<'_>, wire: Wire<'_>, depth: usize) -> Result<(), Error> {
        let ty = field.ty();
        if field.is_inline() {
            if let Value::Object(inner) = self.value(ty, wire, depth + 1)? {
                for (key, value) in inner {
                    out.insert(key, value);
                }
            }
        } else if let (Kind::List(_), false, Some(element)) = (ty.kind(), ty.is_wrapped(), ty.element()) {
            let list = out.get_or_insert_with(field.name(), || Value::Array(Vec::new())).make_array();
            self.items(list, element, wire, depth)?;
        } else {
            out.insert(field.name(), self.value(ty, wire, depth + 1)?);
        }
        Ok(())
    }

    fn entry(&self, map: TypeRef<'_>, wire: Wire<'_>, depth: usize) -> Result<(CompactString, Value), Error> {
        let (Wire::Bytes(bytes), Some(element)) = (wire, map.element()) else { return mistyped("a map") };
        let (mut key, mut found) = (CompactString::default(), None);
        for part in Fields(bytes) {
            match part? {
                (1, Wire::Bytes(text)) => key = utf8(text)?.into(),
                (2, wire) => found = Some(self.value(element, wire, depth + 1)?),
                _ => {}
            }
        }
        Ok((key, found.unwrap_or_else(|| element.zero())))
    }

    /// One item of a list, or a packed run of numbers.
    fn items(&self, list: &mut Vec<Value>, element: TypeRef<'_>, wire: Wire<'_>, depth: usize) -> Result<(), Error> {
        use Scalar::{Bool, Int32, Int64, UInt8, UInt16, UInt32, UInt64};
        let packable = matches!(element.kind(), Kind::Scalar(Bool | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64));
        if let (true, Wire::Bytes(packed)) = (packable, wire) {
            let mut numbers = Fields(packed);
            while !numbers.0.is_empty() {
                let Some(number) = numbers.varint() else { return malformed("unexpected EOF") };
                list.push(self.value(element, Wire::Varint(number), depth)?);
            }
            return Ok(());
        }
        list.push(self.value(element, wire, depth + 1)?);
        Ok(())
    }

    fn value(&self, ty: TypeRef<'_>, wire: Wire<'_>, depth: usize) -> Result<Value, Error> {
        match (ty.kind(), wire, ty.element()) {
            (Kind::Struct, Wire::Bytes(bytes), _) => self.message(ty, bytes, depth),
            (Kind::Scalar(scalar), wire, _) => self.scalar(ty, scalar, wire, depth),
            // A list in a message of its own.
            (Kind::List(_), Wire::Bytes(bytes), Some(element)) => {
                let mut list = Vec::new();
                for field in Fields(bytes) {
                    if let (1, wire) = field? {
                        self.items(&mut list, element, wire, depth)?;
                    }
                }
                Ok(list.into())
            }
            _ => mistyped(&ty.go_type()),
        }
    }

    fn scalar(&self, ty: TypeRef<'_>, scalar: Scalar, wire: Wire<'_>, depth: usize) -> Result<Value, Error> {
        Ok(match (scalar, wire) {
            (Scalar::Bool, Wire::Varint(n)) => Value::Bool(n != 0),
            (Scalar::Int32, Wire::Varint(n)) => Value::Int(i64::from(n as i32)),
            (Scalar::Int64, Wire::Varint(n)) => Value::Int(n as i64),
            (Scalar::UInt8 | Scalar::UInt16 | Scalar::UInt32 | Scalar::UInt64, Wire::Varint(n)) => n.into(),
            (Scalar::Float64, Wire::Fixed64(n)) => float(f64::from_bits(n))?,
            (Scalar::Float64, Wire::Fixed32(n)) => float(f64::from(f32::from_bits(n)))?,
            (Scalar::String, Wire::Bytes(text)) => utf8(text)?.into(),
            (Scalar::Bytes, Wire::Bytes(bytes)) => STANDARD.encode(bytes).into(),
            (Scalar::Time, Wire::Bytes(bytes)) => instant(bytes)?.map_or(Value::Null, |t| time::seconds(t).into()),
            (Scalar::MicroTime, Wire::Bytes(bytes)) => instant(bytes)?.map_or(Value::Null, |t| time::micros(t).into()),
            (Scalar::Duration, Wire::Bytes(bytes)) => time::go_duration(number(bytes, 1)? as i64).into(),
            (Scalar::Quantity, Wire::Bytes(bytes)) => match text(bytes, 1)? {
                "" => "0".into(),
                text => text.into(),
            },
            (Scalar::IntOrString, Wire::Bytes(bytes)) => match number(bytes, 1)? {
                0 => Value::Int(i64::from(number(bytes, 2)? as i32)),
                _ => text(bytes, 3)?.into(),
            },
            (Scalar::Raw | Scalar::Json | Scalar::FieldsV1, Wire::Bytes(bytes)) => self.embedded(bytes, depth)?,
            (Scalar::SchemaOrBool, Wire::Bytes(bytes)) => match self.schemas(ty, bytes, 2, depth)?.pop() {
                Some(schema) => schema,
                None => Value::Bool(number(bytes, 1)? != 0),
            },
            (Scalar::SchemaOrArray, Wire::Bytes(bytes)) => match self.schemas(ty, bytes, 1, depth)?.pop() {
                Some(schema) => schema,
                None => self.schemas(ty, bytes, 2, depth)?.into(),
            },
            (Scalar::SchemaOrStrings, Wire::Bytes(bytes)) => match self.schemas(ty, bytes, 1, depth)?.pop() {
                Some(schema) => schema,
                None => texts(bytes, 2)?.into(),
            },
            _ => return mistyped(scalar.word()),
        })
    }

    /// JSON inside of protobuf, or another envelope.
    fn embedded(&self, bytes: &[u8], depth: usize) -> Result<Value, Error> {
        for field in Fields(bytes) {
            if let (1, Wire::Bytes(raw)) = field? {
                if raw.is_empty() {
                    break;
                }
                return if raw.starts_with(MAGIC) {
                    enveloped(raw, self.find, depth + 1)
                } else {
                    crate::parse(raw).map_err(|e| Error::Malformed(e.to_string()))
                };
            }
        }
        Ok(Value::Null)
    }

    /// The `JSONSchemaProps` under this number.
    fn schemas(&self, union: TypeRef<'_>, bytes: &[u8], wanted: u64, depth: usize) -> Result<Vec<Value>, Error> {
        let Some(ty) = union.schema().find(&format!("{}.JSONSchemaProps", union.package())) else {
            return malformed("JSONSchemaProps has no type");
        };
        let mut found = Vec::new();
        for field in Fields(bytes) {
            if let (number, Wire::Bytes(bytes)) = field?
                && number == wanted
            {
                found.push(self.message(ty, bytes, depth + 1)?);
            }
        }
        Ok(found)
    }
}

/// Whole numbers are integers in documents, as Go writes them in JSON.
fn float(f: f64) -> Result<Value, Error> {
    const EXACT: f64 = (1u64 << 53) as f64;
    match f {
        f if !f.is_finite() => malformed("a number is not finite"),
        f if f.fract() == 0.0 && f.abs() <= EXACT => Ok(Value::Int(f as i64)),
        f => Ok(Value::Float(f)),
    }
}

fn number(bytes: &[u8], wanted: u64) -> Result<u64, Error> {
    let mut found = 0;
    for field in Fields(bytes) {
        if let (number, Wire::Varint(n)) = field?
            && number == wanted
        {
            found = n;
        }
    }
    Ok(found)
}

fn texts(bytes: &[u8], wanted: u64) -> Result<Vec<&str>, Error> {
    let mut found = Vec::new();
    for field in Fields(bytes) {
        if let (number, Wire::Bytes(text)) = field?
            && number == wanted
        {
            found.push(utf8(text)?);
        }
    }
    Ok(found)
}

fn text(bytes: &[u8], wanted: u64) -> Result<&str, Error> {
    Ok(texts(bytes, wanted)?.pop().unwrap_or_default())
}

/// A point in time; Go's zero time is an empty message.
fn instant(bytes: &[u8]) -> Result<Option<Timestamp>, Error> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (seconds, nanos) = (number(bytes, 1)? as i64, number(bytes, 2)? as i32);
    Timestamp::new(seconds, nanos).map(Some).map_err(|e| Error::Malformed(e.to_string()))
}
