//! Values into messages, as Go's generated code writes them.
//!
//! Fields stand in the order of their numbers, map entries in that of their keys. A field that Go holds as a pointer, slice or
//! nil-able bytes is written when it is set; any other is always written. Invariant: what does not fit its type (nothing
//! that was pruned) is written as if it were not set; nothing fails.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::MAGIC;
use super::wire::Out;
use crate::schema::{FieldRef, Kind, Scalar, TypeRef};
use crate::time::{self, Timestamp};
use crate::{Map, Value};

/// The message of a document, without its envelope.
pub fn encode(ty: TypeRef<'_>, document: &Value) -> Vec<u8> {
    let mut out = Out::with_capacity(1024);
    structure(&mut out, ty, document);
    out.finish()
}

/// What stands before and after a message of this length in its envelope.
pub fn unknown(api_version: &str, kind: &str, len: usize) -> (Vec<u8>, &'static [u8]) {
    let mut out = Out::with_capacity(64);
    out.varint(len as u64);
    out.raw(&[2 << 3 | 2]);
    let before = out.len();
    out.bytes(2, kind.as_bytes());
    out.bytes(1, api_version.as_bytes());
    out.close(1, before);
    out.raw(MAGIC);
    // The content's encoding and type, which nobody sets.
    (out.finish(), &[3 << 3 | 2, 0, 4 << 3 | 2, 0])
}

/// A frame of a watch stream: its length in four bytes, then a `WatchEvent` with the enveloped object.
pub fn frame(event: &str, api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let (open, close) = unknown(api_version, kind, message.len());
    let mut out = Out::with_capacity(message.len() + open.len() + 64);
    out.raw(close);
    out.raw(message);
    out.raw(&open);
    out.close(1, 0);
    out.close(2, 0);
    out.bytes(1, event.as_bytes());
    out.raw(&(out.len() as u32).to_be_bytes());
    out.finish()
}

/// What stands before a field's content of this length.
pub fn list_part(number: u16, len: usize) -> Vec<u8> {
    let mut out = Out::with_capacity(16);
    out.varint(len as u64);
    out.varint(u64::from(number) << 3 | 2);
    out.finish()
}

fn structure(out: &mut Out, ty: TypeRef<'_>, value: &Value) {
    static NONE: Map = Map::new();
    let map = value.as_object().unwrap_or(&NONE);
    for field in ty.declared_fields().rev().take_while(|f| f.number() > 0) {
        if field.is_inline() {
            let before = out.len();
            structure(out, field.ty(), value);
            out.close(field.number(), before);
        } else {
            self::field(out, field, map.get(field.name()).filter(|v| !v.is_null()));
        }
    }
}

fn field(out: &mut Out, field: FieldRef<'_>, value: Option<&Value>) {
    let (number, ty) = (field.number(), field.ty());
    match (ty.kind(), value) {
        (Kind::List(_), Some(Value::Array(items))) if !ty.is_wrapped() => {
            if let Some(element) = ty.element() {
                items.iter().rev().for_each(|item| one(out, number, element, item));
            }
        }
        (Kind::Map, Some(Value::Object(map))) => {
            let Some(element) = ty.element() else { return };
            for (key, value) in map.iter().rev() {
                let before = out.len();
                one(out, 2, element, value);
                out.bytes(1, key.as_bytes());
                out.close(number, before);
            }
        }
        (Kind::List(_), Some(list)) if ty.is_wrapped() => one(out, number, ty, list),
        (Kind::Struct | Kind::Scalar(_), Some(value)) => one(out, number, ty, value),
        (Kind::Struct | Kind::Scalar(_), None) if !field.is_pointer() => one(out, number, ty, &Value::Null),
        _ => {}
    }
}

/// A field that stands once; null is Go's zero.
fn one(out: &mut Out, number: u16, ty: TypeRef<'_>, value: &Value) {
    let before = out.len();
    match (ty.kind(), ty.element()) {
        (Kind::Struct, _) => structure(out, ty, value),
        (Kind::List(_), Some(element)) => {
            value.as_array().into_iter().flatten().rev().for_each(|item| one(out, 1, element, item));
        }
        (Kind::Scalar(Scalar::String), _) => out.raw(value.as_str().unwrap_or_default().as_bytes()),
        (Kind::Scalar(Scalar::Bytes), _) => match value.as_str().and_then(|text| STANDARD.decode(text).ok()) {
            Some(bytes) => out.raw(&bytes),
            None => return,
        },
        (Kind::Scalar(Scalar::Bool), _) => return out.number(number, u64::from(value.as_bool() == Some(true))),
        (Kind::Scalar(Scalar::Float64), _) => {
            return out.fixed64(number, value.as_f64().unwrap_or_default().to_bits());
        }
        (
            Kind::Scalar(
                Scalar::Int32 | Scalar::Int64 | Scalar::UInt8 | Scalar::UInt16 | Scalar::UInt32 | Scalar::UInt64,
            ),
            _,
        ) => return out.number(number, value.as_i64().unwrap_or_default() as u64),
        (Kind::Scalar(scalar), _) => special(out, ty, scalar, value),
        _ => return,
    }
    out.close(number, before);
}

/// The content of the types that read and write their own JSON; each is a message.
fn special(out: &mut Out, ty: TypeRef<'_>, scalar: Scalar, value: &Value) {
    match scalar {
        // Compat: only whole seconds and microseconds are written; the zero time is an empty message.
        Scalar::Time => instant(out, value, |_| 0),
        Scalar::MicroTime => instant(out, value, |t| t.subsec_nanosecond() / 1000 * 1000),
        Scalar::Duration => {
            let nanos = value.as_str().and_then(time::parse_go_duration).unwrap_or_default();
            out.number(1, nanos as u64);
        }
        Scalar::Quantity => out.bytes(1, value.as_str().unwrap_or("0").as_bytes()),
        Scalar::IntOrString => {
            out.bytes(3, value.as_str().unwrap_or_default().as_bytes());
            out.number(2, value.as_i64().unwrap_or_default() as u64);
            out.number(1, u64::from(value.as_str().is_some()));
        }
        Scalar::Raw | Scalar::Json | Scalar::FieldsV1 if !value.is_null() => out.bytes(1, &value.to_vec()),
        Scalar::SchemaOrBool | Scalar::SchemaOrArray | Scalar::SchemaOrStrings => union(out, ty, scalar, value),
        _ => {}
    }
}

fn instant(out: &mut Out, value: &Value, nanos: fn(Timestamp) -> i32) {
    if let Some(t) = value.as_str().and_then(time::parse) {
        // Before 1970 the parts of a second are counted back; Go counts them from the second before.
        let (seconds, nanos) = (t.as_second(), nanos(t));
        let (seconds, nanos) = if nanos < 0 { (seconds - 1, nanos + 1_000_000_000) } else { (seconds, nanos) };
        out.number(2, nanos as u64);
        out.number(1, seconds as u64);
    }
}

fn union(out: &mut Out, ty: TypeRef<'_>, scalar: Scalar, value: &Value) {
    let Some(props) = ty.schema().find(&format!("{}.JSONSchemaProps", ty.package())) else { return };
    let is_bool = scalar == Scalar::SchemaOrBool;
    match value {
        Value::Object(_) => one(out, if is_bool { 2 } else { 1 }, props, value),
        Value::Array(items) if scalar == Scalar::SchemaOrArray => {
            items.iter().rev().for_each(|item| one(out, 2, props, item));
        }
        Value::Array(items) => {
            items.iter().rev().filter_map(Value::as_str).for_each(|text| out.bytes(2, text.as_bytes()));
        }
        _ => {}
    }
    if is_bool {
        out.number(1, u64::from(!matches!(value, Value::Bool(false))));
    }
}
