//! What a schema must be to be structural, in upstream's words.
//!
//! Reads the `openAPIV3Schema` of a version. Source: "Specifying a structural schema" in the CRD documentation.
//! Invariant: a schema without errors can be made into a `Node` and into a `meta::schema::Schema`.

use meta::Value;
use meta::field::{Error, Errors, Path};

use crate::{Node, Type, lists, pattern, rules};

/// Deeper schemas are refused: everything here recurses.
const DEPTH_MAX: usize = 100;

#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Item,
    Field,
    /// Inside of anyOf, oneOf, allOf and not.
    Nested,
}

/// All errors of a schema that stands at `path`.
pub fn schema(schema: &Value, path: &Path) -> Errors {
    let mut found = Found::default();
    walk(schema, path, Level::Root, 0, &mut found);
    complete(schema, schema, path, path, &mut found.structural);
    // Compat: whether a schema is structural is told first, and only of one that says nothing unsupported.
    let mut errors = if found.unsupported { Errors::new() } else { found.structural };
    errors.extend(found.generic);
    if errors.is_empty() {
        defaults(schema, path, &mut errors);
        rules::check(schema, path, &mut errors);
    }
    errors
}

fn text<'v>(schema: &'v Value, key: &str) -> &'v str {
    schema.str_at(&[key]).unwrap_or_default()
}

fn says(schema: &Value, key: &str) -> bool {
    schema.get(key).and_then(Value::as_bool).unwrap_or(false)
}

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const UNKNOWN: [&str; 6] = ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"];
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";
const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";
const LIST_TYPE: &str = "x-kubernetes-list-type";
const LIST_KEYS: &str = "x-kubernetes-list-map-keys";
const MAP_TYPE: &str = "x-kubernetes-map-type";

#[derive(Default)]
struct Found {
    structural: Errors,
    /// Of any schema.
    generic: Errors,
    /// It says what can't be made into a structural schema at all.
    unsupported: bool,
}

fn walk(schema: &Value, path: &Path, level: Level, depth: usize, found: &mut Found) {
    if depth > DEPTH_MAX {
        found.generic.push(Error::forbidden(path, "is nested too deep"));
        return;
    }
    if level == Level::Root && says(schema, "nullable") {
        found.generic.push(Error::forbidden(&path.child("nullable"), "nullable cannot be true at the root"));
    }
    generic(schema, path, found);
    let errors = &mut found.structural;
    if level == Level::Root && schema.get("additionalProperties").is_some() {
        errors.push(Error::forbidden(&path.child("additionalProperties"), "must not be used at the root"));
    }
    if level == Level::Nested {
        nested(schema, path, errors);
    } else {
        types(schema, path, level, errors);
        list(schema, path, &mut found.generic);
    }
    if level == Level::Root || says(schema, EMBEDDED) {
        own_fields(schema, &path.child("properties"), &mut found.structural);
    }
    let down = |here: Level| if level == Level::Nested { Level::Nested } else { here };
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flat_map(|m| m.iter()) {
        walk(property, &path.child("properties").key(name), down(Level::Field), depth + 1, found);
    }
    if let Some(items @ Value::Object(_)) = schema.get("items") {
        walk(items, &path.child("items"), down(Level::Item), depth + 1, found);
    }
    if let Some(values @ Value::Object(_)) = schema.get("additionalProperties") {
        walk(values, &path.child("additionalProperties"), down(Level::Field), depth + 1, found);
    }
    let plain_union = says(schema, INT_OR_STRING);
    for key in ["allOf", "anyOf", "oneOf"] {
        for (i, one) in schema.array_at(&[key]).iter().enumerate() {
            // Compat: the two spellings of int-or-string may name types.
            if plain_union && is_union(one) {
                continue;
            }
            walk(one, &path.child(key).index(i), Level::Nested, depth + 1, found);
        }
    }
    if let Some(not) = schema.get("not").filter(|n| !n.is_null()) {
        walk(not, &path.child("not"), Level::Nested, depth + 1, found);
    }
}

fn is_union(one: &Value) -> bool {
    let bare = |v: &Value, ty: &str| *v == meta::json!({"type": ty});
    let any = one.array_at(&["anyOf"]);
    bare(one, "integer")
        || bare(one, "string")
        || (any.len() == 2 && bare(&any[0], "integer") && bare(&any[1], "string"))
}

/// What holds at every place.
fn generic(schema: &Value, path: &Path, found: &mut Found) {
    let errors = &mut found.generic;
    for (key, value) in UNKNOWN.iter().filter_map(|key| Some((*key, schema.get(key)?))) {
        // Of these an empty one too is told from none.
        if !value.is_empty() || matches!(key, "$ref" | "dependencies") && !value.is_null() {
            found.unsupported |= !value.is_empty();
            errors.push(Error::forbidden(&path.child(key), format!("{key} is not supported")));
        }
    }
    if says(schema, "uniqueItems") {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(Error::forbidden(&path.child("uniqueItems"), detail));
    }
    let ty = text(schema, "type");
    if ty == "null" {
        let detail = "type cannot be set to null, use nullable as an alternative";
        errors.push(Error::forbidden(&path.child("type"), detail));
    } else if !ty.is_empty() && !TYPES.contains(&ty) {
        errors.push(Error::not_supported(&path.child("type"), ty, &TYPES));
    }
    match schema.get("additionalProperties") {
        Some(v) if !v.is_null() && schema.get("properties").is_some_and(|p| !p.is_empty()) => {
            let detail = "additionalProperties and properties are mutual exclusive";
            errors.push(Error::forbidden(&path.child("additionalProperties"), detail));
        }
        Some(Value::Bool(false)) => {
            let detail = "additionalProperties cannot be set to false";
            errors.push(Error::forbidden(&path.child("additionalProperties"), detail));
        }
        _ => {}
    }
    if let Some(Value::Array(_)) = schema.get("items") {
        found.unsupported = true;
        let detail = "items must be a schema object and not an array";
        errors.push(Error::forbidden(&path.child("items"), detail));
    }
    let wanted = text(schema, "pattern");
    if let Err(why) = pattern::compile(wanted) {
        let detail = format!("must be a valid regular expression, but isn't: {why}");
        errors.push(Error::invalid(&path.child("pattern"), wanted, detail));
    }
    if schema.get(PRESERVE) == Some(&Value::Bool(false)) {
        errors.push(Error::invalid(&path.child(PRESERVE), false, "must be true or undefined"));
    }
}

/// Inside of value validation nothing may be specified, only restricted.
fn nested(schema: &Value, path: &Path, errors: &mut Errors) {
    for (key, what) in [
        ("type", "empty"),
        ("additionalProperties", "undefined"),
        ("default", "undefined"),
        ("title", "empty"),
        ("description", "empty"),
        ("nullable", "false"),
        (PRESERVE, "false"),
        (EMBEDDED, "false"),
        (INT_OR_STRING, "false"),
        (LIST_TYPE, "undefined"),
        (LIST_KEYS, "empty"),
        (MAP_TYPE, "undefined"),
        ("x-kubernetes-validations", "empty"),
    ] {
        if schema.get(key).is_some_and(|v| !v.is_empty() && *v != Value::Bool(false)) {
            errors.push(Error::forbidden(&path.child(key), format!("must be {what} to be structural")));
        }
    }
}

fn types(schema: &Value, path: &Path, level: Level, errors: &mut Errors) {
    let ty = text(schema, "type");
    let at = path.child("type");
    let (any, preserves, embedded) = (says(schema, INT_OR_STRING), says(schema, PRESERVE), says(schema, EMBEDDED));
    if any && preserves {
        errors.push(Error::invalid(&path.child(PRESERVE), true, format!("must be false if {INT_OR_STRING} is true")));
    }
    if any && embedded {
        errors.push(Error::invalid(&path.child(EMBEDDED), true, format!("must be false if {INT_OR_STRING} is true")));
    }
    if embedded {
        let detail = format!("must be object if {EMBEDDED} is true");
        match ty {
            "object" => {}
            "" => errors.push(Error::required(&at, detail)),
            _ => errors.push(Error::invalid(&at, ty, detail)),
        }
        if schema.get("properties").is_none_or(Value::is_empty) && !preserves {
            let detail = format!("must not be empty if {EMBEDDED} is true without {PRESERVE}");
            errors.push(Error::required(&path.child("properties"), detail));
        }
        if schema.get("additionalProperties").is_some() {
            let detail = format!("must not be used if {EMBEDDED} is set");
            errors.push(Error::forbidden(&path.child("additionalProperties"), detail));
        }
    } else if ty.is_empty() && !any && !preserves {
        errors.push(Error::required(
            &at,
            match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                _ => "must not be empty for specified object fields",
            },
        ));
    }
    if level == Level::Root && !matches!(ty, "" | "object") {
        errors.push(Error::invalid(&at, ty, "must be object at the root"));
    }
}

/// The three fields that every object has may only be restricted.
fn own_fields(schema: &Value, path: &Path, errors: &mut Errors) {
    let property = |name: &str| schema.at(&["properties", name]);
    for name in ["kind", "apiVersion"] {
        if let Some(p) = property(name)
            && text(p, "type") != "string"
        {
            errors.push(Error::invalid(&path.key(name).child("type"), text(p, "type"), "must be string"));
        }
    }
    let Some(metadata) = property("metadata") else { return };
    let at = path.key("metadata");
    if text(metadata, "type") != "object" {
        errors.push(Error::invalid(&at.child("type"), text(metadata, "type"), "must be object"));
    }
    let members = metadata.get("properties").and_then(Value::as_object);
    if members.into_iter().flat_map(|m| m.keys()).any(|k| !matches!(k, "name" | "generateName")) {
        let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.push(Error::forbidden(&at, detail));
    }
}

fn list(schema: &Value, path: &Path, errors: &mut Errors) {
    let ty = text(schema, "type");
    let mut of_type = |key: &str, wanted: &str| {
        let detail = format!("must be {wanted} if {key} is specified");
        match ty {
            "" => errors.push(Error::required(&path.child("type"), detail)),
            ty if ty != wanted => errors.push(Error::invalid(&path.child("type"), ty, detail)),
            _ => {}
        }
    };
    let (list_type, map_type) = (text(schema, LIST_TYPE), text(schema, MAP_TYPE));
    if !map_type.is_empty() {
        of_type(MAP_TYPE, "object");
    }
    if !list_type.is_empty() {
        of_type(LIST_TYPE, "array");
    }
    if !matches!(map_type, "" | "atomic" | "granular") {
        errors.push(Error::not_supported(&path.child(MAP_TYPE), map_type, &["atomic", "granular"]));
    }
    if !matches!(list_type, "" | "atomic" | "set" | "map") {
        errors.push(Error::not_supported(&path.child(LIST_TYPE), list_type, &["atomic", "set", "map"]));
    }
    let keys: Vec<&str> = schema.array_at(&[LIST_KEYS]).iter().filter_map(Value::as_str).collect();
    let items = &schema["items"];
    let at = path.child("items");
    if ty == "array" && items.is_null() {
        errors.push(Error::required(&at, "must be specified"));
    }
    if matches!(list_type, "set" | "map") && says(items, "nullable") {
        let detail = format!("cannot be nullable when {LIST_TYPE} is {list_type}");
        errors.push(Error::forbidden(&at.child("nullable"), detail));
    }
    if list_type == "set" {
        if text(items, "type") == "object" && text(items, MAP_TYPE) != "atomic" {
            let detail = format!("must be atomic as item of a list with {LIST_TYPE}=set");
            errors.push(Error::invalid(&at.child(MAP_TYPE), text(items, MAP_TYPE), detail));
        }
        if text(items, "type") == "array" && !matches!(text(items, LIST_TYPE), "" | "atomic") {
            let detail = format!("must be atomic as item of a list with {LIST_TYPE}=set");
            errors.push(Error::invalid(&at.child(LIST_TYPE), text(items, LIST_TYPE), detail));
        }
    }
    if list_type != "map" {
        if !keys.is_empty() {
            let detail = format!("must be map if {LIST_KEYS} is non-empty");
            errors.push(if list_type.is_empty() {
                Error::required(&path.child(LIST_TYPE), detail)
            } else {
                Error::invalid(&path.child(LIST_TYPE), list_type, detail)
            });
        }
        return;
    }
    if keys.is_empty() {
        let detail = format!("must not be empty if {LIST_TYPE} is map");
        errors.push(Error::required(&path.child(LIST_KEYS), detail));
    }
    if items.is_null() {
        errors.push(Error::required(&at, format!("must have a schema if {LIST_TYPE} is map")));
    } else if text(items, "type") != "object" {
        let detail = format!("must be object if parent array's {LIST_TYPE} is map");
        errors.push(Error::invalid(&at.child("type"), text(items, "type"), detail));
    }
    list_keys(items, path, &keys, errors);
}

fn list_keys(items: &Value, path: &Path, keys: &[&str], errors: &mut Errors) {
    for (i, key) in keys.iter().enumerate() {
        let at = path.child("items").child("properties").key(key);
        if keys[..i].contains(key) {
            let detail = "must not contain duplicate entries";
            errors.push(Error::invalid(&path.child(LIST_KEYS).index(i), *key, detail));
        }
        let Some(property) = items.at(&["properties", key]) else {
            let detail = "entries must all be names of item properties";
            errors.push(Error::invalid(&path.child(LIST_KEYS).index(i), *key, detail));
            continue;
        };
        if matches!(text(property, "type"), "object" | "array") {
            let detail = format!("must be a scalar type if parent array's {LIST_TYPE} is map");
            errors.push(Error::invalid(&at.child("type"), text(property, "type"), detail));
        }
        let required = items.array_at(&["required"]).iter().any(|r| r.as_str() == Some(key));
        if !required && property.get("default").is_none_or(Value::is_null) {
            let detail =
                format!("this property is in {LIST_KEYS}, so it must have a default or be a required property");
            errors.push(Error::required(&at.child("default"), detail));
        }
        if says(property, "nullable") {
            let detail = format!("this property is in {LIST_KEYS}, so it cannot be nullable");
            errors.push(Error::forbidden(&at.child("nullable"), detail));
        }
    }
}

/// Every field that value validation speaks of must be specified outside of it.
fn complete(outer: &Value, schema: &Value, path: &Path, at: &Path, errors: &mut Errors) {
    for key in ["allOf", "anyOf", "oneOf"] {
        for (i, one) in schema.array_at(&[key]).iter().enumerate() {
            mentioned(outer, one, path, &at.child(key).index(i), errors);
        }
    }
    if let Some(not) = schema.get("not") {
        mentioned(outer, not, path, &at.child("not"), errors);
    }
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flat_map(|m| m.iter()) {
        let path = path.child("properties").key(name);
        complete(property, property, &path, &path, errors);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(below @ Value::Object(_)) = schema.get(key) {
            let path = path.child(key);
            complete(below, below, &path, &path, errors);
        }
    }
}

fn mentioned(outer: &Value, inner: &Value, path: &Path, at: &Path, errors: &mut Errors) {
    let preserves = says(outer, PRESERVE);
    let mut missing = |path: &Path, at: &Path| {
        if !preserves {
            errors.push(Error::required(path, format!("because it is defined in {at}")));
        }
    };
    let mut pairs: Vec<(&Value, &Value, Path, Path)> = Vec::new();
    for (name, property) in inner.get("properties").and_then(Value::as_object).into_iter().flat_map(|m| m.iter()) {
        let (path, at) = (path.child("properties").key(name), at.child("properties").key(name));
        match outer.at(&["properties", name]).or_else(|| outer.get("additionalProperties")) {
            Some(found) => pairs.push((found, property, path, at)),
            None if matches!(name, "metadata" | "apiVersion" | "kind") => {}
            None => missing(&path, &at),
        }
    }
    if let Some(items @ Value::Object(_)) = inner.get("items") {
        let (path, at) = (path.child("items"), at.child("items"));
        match outer.get("items") {
            Some(found) => pairs.push((found, items, path, at)),
            None => missing(&path, &at),
        }
    }
    for (outer, inner, path, at) in pairs {
        mentioned(outer, inner, &path, &at, errors);
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        for (i, one) in inner.array_at(&[key]).iter().enumerate() {
            mentioned(outer, one, path, &at.child(key).index(i), errors);
        }
    }
    if let Some(not) = inner.get("not") {
        mentioned(outer, not, path, &at.child("not"), errors);
    }
}

/// Defaults must be values that the schema takes.
fn defaults(schema: &Value, path: &Path, errors: &mut Errors) {
    if let Some(default) = schema.get("default").filter(|d| !d.is_null()) {
        let at = path.child("default");
        let node = Node::read(schema);
        let mut filled = default.clone();
        node.apply_defaults(&mut filled);
        if has_unknown(&node, &filled) {
            errors.push(Error::invalid(&at, default, "must not have unknown fields"));
        }
        let mut found = node.check(&filled, None);
        found.extend(lists::check(&node, &filled));
        errors.extend(found.into_iter().map(|mut error| {
            error.field = if error.field == "<nil>" { at.to_string() } else { format!("{at}.{}", error.field) };
            error
        }));
    }
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flat_map(|m| m.iter()) {
        defaults(property, &path.child("properties").key(name), errors);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(below @ Value::Object(_)) = schema.get(key) {
            defaults(below, &path.child(key), errors);
        }
    }
}

/// Whether there is a field that the schema does not specify.
fn has_unknown(node: &Node, value: &Value) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(key, item)| match node.child(key) {
            Some(child) => has_unknown(child, item),
            None if node.preserves || (node.ty == Type::Unset && !node.int_or_string) => false,
            None => !(node.embedded && matches!(key, "apiVersion" | "kind" | "metadata")),
        }),
        Value::Array(items) => node.items.as_ref().is_some_and(|n| items.iter().any(|item| has_unknown(n, item))),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_words() {
        golden::check!("tests/schemas.txt", |schema| {
            let found = super::schema(&meta::parse(schema.as_bytes()).expect("JSON"), &Path::new("s"));
            found.iter().map(|e| format!("{e}\n")).collect()
        });
    }
}
