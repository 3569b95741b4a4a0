//! The OpenAPI v2 document in protobuf, the only form in which kubectl takes it.
//!
//! Pure: the JSON document in, bytes out, by tables of the messages' fields. Source: OpenAPIv2.proto of gnostic-models.
//! Invariant: nothing of the document is left out (a test looks at every member); members `x-...` are extensions, whose
//! values are YAML text, of which JSON is a part.

use meta::{Map, Value};
use std::collections::HashMap;
use std::str::SplitWhitespace;
use std::sync::LazyLock;

/// The document of [`super::v2`] as a gnostic `Document`.
pub fn v2(document: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    message(&MESSAGES["Document"], document, &mut out);
    out
}

/// How the members of a JSON object are written: their field numbers and types.
struct Message {
    fields: HashMap<&'static str, (u32, Type)>,
    /// Field number of what the table does not name, as `NamedAny`.
    extensions: u32,
}

enum Type {
    Text,
    Bool,
    Int,
    Double,
    /// An `Any`: YAML text.
    Any,
    /// As many of them as there are values.
    Anys,
    /// The message of this name.
    One(&'static str),
    /// A message with a field for each kind of value: which one is told by the function.
    Choice(fn(&Value) -> (&'static [u32], Type)),
    /// A message whose field 1 is this, as often as there are values (or once, for a value that is no list).
    Within(u32, Box<Type>),
    /// A message whose field of this number holds pairs of name (1) and value (2).
    Named(u32, Box<Type>),
}
use Type::{Any, Anys, Bool, Choice, Double, Int, Named, One, Text, Within};

static MESSAGES: LazyLock<HashMap<&'static str, Message>> = LazyLock::new(|| {
    let mut all = HashMap::new();
    for block in include_str!("../data/openapi_v2.txt").split("\n\n").skip(1) {
        let mut lines = block.lines();
        let (name, extensions) = lines.next().and_then(|l| l.split_once(' ')).expect("NAME EXTENSIONS");
        let fields = lines.map(|line| {
            let mut words = line.split_whitespace();
            let (member, number) = (words.next().expect("a member"), number(&mut words));
            (member, (number, read(&mut words)))
        });
        all.insert(name, Message { fields: fields.collect(), extensions: extensions.parse().expect("a number") });
    }
    all
});

fn number(words: &mut SplitWhitespace<'static>) -> u32 {
    words.next().and_then(|word| word.parse().ok()).expect("a number")
}

fn read(words: &mut SplitWhitespace<'static>) -> Type {
    match words.next().expect("a type") {
        "Text" => Text,
        "Bool" => Bool,
        "Int" => Int,
        "Double" => Double,
        "Any" => Any,
        "Anys" => Anys,
        "Parameter" => Choice(parameter),
        "Additional" => Choice(additional),
        "Within" => Within(number(words), read(words).into()),
        "Named" => Named(number(words), read(words).into()),
        message => One(message),
    }
}

/// A ParametersItem, by where the parameter stands.
fn parameter(value: &Value) -> (&'static [u32], Type) {
    match (value.get("$ref"), value.str_at(&["in"])) {
        (Some(_), _) => (&[2], One("Reference")),
        (_, Some("body")) => (&[1, 1], One("BodyParameter")),
        (_, Some("header")) => (&[1, 2, 1], One("OtherParameter")),
        (_, Some("path")) => (&[1, 2, 4], One("OtherParameter")),
        _ => (&[1, 2, 3], One("QueryParameter")),
    }
}

fn additional(value: &Value) -> (&'static [u32], Type) {
    if value.as_bool().is_some() { (&[2], Bool) } else { (&[1], One("Schema")) }
}

fn message(table: &Message, value: &Value, out: &mut Vec<u8>) {
    for (name, value) in value.as_object().into_iter().flat_map(Map::iter) {
        match table.fields.get(name) {
            Some((number, ty)) => field(*number, ty, value, out),
            None => {
                let mut named = Vec::new();
                text(1, name, &mut named);
                field(2, &Any, value, &mut named);
                bytes(table.extensions, &named, out);
            }
        }
    }
}

/// A member; a list of values is the field repeated.
fn field(number: u32, ty: &Type, value: &Value, out: &mut Vec<u8>) {
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
        One(name) => message(&MESSAGES[name], value, &mut inner),
        Choice(which) => {
            let (path, ty) = which(value);
            nested(path, &ty, value, &mut inner);
        }
        Within(own, ty) => field(*own, ty, value, &mut inner),
        Named(own, ty) => {
            for (name, value) in value.as_object().into_iter().flat_map(Map::iter) {
                let mut named = Vec::new();
                text(1, name, &mut named);
                field(2, ty, value, &mut named);
                bytes(*own, &named, &mut inner);
            }
        }
    }
    bytes(number, &inner, out);
}

/// Whether a list means one field for each item; within a message of its own it is that message's field that repeats.
fn repeats(ty: &Type) -> bool {
    matches!(ty, Text | One(_) | Choice(_) | Named(..) | Anys)
}

/// A value below several messages that each hold nothing else.
fn nested(path: &[u32], ty: &Type, value: &Value, out: &mut Vec<u8>) {
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
                match table.fields.get(name) {
                    Some((_, ty)) => descend(ty, value),
                    None => assert!(name.starts_with("x-") && table.extensions > 0, "{name} is written nowhere"),
                }
            }
        }
        fn descend(ty: &Type, value: &Value) {
            if let (Value::Array(items), true) = (value, repeats(ty)) {
                return items.iter().for_each(|item| descend(ty, item));
            }
            match ty {
                Text => assert!(value.as_str().is_some(), "{value}"),
                Bool => assert!(value.as_bool().is_some(), "{value}"),
                Int => assert!(value.as_i64().is_some(), "{value}"),
                Double => assert!(value.as_f64().is_some(), "{value}"),
                Any | Anys => {}
                One(name) => check(&MESSAGES[name], value),
                Choice(which) => descend(&which(value).1, value),
                Within(_, ty) => descend(ty, value),
                Named(_, ty) => value.as_object().into_iter().flat_map(Map::iter).for_each(|(_, v)| descend(ty, v)),
            }
        }
        let document = super::super::v2(crate::resource::all(), &super::super::Docs::default());
        check(&MESSAGES["Document"], &meta::parse(&document).expect("JSON"));
    }
}
