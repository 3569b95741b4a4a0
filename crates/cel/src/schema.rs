//! Declarations: the type of a variable together with what a schema says beyond it: sizes (for cost estimates), how
//! text is read (dates, durations, bytes), which lists are sets or maps. Made from OpenAPI v3 schemas.
//! Invariant: fields that CEL cannot reach (unknown type, unspeakable name) are in no declaration.

use crate::types::Type;
use meta::Value;
use std::sync::Arc;

/// Bytes of a request: bounds what no schema bounds. Source: apiserver's limit of request bodies, 3 MiB.
pub const REQUEST_BYTES_MAX: u64 = 3 * 1024 * 1024;
/// What a schema may nest; deeper parts cannot be reached.
const NESTING_MAX: u32 = 64;

#[derive(Clone, Debug)]
pub struct Decl {
    pub shape: Shape,
    /// the most characters, bytes, elements or entries that a request can carry; 0 for what has no size
    pub size_max: u64,
    /// the fewest bytes of its JSON
    pub bytes_min: u64,
}

#[derive(Clone, Debug)]
pub enum Shape {
    Scalar(Type),
    List(Arc<Decl>, ListKind),
    Map(Arc<Decl>),
    Object(Arc<Object>),
}

/// `x-kubernetes-list-type`: what `==` and `+` mean.
#[derive(Clone, Debug, PartialEq)]
pub enum ListKind {
    Atomic,
    Set,
    Map(Vec<String>),
}

#[derive(Debug)]
pub struct Object {
    pub name: String,
    /// sorted by `json`
    pub fields: Vec<Field>,
}

#[derive(Debug)]
pub struct Field {
    pub json: String,
    pub decl: Arc<Decl>,
}

impl Object {
    /// The field that an expression calls `name`: its JSON name, escaped or not.
    pub fn field(&self, name: &str) -> Option<&Field> {
        let find =
            |json: &str| self.fields.binary_search_by(|f| f.json.as_str().cmp(json)).ok().map(|i| &self.fields[i]);
        find(name).or_else(|| unescape(name).and_then(|json| find(&json)))
    }
}

impl From<Type> for Decl {
    fn from(t: Type) -> Decl {
        let unbounded = REQUEST_BYTES_MAX - 2;
        match t {
            Type::Object(object) => Decl { shape: Shape::Object(object), size_max: 0, bytes_min: 2 },
            Type::List(item) => Decl::list(Decl::from(Type::clone(&item)), ListKind::Atomic, None),
            Type::Map(both) if both.0 == Type::String => Decl::map(Decl::from(both.1.clone()), None),
            t => {
                let size_max =
                    if matches!(t, Type::String | Type::Bytes | Type::Dyn | Type::Any) { unbounded } else { 0 };
                Decl { shape: Shape::Scalar(t), size_max, bytes_min: 1 }
            }
        }
    }
}

impl Decl {
    pub fn list(item: Decl, kind: ListKind, items_max: Option<u64>) -> Decl {
        let size_max = items_max.unwrap_or((REQUEST_BYTES_MAX - 2) / (item.bytes_min + 1));
        Decl { shape: Shape::List(Arc::new(item), kind), size_max, bytes_min: 2 }
    }

    pub fn map(value: Decl, entries_max: Option<u64>) -> Decl {
        // quotes, colon, comma and a key of two
        let size_max = entries_max.unwrap_or((REQUEST_BYTES_MAX - 2) / (value.bytes_min + 6));
        Decl { shape: Shape::Map(Arc::new(value)), size_max, bytes_min: 2 }
    }

    /// An object type from its fields' declarations.
    pub fn object(name: &str, fields: impl IntoIterator<Item = (String, Decl)>) -> Decl {
        let fields = fields.into_iter().map(|(json, decl)| Field { json, decl: Arc::new(decl) }).collect();
        Decl::of_fields(name, fields, 2)
    }

    fn of_fields(name: &str, mut fields: Vec<Field>, bytes_min: u64) -> Decl {
        fields.sort_by(|a, b| a.json.cmp(&b.json));
        let object = Object { name: name.into(), fields };
        Decl { shape: Shape::Object(Arc::new(object)), size_max: 0, bytes_min }
    }

    pub fn cel_type(&self) -> Type {
        match &self.shape {
            Shape::Scalar(t) => t.clone(),
            Shape::List(item, _) => Type::list(item.cel_type()),
            Shape::Map(value) => Type::map(Type::String, value.cel_type()),
            Shape::Object(object) => Type::Object(object.clone()),
        }
    }

    /// The declaration of a structural schema; `None` where CEL cannot reach (no type). `root` is the object of a
    /// request itself: it has `apiVersion`, `kind` and `metadata` whatever the schema says.
    pub fn from_structural(schema: &Value, name: &str, root: bool) -> Option<Decl> {
        Decl::from_openapi(schema, name, root, &|_| None)
    }

    /// As `from_structural`, with `$ref`s (and `allOf` of one `$ref`) looked up by `refs`.
    pub fn from_openapi<'s>(
        schema: &'s Value,
        name: &str,
        root: bool,
        refs: &dyn Fn(&str) -> Option<&'s Value>,
    ) -> Option<Decl> {
        Reader { refs, seen: Vec::new() }.read(schema, name, root)
    }

    /// All object types in here, by name: for literals `Name{...}`.
    pub(crate) fn objects(&self, found: &mut Vec<Arc<Object>>) {
        match &self.shape {
            Shape::Scalar(_) => {}
            Shape::List(inner, _) | Shape::Map(inner) => inner.objects(found),
            Shape::Object(object) => {
                found.push(object.clone());
                object.fields.iter().for_each(|f| f.decl.objects(found));
            }
        }
    }
}

struct Reader<'s, 'r> {
    refs: &'r dyn Fn(&str) -> Option<&'s Value>,
    /// references being read: a type within itself cannot be reached
    seen: Vec<&'s str>,
}

impl<'s> Reader<'s, '_> {
    fn read(&mut self, schema: &'s Value, name: &str, root: bool) -> Option<Decl> {
        let reference = schema.str_at(&["$ref"]).or_else(|| schema.array_at(&["allOf"]).first()?.str_at(&["$ref"]));
        if let Some(reference) = reference {
            if self.seen.contains(&reference) || self.seen.len() > 32 {
                return None;
            }
            let target = (self.refs)(reference)?;
            self.seen.push(reference);
            let decl = self.read(target, name, root);
            self.seen.pop();
            return decl;
        }
        if name.bytes().filter(|b| *b == b'.').count() as u32 > NESTING_MAX {
            return None;
        }
        let limit = |key: &str| schema.int_at(&[key]).and_then(|n| u64::try_from(n).ok());
        let unbounded = REQUEST_BYTES_MAX - 2;
        let scalar = |t, size_max, bytes_min| Some(Decl { shape: Shape::Scalar(t), size_max, bytes_min });
        // a character of text has up to four bytes
        let text_max = || limit("maxLength").map_or(unbounded, |n| n.saturating_mul(4));
        if schema.bool_at(&["x-kubernetes-int-or-string"]) == Some(true)
            || schema.str_at(&["format"]) == Some("int-or-string")
        {
            return scalar(Type::Dyn, text_max(), 1);
        }
        match schema.str_at(&["type"]).unwrap_or("") {
            "array" => {
                let item = self.read(schema.get("items")?, &format!("{name}.@idx"), false)?;
                Some(Decl::list(item, list_kind(schema), limit("maxItems")))
            }
            "object" => self.object(schema, name, root, limit("maxProperties")),
            "boolean" => scalar(Type::Bool, 0, 4),
            "integer" => scalar(Type::Int, 0, 1),
            "number" => scalar(Type::Double, 0, 1),
            "string" => match schema.str_at(&["format"]).unwrap_or("") {
                "byte" => scalar(Type::Bytes, limit("maxLength").unwrap_or(unbounded), 2),
                "duration" => scalar(Type::Duration, 32, 3),
                "date" => scalar(Type::Timestamp, 12, 12),
                "date-time" => scalar(Type::Timestamp, 37, 21),
                _ => {
                    let longest = schema.array_at(&["enum"]).iter().filter_map(Value::as_str).map(str::len).max();
                    scalar(Type::String, longest.map_or_else(text_max, |n| n as u64), 2)
                }
            },
            _ => None,
        }
    }

    fn object(&mut self, schema: &'s Value, name: &str, root: bool, entries_max: Option<u64>) -> Option<Decl> {
        let embedded = root || schema.bool_at(&["x-kubernetes-embedded-resource"]) == Some(true);
        let properties = schema.get("properties").and_then(Value::as_object);
        match schema.get("additionalProperties") {
            Some(values @ Value::Object(_)) if properties.is_none_or(|p| p.is_empty()) && !embedded => {
                let value = self.read(values, &format!("{name}.@elem"), false)?;
                return Some(Decl::map(value, entries_max));
            }
            _ => {}
        }
        let mut fields = Vec::new();
        let mut bytes_min = 2;
        let required = schema.array_at(&["required"]);
        for (json, property) in properties.iter().flat_map(|p| p.iter()) {
            let Some(escaped) = escape(json) else { continue };
            if embedded && matches!(json, "apiVersion" | "kind" | "metadata") {
                continue;
            }
            let Some(decl) = self.read(property, &format!("{name}.{escaped}"), false) else { continue };
            if required.iter().any(|r| r.as_str() == Some(json)) && property.get("default").is_none() {
                bytes_min += json.len() as u64 + 4 + decl.bytes_min;
            }
            fields.push(Field { json: json.into(), decl: Arc::new(decl) });
        }
        if embedded {
            let text = || Decl { shape: Shape::Scalar(Type::String), size_max: REQUEST_BYTES_MAX - 2, bytes_min: 2 };
            let given = properties.and_then(|p| p.get("metadata")).and_then(|m| m.get("properties"));
            let mut metadata = vec![("name".to_string(), text()), ("generateName".to_string(), text())];
            for (json, property) in given.and_then(Value::as_object).iter().flat_map(|p| p.iter()) {
                if json != "name" && json != "generateName" {
                    let decl = self.read(property, &format!("{name}.metadata.{json}"), false);
                    metadata.extend(decl.map(|decl| (json.to_string(), decl)));
                }
            }
            let metadata = Decl::object(&format!("{name}.metadata"), metadata);
            for (json, decl) in [("apiVersion", text()), ("kind", text()), ("metadata", metadata)] {
                fields.push(Field { json: json.into(), decl: Arc::new(decl) });
            }
        }
        Some(Decl::of_fields(name, fields, bytes_min))
    }
}

fn list_kind(schema: &Value) -> ListKind {
    match schema.str_at(&["x-kubernetes-list-type"]) {
        Some("set") => ListKind::Set,
        Some("map") => {
            let keys = schema.array_at(&["x-kubernetes-list-map-keys"]);
            ListKind::Map(keys.iter().filter_map(Value::as_str).map(str::to_string).collect())
        }
        _ => ListKind::Atomic,
    }
}

/// Words that cannot be names, and those that are no names to begin with. Source: the field documentation of
/// `x-kubernetes-validations`.
fn is_reserved(word: &str) -> bool {
    matches!(word, "true" | "false" | "null" | "in") || crate::parse::RESERVED.contains(&word)
}

const ESCAPES: &[(&str, &str)] = &[("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__")];

/// How an expression spells the property `json`; `None` when it cannot.
pub fn escape(json: &str) -> Option<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || "_.-/".contains(c);
    if json.is_empty() || json.starts_with(|c: char| c.is_ascii_digit()) || !json.chars().all(word) {
        return None;
    }
    if is_reserved(json) {
        return Some(format!("__{json}__"));
    }
    let mut escaped = String::new();
    let mut rest = json;
    while let Some(c) = rest.chars().next() {
        match ESCAPES.iter().find(|(plain, _)| rest.starts_with(plain)) {
            Some((plain, code)) => {
                escaped.push_str(code);
                rest = &rest[plain.len()..];
            }
            None => {
                escaped.push(c);
                rest = &rest[1..];
            }
        }
    }
    Some(escaped)
}

/// The property that an escaped name stands for; `None` when the name is not escaped.
pub fn unescape(name: &str) -> Option<String> {
    if !name.contains("__") {
        return None;
    }
    if let Some(word) = name.strip_prefix("__").and_then(|n| n.strip_suffix("__"))
        && is_reserved(word)
    {
        return Some(word.into());
    }
    let mut plain = String::new();
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        match ESCAPES.iter().find(|(_, code)| rest.starts_with(code)) {
            Some((text, code)) => {
                plain.push_str(text);
                rest = &rest[code.len()..];
            }
            None => {
                plain.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_both_ways() {
        for (json, cel) in [
            ("a", Some("a")),
            ("namespace", Some("__namespace__")),
            ("a-b", Some("a__dash__b")),
            ("a.b/c", Some("a__dot__b__slash__c")),
            ("a__b", Some("a__underscores__b")),
            ("int", Some("int")),
            ("1a", None),
            ("a b", None),
            ("", None),
        ] {
            assert_eq!(escape(json).as_deref(), cel, "{json}");
            if let Some(cel) = cel {
                assert_eq!(unescape(cel).as_deref().unwrap_or(cel), json);
            }
        }
    }
}
