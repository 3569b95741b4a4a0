//! The OpenAPI v2 document in protobuf, the only form in which kubectl takes it.
//!
//! Pure: the JSON document in, bytes out, by tables of the messages' fields. Source: OpenAPIv2.proto of gnostic-models.
//! Invariant: nothing of the document is left out (a test looks at every member); members `x-...` are extensions, whose
//! values are YAML text, of which JSON is a part.

use meta::{Map, Value};

/// The document of [`super::v2`] as a gnostic `Document`.
pub fn v2(document: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    message(&DOCUMENT, document, &mut out);
    out
}

/// How the members of a JSON object are written.
struct Message {
    /// Member, field number, type.
    fields: &'static [(&'static str, u32, Type)],
    /// Field number of what the table does not name, as `NamedAny`.
    extensions: u32,
}

#[derive(Clone, Copy)]
enum Type {
    Text,
    Bool,
    Int,
    Double,
    /// An `Any`: YAML text.
    Any,
    /// As many of them as there are values.
    Anys,
    One(&'static Message),
    /// A message with a field for each kind of value: which one is told by the function.
    Choice(fn(&Value) -> (&'static [u32], Type)),
    /// A message whose field 1 is this, as often as there are values (or once, for a value that is no list).
    Within(u32, &'static Type),
    /// A message whose field of this number holds pairs of name (1) and value (2).
    Named(u32, &'static Type),
}
use Type::{Any, Anys, Bool, Choice, Double, Int, Named, One, Text, Within};

static DOCUMENT: Message = Message {
    fields: &[
        ("swagger", 1, Text),
        ("info", 2, One(&INFO)),
        ("paths", 8, Named(2, &One(&PATH_ITEM))),
        ("definitions", 9, Named(1, &One(&SCHEMA))),
        ("security", 12, Named(1, &Within(1, &Text))),
        ("securityDefinitions", 13, Named(1, &Within(2, &One(&API_KEY)))),
    ],
    extensions: 16,
};

static INFO: Message =
    Message { fields: &[("title", 1, Text), ("version", 2, Text), ("description", 3, Text)], extensions: 7 };

static API_KEY: Message = Message {
    fields: &[("type", 1, Text), ("name", 2, Text), ("in", 3, Text), ("description", 4, Text)],
    extensions: 5,
};

static PATH_ITEM: Message = Message {
    fields: &[
        ("get", 2, One(&OPERATION)),
        ("put", 3, One(&OPERATION)),
        ("post", 4, One(&OPERATION)),
        ("delete", 5, One(&OPERATION)),
        ("options", 6, One(&OPERATION)),
        ("head", 7, One(&OPERATION)),
        ("patch", 8, One(&OPERATION)),
        ("parameters", 9, Choice(parameter)),
    ],
    extensions: 10,
};

static OPERATION: Message = Message {
    fields: &[
        ("tags", 1, Text),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("operationId", 5, Text),
        ("produces", 6, Text),
        ("consumes", 7, Text),
        ("parameters", 8, Choice(parameter)),
        ("responses", 9, Named(1, &Within(1, &One(&RESPONSE)))),
        ("schemes", 10, Text),
        ("deprecated", 11, Bool),
    ],
    extensions: 13,
};

static RESPONSE: Message =
    Message { fields: &[("description", 1, Text), ("schema", 2, Within(1, &One(&SCHEMA)))], extensions: 5 };

/// A ParametersItem, by where the parameter stands.
fn parameter(value: &Value) -> (&'static [u32], Type) {
    match (value.get("$ref"), value.str_at(&["in"])) {
        (Some(_), _) => (&[2], One(&REFERENCE)),
        (_, Some("body")) => (&[1, 1], One(&BODY_PARAMETER)),
        (_, Some("header")) => (&[1, 2, 1], One(&OTHER_PARAMETER)),
        (_, Some("path")) => (&[1, 2, 4], One(&OTHER_PARAMETER)),
        _ => (&[1, 2, 3], One(&QUERY_PARAMETER)),
    }
}

static REFERENCE: Message = Message { fields: &[("$ref", 1, Text), ("description", 2, Text)], extensions: 0 };

static BODY_PARAMETER: Message = Message {
    fields: &[
        ("description", 1, Text),
        ("name", 2, Text),
        ("in", 3, Text),
        ("required", 4, Bool),
        ("schema", 5, One(&SCHEMA)),
    ],
    extensions: 6,
};

static QUERY_PARAMETER: Message = Message {
    fields: &[
        ("required", 1, Bool),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("type", 6, Text),
        ("format", 7, Text),
        ("default", 10, Any),
        ("uniqueItems", 20, Bool),
    ],
    extensions: 23,
};

static OTHER_PARAMETER: Message = Message {
    fields: &[
        ("required", 1, Bool),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("type", 5, Text),
        ("format", 6, Text),
        ("default", 9, Any),
        ("uniqueItems", 19, Bool),
    ],
    extensions: 22,
};

static SCHEMA: Message = Message {
    fields: &[
        ("$ref", 1, Text),
        ("format", 2, Text),
        ("title", 3, Text),
        ("description", 4, Text),
        ("default", 5, Any),
        ("multipleOf", 6, Double),
        ("maximum", 7, Double),
        ("exclusiveMaximum", 8, Bool),
        ("minimum", 9, Double),
        ("exclusiveMinimum", 10, Bool),
        ("maxLength", 11, Int),
        ("minLength", 12, Int),
        ("pattern", 13, Text),
        ("maxItems", 14, Int),
        ("minItems", 15, Int),
        ("uniqueItems", 16, Bool),
        ("maxProperties", 17, Int),
        ("minProperties", 18, Int),
        ("required", 19, Text),
        ("enum", 20, Anys),
        ("additionalProperties", 21, Choice(additional)),
        ("type", 22, Within(1, &Text)),
        ("items", 23, Within(1, &One(&SCHEMA))),
        ("allOf", 24, One(&SCHEMA)),
        ("properties", 25, Named(1, &One(&SCHEMA))),
        ("readOnly", 27, Bool),
        ("example", 30, Any),
    ],
    extensions: 31,
};

fn additional(value: &Value) -> (&'static [u32], Type) {
    if value.as_bool().is_some() { (&[2], Bool) } else { (&[1], One(&SCHEMA)) }
}

fn message(table: &Message, value: &Value, out: &mut Vec<u8>) {
    for (name, value) in value.as_object().into_iter().flat_map(Map::iter) {
        match table.fields.iter().find(|(field, ..)| *field == name) {
            Some((_, number, ty)) => field(*number, *ty, value, out),
            None => {
                let mut named = Vec::new();
                text(1, name, &mut named);
                field(2, Any, value, &mut named);
                bytes(table.extensions, &named, out);
            }
        }
    }
}

/// A member; a list of values is the field repeated.
fn field(number: u32, ty: Type, value: &Value, out: &mut Vec<u8>) {
    if let (Value::Array(items), true) = (value, repeats(ty)) {
        items.iter().for_each(|item| field(number, ty, item, out));
        return;
    }
    let mut inner = Vec::new();
    match ty {
        Text => return text(number, value.as_str().unwrap_or_default(), out),
        Bool => return varint(number, value.as_bool().unwrap_or_default().into(), out),
        Int => return varint(number, value.as_i64().unwrap_or_default() as u64, out),
        Double => {
            tag(number, 1, out);
            return out.extend(value.as_f64().unwrap_or_default().to_le_bytes());
        }
        Any | Anys => text(2, &value.to_string(), &mut inner),
        One(table) => message(table, value, &mut inner),
        Choice(which) => {
            let (path, ty) = which(value);
            nested(path, ty, value, &mut inner);
        }
        Within(own, ty) => field(own, *ty, value, &mut inner),
        Named(own, ty) => {
            for (name, value) in value.as_object().into_iter().flat_map(Map::iter) {
                let mut named = Vec::new();
                text(1, name, &mut named);
                field(2, *ty, value, &mut named);
                bytes(own, &named, &mut inner);
            }
        }
    }
    bytes(number, &inner, out);
}

/// Whether a list means one field for each item; within a message of its own it is that message's field that repeats.
fn repeats(ty: Type) -> bool {
    matches!(ty, Text | One(_) | Choice(_) | Named(..) | Anys)
}

/// A value below several messages that each hold nothing else.
fn nested(path: &[u32], ty: Type, value: &Value, out: &mut Vec<u8>) {
    match path {
        [] => {}
        [last] => field(*last, ty, value, out),
        [first, rest @ ..] => {
            let mut inner = Vec::new();
            nested(rest, ty, value, &mut inner);
            bytes(*first, &inner, out);
        }
    }
}

fn tag(number: u32, wire: u32, out: &mut Vec<u8>) {
    raw(u64::from(number << 3 | wire), out);
}

fn varint(number: u32, value: u64, out: &mut Vec<u8>) {
    tag(number, 0, out);
    raw(value, out);
}

fn text(number: u32, value: &str, out: &mut Vec<u8>) {
    bytes(number, value.as_bytes(), out);
}

fn bytes(number: u32, value: &[u8], out: &mut Vec<u8>) {
    tag(number, 2, out);
    raw(value.len() as u64, out);
    out.extend_from_slice(value);
}

fn raw(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::json;

    #[test]
    fn bytes_of_a_small_document() {
        let document = json!({
            "swagger": "2.0",
            "definitions": {"T": {"type": "object", "x-a": ["b"], "properties": {"p": {"$ref": "#/r"}}, "required": ["p", "q"]}},
            "security": [{"S": []}],
        });
        let shown: String = v2(&document)
            .iter()
            .map(|b| if b.is_ascii_graphic() { char::from(*b).to_string() } else { format!("\\{b:02x}") })
            .collect();
        // definitions{1: {1: T, 2: {25: {1: {1: p, 2: {1: #/r}}}, 19: p, 19: q, 22: {1: object}, 31: {1: x-a, 2: {2: ["b"]}}}}}
        assert_eq!(
            shown,
            "J:\\0a8\\0a\\01T\\123\\ca\\01\\0c\\0a\\0a\\0a\\01p\\12\\05\\0a\\03#/r\\9a\\01\\01p\\9a\\01\\01q\\b2\\01\\08\\0a\\06object\\fa\\01\\0e\\0a\\03x-a\\12\\07\\12\\05[\"b\"]\
             b\\07\\0a\\05\\0a\\01S\\12\\00\\0a\\032.0"
        );
    }

    /// Every member of the whole document is either in its message's table or an extension.
    #[test]
    fn nothing_is_left_out() {
        fn check(table: &Message, value: &Value) {
            for (name, value) in value.as_object().into_iter().flat_map(Map::iter) {
                match table.fields.iter().find(|(field, ..)| *field == name) {
                    Some((_, _, ty)) => descend(*ty, value),
                    None => assert!(name.starts_with("x-") && table.extensions > 0, "{name} is written nowhere"),
                }
            }
        }
        fn descend(ty: Type, value: &Value) {
            if let (Value::Array(items), true) = (value, repeats(ty)) {
                return items.iter().for_each(|item| descend(ty, item));
            }
            match ty {
                Text => assert!(value.as_str().is_some(), "{value}"),
                Bool => assert!(value.as_bool().is_some(), "{value}"),
                Int => assert!(value.as_i64().is_some(), "{value}"),
                Double => assert!(value.as_f64().is_some(), "{value}"),
                Any | Anys => {}
                One(table) => check(table, value),
                Choice(which) => descend(which(value).1, value),
                Within(_, ty) => descend(*ty, value),
                Named(_, ty) => value.as_object().into_iter().flat_map(Map::iter).for_each(|(_, v)| descend(*ty, v)),
            }
        }
        let document = super::super::v2(crate::resource::all(), &super::super::Docs::default());
        check(&DOCUMENT, &meta::parse(&document).expect("JSON"));
    }
}
