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
        let prefix = if v2 { "#/definitions" } else { "#/components/schemas" };
        let metadata = format!("{prefix}/{META}.ObjectMeta");
        let text = |description: &str| json!({"type": "string", "description": description});
        out.set(&["properties", "apiVersion"], text(API_VERSION));
        out.set(&["properties", "kind"], text(KIND));
        out.set(
            &["properties", "metadata"],
            if v2 {
                json!({"description": METADATA, "$ref": metadata})
            } else {
                json!({"description": METADATA, "allOf": [{"$ref": metadata}]})
            },
        );
    }
    out.set(&["type"], "object");
    out.set(&["x-kubernetes-group-version-kind"], gvks(gvk));
    out
}

fn preserves(schema: &Value) -> bool {
    schema.bool_at(&["x-kubernetes-preserve-unknown-fields"]) == Some(true)
}

/// The schema of a kind's list.
pub fn list(item: &str, gvk: (&str, &str, &str), list_kind: &str, v2: bool) -> Value {
    let prefix = if v2 { "#/definitions" } else { "#/components/schemas" };
    let metadata = format!("{prefix}/{META}.ListMeta");
    let plural = format!(
        "List of {}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md",
        gvk.2
    );
    let mut out = json!({"type": "object", "required": ["items"],
        "description": format!("{list_kind} is a list of {}", gvk.2)});
    let text = |description: &str| json!({"type": "string", "description": description});
    out.set(&["properties", "apiVersion"], text(API_VERSION));
    out.set(&["properties", "kind"], text(KIND));
    out.set(&["properties", "metadata"], json!({"$ref": metadata}));
    out.set(
        &["properties", "items"],
        json!({"type": "array", "description": plural, "items": {"$ref": format!("{prefix}/{item}")}}),
    );
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
