//! Tables of what is not stored as it is shown, and the definitions of columns.
//!
//! Reads the kinds' columns and the documentation of the fields that they show.

use api::kinds::{self, Kind};
use api::openapi::Docs;
use meta::schema::TypeRef;
use meta::time::Timestamp;
use meta::{Value, json};

use crate::protobuf;
use crate::view::{Include, metadata_only};

/// The definitions of a kind's columns; the type is the one that its cells are read from.
pub fn definitions(kind: &Kind, ty: Option<TypeRef<'_>>) -> Value {
    let docs = Docs::new(api_docs::text());
    let documented = |path: &str| ty.map(|ty| docs.field(ty, path)).unwrap_or_default();
    kind.columns.iter().map(|column| column.to_value(documented)).collect::<Vec<_>>().into()
}

/// A table of a document, or of the items of a list; `None` when there is none of such a thing, such as a Status.
pub fn of(document: &Value, meta: &'static str, include: Include, now: Timestamp) -> Option<Value> {
    let (api_version, name) = (document.str_at(&["apiVersion"])?, document.str_at(&["kind"])?);
    let items = document.get("items").map(|items| items.as_array().map(Vec::as_slice).unwrap_or_default());
    let kind_name = if items.is_some() { name.strip_suffix("List")? } else { name };
    if kind_name == "Status" {
        return None;
    }
    let kind = kinds::of(api_version.split_once('/').map_or("", |(group, _)| group), kind_name);
    let row = |item: &Value| {
        let object = match include {
            Include::None => Value::Null,
            Include::Metadata => metadata_only(item.clone(), meta),
            Include::Object => item.clone(),
        };
        json!({"cells": Value::Array(kind.cells(item, now)), "object": object})
    };
    let mut metadata = Value::object();
    if let Some(version) = document.at(&["metadata", "resourceVersion"]) {
        metadata.set(&["resourceVersion"], version);
    }
    let rows: Vec<Value> = items.unwrap_or(std::slice::from_ref(document)).iter().map(row).collect();
    let columns = definitions(kind, protobuf::find(api_version, kind_name));
    Some(
        json!({"kind": "Table", "apiVersion": meta, "metadata": metadata, "columnDefinitions": columns, "rows": Value::Array(rows)}),
    )
}
