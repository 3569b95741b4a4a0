//! Custom resources: a schema from the OpenAPI v3 structural schema of a CustomResourceDefinition, and its pruning.
//!
//! Structural pruning only drops fields: types are checked by validation, which knows the rest of OpenAPI as well.
//! Invariant: nothing under `x-kubernetes-preserve-unknown-fields` is dropped unless a nested schema specifies it.

use super::text::SchemaError;
use super::{Builder, FieldSpec, Kind, ListKind, Scalar, Schema, TypeId, TypeRef, type_flag};
use crate::{Map, Value};

/// Deeper schemas are refused: pruning recurses.
const DEPTH_MAX: usize = 128;

impl Schema {
    /// Reads the `openAPIV3Schema` of a version. The root gets `apiVersion`, `kind` and `metadata` (of the type
    /// `object_meta`, copied from the built-in schema), as embedded resources do.
    pub fn structural(root: &Value, object_meta: TypeRef<'_>) -> Result<(Schema, TypeId), SchemaError> {
        let mut builder = Builder::default();
        builder.package("");
        let metadata = builder.import(object_meta)?;
        let mut reader = StructuralReader { builder, metadata, path: Vec::new() };
        let id = reader.ty(root, true)?;
        Ok((reader.builder.finish()?, id))
    }
}

struct StructuralReader {
    builder: Builder,
    metadata: TypeId,
    path: Vec<String>,
}

fn says(schema: &Value, key: &str) -> bool {
    schema.get(key).and_then(Value::as_bool).unwrap_or(false)
}

impl StructuralReader {
    fn fail<T>(&self, what: &str) -> Result<T, SchemaError> {
        Err(SchemaError::Structural { path: self.path.join("."), what: what.into() })
    }

    fn ty(&mut self, schema: &Value, root: bool) -> Result<TypeId, SchemaError> {
        if self.path.len() > DEPTH_MAX {
            return self.fail("nested too deep");
        }
        if says(schema, "x-kubernetes-int-or-string") {
            return self.builder.scalar(Scalar::IntOrString);
        }
        let preserve = says(schema, "x-kubernetes-preserve-unknown-fields");
        match schema.str_at(&["type"]) {
            Some("object") => self.object(schema, root, preserve),
            Some("array") => self.array(schema),
            Some("string") => self.builder.scalar(Scalar::String),
            Some("boolean") => self.builder.scalar(Scalar::Bool),
            Some("integer") => self.builder.scalar(Scalar::Int64),
            Some("number") => self.builder.scalar(Scalar::Float64),
            Some(_) => self.fail("unsupported type"),
            None if preserve && schema.get("properties").is_none() => self.builder.any(),
            None if preserve || root || schema.get("properties").is_some() => self.object(schema, root, preserve),
            None => self.fail("type is required"),
        }
    }

    fn object(&mut self, schema: &Value, root: bool, preserve: bool) -> Result<TypeId, SchemaError> {
        let atomic = schema.str_at(&["x-kubernetes-map-type"]) == Some("atomic");
        if let Some(values) = schema.get("additionalProperties") {
            self.path.push("additionalProperties".into());
            let value = match values {
                Value::Object(_) => self.ty(values, false)?,
                _ => self.builder.any()?,
            };
            self.path.pop();
            return self.builder.map(value, atomic);
        }
        let embedded = root || says(schema, "x-kubernetes-embedded-resource");
        let empty = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let required: Vec<&str> = schema.array_at(&["required"]).iter().filter_map(Value::as_str).collect();
        let id = self.builder.unnamed_struct()?;
        let mut specs: Vec<(&str, TypeId, String)> = Vec::with_capacity(properties.len() + 3);
        for (name, property) in properties.iter() {
            if embedded && matches!(name, "apiVersion" | "kind" | "metadata") {
                continue;
            }
            self.path.push(name.into());
            let ty = self.ty(property, false)?;
            self.path.pop();
            let default = property.get("default").map(|d| String::from_utf8_lossy(&d.to_vec()).into_owned());
            specs.push((name, ty, default.unwrap_or_default()));
        }
        if embedded {
            let string = self.builder.scalar(Scalar::String)?;
            specs.push(("apiVersion", string, String::new()));
            specs.push(("kind", string, String::new()));
            specs.push(("metadata", self.metadata, String::new()));
        }
        let specs: Vec<FieldSpec<'_>> = specs
            .iter()
            .map(|(name, ty, default)| {
                let mut spec = FieldSpec::optional(name, *ty);
                spec.default = default;
                if required.contains(name) { spec.required() } else { spec }
            })
            .collect();
        self.builder.define_struct(id, &specs);
        let flags = [
            (preserve, type_flag::PRESERVE),
            (atomic, type_flag::ATOMIC),
            (embedded, type_flag::EMBEDDED),
            (says(schema, "nullable"), type_flag::NULLABLE),
        ];
        self.builder.add_flags(id, flags.iter().filter(|(on, _)| *on).map(|(_, f)| f).sum());
        Ok(id)
    }

    fn array(&mut self, schema: &Value) -> Result<TypeId, SchemaError> {
        self.path.push("items".into());
        let element = match schema.get("items") {
            Some(items) => self.ty(items, false)?,
            None => return self.fail("must be specified"),
        };
        self.path.pop();
        let keys: Vec<&str> =
            schema.array_at(&["x-kubernetes-list-map-keys"]).iter().filter_map(Value::as_str).collect();
        let kind = match schema.str_at(&["x-kubernetes-list-type"]) {
            Some("map") => ListKind::Map,
            Some("set") => ListKind::Set,
            _ => ListKind::Atomic,
        };
        self.builder.list(element, kind, &keys)
    }
}

impl TypeRef<'_> {
    /// Drops the fields that a structural schema does not specify; answers them as strict notes
    /// (`unknown field "spec.foo"`).
    pub fn prune_structural(self, value: &mut Value) -> Vec<String> {
        let mut notes = Vec::new();
        walk(self, value, &mut String::new(), &mut notes);
        notes
    }
}

fn walk(ty: TypeRef<'_>, value: &mut Value, path: &mut String, notes: &mut Vec<String>) {
    let here = path.len();
    match (ty.kind(), value) {
        (Kind::Struct, Value::Object(map)) => map.retain(|key, item| {
            path.push_str(if here == 0 { "" } else { "." });
            path.push_str(key);
            let known = ty.field(key);
            match known {
                Some(field) => walk(field.ty(), item, path, notes),
                None if !ty.preserves_unknown() => notes.push(format!("unknown field {path:?}")),
                None => {}
            }
            path.truncate(here);
            known.is_some() || ty.preserves_unknown()
        }),
        (Kind::Map, Value::Object(map)) => {
            let Some(element) = ty.element() else { return };
            for (key, item) in map.iter_mut() {
                path.push('.');
                path.push_str(key);
                walk(element, item, path, notes);
                path.truncate(here);
            }
        }
        (Kind::List(_), Value::Array(items)) => {
            let Some(element) = ty.element() else { return };
            for (i, item) in items.iter_mut().enumerate() {
                path.push_str(&format!("[{i}]"));
                walk(element, item, path, notes);
                path.truncate(here);
            }
        }
        _ if ty.preserves_unknown() => {}
        (_, value) => forget(value, path, notes),
    }
}

/// Drops the fields of objects where the schema knows of none: it wants something else there.
fn forget(value: &mut Value, path: &mut String, notes: &mut Vec<String>) {
    let here = path.len();
    match value {
        Value::Object(map) => {
            notes.extend(map.keys().map(|key| format!("unknown field {:?}", format!("{path}.{key}"))));
            *map = Map::new();
        }
        Value::Array(items) => {
            for (i, item) in items.iter_mut().enumerate() {
                path.push_str(&format!("[{i}]"));
                forget(item, path, notes);
                path.truncate(here);
            }
        }
        _ => {}
    }
}
