//! A definition's schema as OpenAPI documents publish it.
//!
//! Version 3 shows it as it is; version 2 lacks what its language lacks, and then says less, never something false.

use meta::{Value, json};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should \
                           convert recognized schemas to the latest internal value, and may reject unrecognized values. \
                           More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this \
                    from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: \
                    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const METADATA: &str = "Standard object's metadata. More info: \
                        https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// Words of version 3 that version 2 does not have.
const V3_ONLY: [&str; 6] = ["anyOf", "oneOf", "not", "nullable", "allOf", "default"];

const LIST_METADATA: &str = "Standard list metadata. More info: \
                             https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const SELECTABLE: &str = "x-kubernetes-selectable-fields";

/// The schema of a kind. `gvk` is (group, version, kind).
pub fn kind(schema: &Value, gvk: (&str, &str, &str), v2: bool) -> Value {
    // Compat: old clients would refuse fields beside the named ones, so version 2 names none (CRD documentation, "Publish
    // Validation Schema in OpenAPI").
    let open = v2 && preserves(schema);
    let mut out = match v2 {
        true if open => Value::object(),
        true => reduced(schema),
        false => schema.clone(),
    };
    if !open {
        let text = |description: &str| json!({"type": "string", "description": description});
        out.set(&["properties", "apiVersion"], text(API_VERSION));
        out.set(&["properties", "kind"], text(KIND));
        out.set(&["properties", "metadata"], reference("ObjectMeta", METADATA, v2));
    }
    out.set(&["type"], "object");
    if let Some(fields) = schema.get(SELECTABLE) {
        out.set(&[SELECTABLE], fields);
    }
    out.set(&["x-kubernetes-group-version-kind"], gvks(gvk));
    out
}

fn prefix(v2: bool) -> &'static str {
    if v2 { "#/definitions" } else { "#/components/schemas" }
}

/// A member whose type is one of `meta/v1`. Version 3 takes no description beside a reference.
fn reference(ty: &str, description: &str, v2: bool) -> Value {
    let to = json!({"$ref": format!("{}/{META}.{ty}", prefix(v2))});
    let mut out = if v2 { to } else { json!({"allOf": [to]}) };
    out.set(&["description"], description);
    out
}

fn preserves(schema: &Value) -> bool {
    schema.bool_at(&["x-kubernetes-preserve-unknown-fields"]) == Some(true)
}

/// The schema of a kind's list; `item` is the name of `schema`, that of its items.
pub fn list(item: &str, schema: &Value, gvk: (&str, &str, &str), plural: &str, list_kind: &str, v2: bool) -> Value {
    let plural = format!(
        "List of {plural}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md"
    );
    let mut out = json!({"type": "object", "required": ["items"],
        "description": format!("{list_kind} is a list of {}", gvk.2)});
    let text = |description: &str| json!({"type": "string", "description": description});
    out.set(&["properties", "apiVersion"], text(API_VERSION));
    out.set(&["properties", "kind"], text(KIND));
    out.set(&["properties", "metadata"], reference("ListMeta", LIST_METADATA, v2));
    out.set(
        &["properties", "items"],
        json!({"type": "array", "description": plural, "items": {"$ref": format!("{}/{item}", prefix(v2))}}),
    );
    if let Some(fields) = schema.get(SELECTABLE) {
        out.set(&[SELECTABLE], fields);
    }
    out.set(&["x-kubernetes-group-version-kind"], gvks((gvk.0, gvk.1, list_kind)));
    out
}

fn gvks((group, version, kind): (&str, &str, &str)) -> Value {
    Value::Array(vec![json!({"group": group, "kind": kind, "version": version})])
}

/// A schema without what version 2 cannot say.
fn reduced(schema: &Value) -> Value {
    let Value::Object(map) = schema else { return schema.clone() };
    // A value that may be null has a type that version 2 cannot name; preserved fields would be refused by old clients.
    let open = schema.bool_at(&["nullable"]) == Some(true) || preserves(schema);
    let mut out = Value::object();
    for (key, value) in map.iter() {
        let value = match key {
            key if V3_ONLY.contains(&key) => continue,
            "type" | "items" | "properties" | "additionalProperties" | "required" if open => continue,
            "properties" => match value {
                Value::Object(members) => Value::Object(members.iter().map(|(k, v)| (k.into(), reduced(v))).collect()),
                other => other.clone(),
            },
            "items" | "additionalProperties" => reduced(value),
            _ => value.clone(),
        };
        out.set(&[key], value);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_two_says_less() {
        let schema = json!({"type": "object", "properties": {
            "a": {"type": "string", "nullable": true, "default": "x"},
            "b": {"type": "array", "items": {"type": "object", "oneOf": [{"required": ["c"]}], "properties": {"c": {"type": "integer"}}}},
        }});
        let out = kind(&schema, ("g.io", "v1", "K"), true);
        assert_eq!(out["properties"]["a"], json!({}));
        assert_eq!(
            out["properties"]["b"]["items"],
            json!({"type": "object", "properties": {"c": {"type": "integer"}}})
        );
        assert_eq!(
            out["properties"]["metadata"]["$ref"].as_str(),
            Some("#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
        );
        let out = kind(&schema, ("g.io", "v1", "K"), false);
        assert_eq!(out["properties"]["a"], schema["properties"]["a"]);
        let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true,
            "properties": {"a": {"type": "string"}}});
        let gvk = json!([{"group": "g.io", "version": "v1", "kind": "K"}]);
        let out = kind(&open, ("g.io", "v1", "K"), true);
        assert_eq!(out, json!({"type": "object", "x-kubernetes-group-version-kind": gvk}));
        assert_eq!(kind(&open, ("g.io", "v1", "K"), false)["properties"]["a"], json!({"type": "string"}));
    }
}
