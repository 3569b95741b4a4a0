//! Reads protobuf bodies into documents, by the schema table. Go clients send their objects so.
//!
//! Source: the envelope `k8s\0` + `runtime.Unknown` (API concepts, "Protobuf encoding"), field numbers from the table.
//! Invariants: input of any bytes gives a document or an error; nesting is bounded; unknown fields are skipped.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use meta::schema::{FieldRef, Kind, Scalar, TypeRef};
use meta::time::{self, Timestamp};
use meta::{Map, Value};

const MAGIC: &[u8] = b"k8s\0";
const MAX_DEPTH: usize = 64;
const SCHEMA_PROPS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

/// A document with the apiVersion and kind of its envelope.
pub fn decode(body: &[u8]) -> Result<Value, String> {
    let rest = body
        .strip_prefix(MAGIC)
        .ok_or("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Fields(rest) {
        match field? {
            (1, Wire::Bytes(meta)) => {
                for field in Fields(meta) {
                    match field? {
                        (1, Wire::Bytes(text)) => api_version = utf8(text)?,
                        (2, Wire::Bytes(text)) => kind = utf8(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let ty = api::resource::root_type(group, version, &kind)
        .ok_or_else(|| format!("no kind {kind:?} is registered for version {api_version:?}"))?;
    let mut document = message(ty, raw, 0)?;
    document.set(&["apiVersion"], api_version);
    document.set(&["kind"], kind);
    Ok(document)
}

#[derive(Clone, Copy)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// The fields of a message, in their order.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
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
        Some((tag >> 3, wire))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Wire<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or_else(|| "proto: unexpected EOF or illegal tag".to_string()))
    }
}

fn utf8(bytes: &[u8]) -> Result<String, String> {
    std::str::from_utf8(bytes).map(str::to_string).map_err(|_| "proto: a string is not valid UTF-8".to_string())
}

fn message(ty: TypeRef<'static>, bytes: &[u8], depth: usize) -> Result<Value, String> {
    if depth > MAX_DEPTH {
        return Err(format!("proto: exceeded max depth of {MAX_DEPTH}"));
    }
    let mut out = Value::object();
    for field in Fields(bytes) {
        let (number, wire) = field?;
        let Some(field) = ty.declared_fields().find(|f| u64::from(f.number()) == number && number != 0) else {
            continue;
        };
        add(&mut out, field, wire, depth)?;
    }
    Ok(out)
}

fn add(out: &mut Value, field: FieldRef<'static>, wire: Wire<'_>, depth: usize) -> Result<(), String> {
    let ty = field.ty();
    let out = out.make_object();
    if field.is_inline() {
        if let Value::Object(inner) = value(ty, wire, depth + 1)? {
            for (key, value) in inner {
                out.insert(key, value);
            }
        }
        return Ok(());
    }
    match ty.kind() {
        Kind::List(_) if ty.is_wrapped() => {
            let Wire::Bytes(bytes) = wire else { return Err(mistyped(field)) };
            let list = out.get_or_insert_with(field.name(), || Value::Array(Vec::new())).make_array();
            let element = ty.element().ok_or_else(|| mistyped(field))?;
            for item in Fields(bytes) {
                if let (1, wire) = item? {
                    items(list, element, wire, depth)?;
                }
            }
        }
        Kind::List(_) => {
            let element = ty.element().ok_or_else(|| mistyped(field))?;
            let list = out.get_or_insert_with(field.name(), || Value::Array(Vec::new())).make_array();
            items(list, element, wire, depth)?;
        }
        Kind::Map => {
            let Wire::Bytes(bytes) = wire else { return Err(mistyped(field)) };
            let element = ty.element().ok_or_else(|| mistyped(field))?;
            let (mut key, mut found) = (String::new(), None);
            for part in Fields(bytes) {
                match part? {
                    (1, Wire::Bytes(text)) => key = utf8(text)?,
                    (2, wire) => found = Some(map_value(element, wire, depth)?),
                    _ => {}
                }
            }
            let entry = match found {
                Some(found) => found,
                None => element.zero(),
            };
            out.get_or_insert_with(field.name(), || Value::Object(Map::new())).make_object().insert(key, entry);
        }
        _ => {
            let value = value(ty, wire, depth + 1)?;
            out.insert(field.name(), value);
        }
    }
    Ok(())
}

/// A map's value, which may be a list in a message of its own.
fn map_value(element: TypeRef<'static>, wire: Wire<'_>, depth: usize) -> Result<Value, String> {
    if !matches!(element.kind(), Kind::List(_)) {
        return value(element, wire, depth + 1);
    }
    let (Wire::Bytes(bytes), Some(item)) = (wire, element.element()) else {
        return Err("proto: a list is no message".into());
    };
    let mut list = Vec::new();
    for field in Fields(bytes) {
        if let (1, wire) = field? {
            items(&mut list, item, wire, depth)?;
        }
    }
    Ok(list.into())
}

fn mistyped(field: FieldRef<'_>) -> String {
    format!("proto: wrong wire type for field {}", field.name())
}

/// One item of a list, or a packed run of numbers.
fn items(list: &mut Vec<Value>, element: TypeRef<'static>, wire: Wire<'_>, depth: usize) -> Result<(), String> {
    use Scalar::{Bool, Int32, Int64, UInt8, UInt16, UInt32, UInt64};
    let packable = matches!(element.kind(), Kind::Scalar(Bool | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64));
    if let (true, Wire::Bytes(packed)) = (packable, wire) {
        let mut numbers = Fields(packed);
        while !numbers.0.is_empty() {
            let number = numbers.varint().ok_or("proto: unexpected EOF")?;
            list.push(value(element, Wire::Varint(number), depth)?);
        }
        return Ok(());
    }
    list.push(value(element, wire, depth + 1)?);
    Ok(())
}

fn value(ty: TypeRef<'static>, wire: Wire<'_>, depth: usize) -> Result<Value, String> {
    match (ty.kind(), wire) {
        (Kind::Struct, Wire::Bytes(bytes)) => message(ty, bytes, depth),
        (Kind::Scalar(scalar), wire) => self::scalar(scalar, wire, depth),
        _ => Err(format!("proto: wrong wire type for {}", ty.go_type())),
    }
}

fn scalar(scalar: Scalar, wire: Wire<'_>, depth: usize) -> Result<Value, String> {
    Ok(match (scalar, wire) {
        (Scalar::Bool, Wire::Varint(n)) => Value::Bool(n != 0),
        (Scalar::Int32, Wire::Varint(n)) => Value::Int(i64::from(n as i32)),
        (Scalar::Int64, Wire::Varint(n)) => Value::Int(n as i64),
        (Scalar::UInt8 | Scalar::UInt16 | Scalar::UInt32 | Scalar::UInt64, Wire::Varint(n)) => n.into(),
        (Scalar::Float64, Wire::Fixed64(n)) => Value::Float(f64::from_bits(n)),
        (Scalar::Float64, Wire::Fixed32(n)) => Value::Float(f64::from(f32::from_bits(n))),
        (Scalar::String, Wire::Bytes(text)) => utf8(text)?.into(),
        (Scalar::Bytes, Wire::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        (Scalar::Time, Wire::Bytes(bytes)) => instant(bytes)?.map_or(Value::Null, |t| time::seconds(t).into()),
        (Scalar::MicroTime, Wire::Bytes(bytes)) => instant(bytes)?.map_or(Value::Null, |t| time::micros(t).into()),
        (Scalar::Duration, Wire::Bytes(bytes)) => go_duration(number(bytes, 1)? as i64).into(),
        (Scalar::Quantity, Wire::Bytes(bytes)) => match text(bytes, 1)? {
            empty if empty.is_empty() => "0".into(),
            text => text.into(),
        },
        (Scalar::IntOrString, Wire::Bytes(bytes)) => match number(bytes, 1)? {
            0 => Value::Int(i64::from(number(bytes, 2)? as i32)),
            _ => text(bytes, 3)?.into(),
        },
        (Scalar::Raw | Scalar::Json | Scalar::FieldsV1, Wire::Bytes(bytes)) => embedded(bytes)?,
        (Scalar::SchemaOrBool, Wire::Bytes(bytes)) => match schema(bytes, 2, depth)? {
            Some(schema) => schema,
            None => Value::Bool(number(bytes, 1)? != 0),
        },
        (Scalar::SchemaOrArray, Wire::Bytes(bytes)) => match schema(bytes, 1, depth)? {
            Some(schema) => schema,
            None => schemas(bytes, 2, depth)?.into(),
        },
        (Scalar::SchemaOrStrings, Wire::Bytes(bytes)) => match schema(bytes, 1, depth)? {
            Some(schema) => schema,
            None => texts(bytes, 2)?.into(),
        },
        _ => return Err(format!("proto: wrong wire type for {}", scalar.word())),
    })
}

fn number(bytes: &[u8], wanted: u64) -> Result<u64, String> {
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

fn texts(bytes: &[u8], wanted: u64) -> Result<Vec<String>, String> {
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

fn text(bytes: &[u8], wanted: u64) -> Result<String, String> {
    Ok(texts(bytes, wanted)?.pop().unwrap_or_default())
}

/// A point in time; `None` for Go's zero time.
fn instant(bytes: &[u8]) -> Result<Option<Timestamp>, String> {
    let (seconds, nanos) = (number(bytes, 1)? as i64, number(bytes, 2)? as i32);
    if seconds == 0 && nanos == 0 {
        return Ok(None);
    }
    Timestamp::new(seconds, nanos).map(Some).map_err(|e| format!("proto: {e}"))
}

/// JSON inside of protobuf.
fn embedded(bytes: &[u8]) -> Result<Value, String> {
    for field in Fields(bytes) {
        if let (1, Wire::Bytes(raw)) = field? {
            return if raw.starts_with(MAGIC) { decode(raw) } else { meta::parse(raw).map_err(|e| e.to_string()) };
        }
    }
    Ok(Value::Null)
}

fn schemas(bytes: &[u8], wanted: u64, depth: usize) -> Result<Vec<Value>, String> {
    let ty = api::schema().find(SCHEMA_PROPS).ok_or("proto: JSONSchemaProps has no type")?;
    let mut found = Vec::new();
    for field in Fields(bytes) {
        if let (number, Wire::Bytes(bytes)) = field?
            && number == wanted
        {
            found.push(message(ty, bytes, depth + 1)?);
        }
    }
    Ok(found)
}

fn schema(bytes: &[u8], wanted: u64, depth: usize) -> Result<Option<Value>, String> {
    Ok(schemas(bytes, wanted, depth)?.pop())
}

/// A duration as Go prints it: `1h2m3.5s`.
fn go_duration(nanos: i64) -> String {
    if nanos == 0 {
        return "0s".into();
    }
    let sign = if nanos < 0 { "-" } else { "" };
    let all = nanos.unsigned_abs();
    let small = |unit: u64, name: &str| format!("{sign}{}{name}", all as f64 / unit as f64);
    match all {
        n if n < 1_000 => return format!("{sign}{n}ns"),
        n if n < 1_000_000 => return small(1_000, "µs"),
        n if n < 1_000_000_000 => return small(1_000_000, "ms"),
        _ => {}
    }
    let (hours, minutes) = (all / 3_600_000_000_000, all / 60_000_000_000 % 60);
    let seconds = (all % 60_000_000_000) as f64 / 1e9;
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, m) => format!("{sign}{m}m{seconds}s"),
        (h, m) => format!("{sign}{h}h{m}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, bytes.len() as u8];
        out.extend_from_slice(bytes);
        out
    }

    fn envelope(kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &meta), field(2, raw)].concat()
    }

    #[test]
    fn a_config_map_is_read() {
        let metadata = [field(1, b"n"), field(3, b"ns"), field(8, &[8, 100])].concat();
        let entry = [field(1, b"k"), field(2, b"v")].concat();
        let body = envelope("ConfigMap", &[field(1, &metadata), field(2, &entry)].concat());
        assert_eq!(
            decode(&body).expect("decoded").to_string(),
            r#"{"apiVersion":"v1","data":{"k":"v"},"kind":"ConfigMap","metadata":{"creationTimestamp":"1970-01-01T00:01:40Z","name":"n","namespace":"ns"}}"#
        );
    }

    #[test]
    fn any_bytes_are_survived() {
        let metadata = field(1, b"name");
        let body = envelope("ConfigMap", &field(1, &metadata));
        for cut in 0..body.len() {
            let _ = decode(&body[..cut]);
            let mut changed = body.clone();
            changed[cut] ^= 0x85;
            let _ = decode(&changed);
        }
        assert!(decode(b"{}").is_err());
        assert!(decode(&envelope("Nothing", b"")).is_err());
    }

    #[test]
    fn durations_as_go_prints_them() {
        for (nanos, text) in [
            (0, "0s"),
            (1_500_000, "1.5ms"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (-2_500_000_000, "-2.5s"),
        ] {
            assert_eq!(go_duration(nanos), text);
        }
    }
}
