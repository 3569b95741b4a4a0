//! Forms in which objects are sent: whole, converted to another version, metadata only, or a row of a table.
//!
//! Invariant: the object and its metadata are written from the stored bytes without parsing; only a conversion parses, and
//! the first row of a version of an object.

use std::sync::Arc;

use bytes::Bytes;
use meta::time::Timestamp;
use meta::{Value, json};

use crate::accept::{Accept, Shape};
use crate::admission::default_class;
use crate::body::{CHUNK_BYTES, Pieces};
use crate::object::Object;
use crate::protobuf;
use crate::registry::Served;
use crate::request::Query;

/// Which part of the object goes with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    None,
    Metadata,
    Object,
}

#[derive(Clone)]
pub enum View {
    Whole,
    /// The stored form made into the served version.
    Converted(Arc<Served>),
    /// In this version of `meta.k8s.io`.
    Metadata(&'static str),
    Row {
        served: Arc<Served>,
        meta: &'static str,
        include: Include,
        now: Timestamp,
    },
}

impl View {
    pub fn new(served: &Arc<Served>, accept: &Accept, query: &Query) -> View {
        match accept.shape {
            Shape::Object if served.conversion.is_some() => View::Converted(served.clone()),
            Shape::Object => View::Whole,
            Shape::Metadata | Shape::MetadataList => View::Metadata(accept.meta),
            Shape::Table => {
                let include = match query.get("includeObject") {
                    "None" => Include::None,
                    "Object" => Include::Object,
                    _ => Include::Metadata,
                };
                View::Row { served: served.clone(), meta: accept.meta, include, now: meta::time::now() }
            }
        }
    }

    pub fn is_whole(&self) -> bool {
        matches!(self, View::Whole)
    }

    /// The apiVersion, kind and kind of lists of what this form shows.
    pub fn kinds<'a>(&self, served: &'a Served) -> [&'a str; 3] {
        match self {
            View::Whole | View::Converted(_) => [&served.api_version, &served.kind, &served.list_kind],
            View::Metadata(meta) => [meta, "PartialObjectMetadata", "PartialObjectMetadataList"],
            View::Row { meta, .. } => [meta, "Table", "Table"],
        }
    }

    /// The object in this form as a protobuf message, which a table has none of.
    pub fn message(&self, object: &Object) -> Bytes {
        match self {
            View::Converted(served) => protobuf::object(&served.read(object)),
            View::Metadata(_) => protobuf::metadata(object.message()),
            View::Whole | View::Row { .. } => object.message().clone(),
        }
    }

    /// Appends the object in this form, as it stands in a list.
    pub fn write(&self, object: &Object, out: &mut Vec<u8>) {
        match self {
            View::Whole => object.write_to(out),
            View::Converted(served) => served.read(object).write_to(out),
            View::Metadata(meta) => write_metadata_only(object, meta, out),
            View::Row { served, meta, include, now } => write_row(served, object, (meta, *include, *now), None, out),
        }
    }

    /// As `write`, of the class of storage that is the default one.
    fn write_default(&self, object: &Object, out: &mut Vec<u8>) {
        let View::Row { served, meta, include, now } = self else { return self.write(object, out) };
        let mut cells = served.row(&object.stored_document(), *now);
        cells[0] = format!("{} (default)", object.name).into();
        write_row(served, object, (meta, *include, *now), Some(cells), out);
    }

    /// What stands before and after the items of a list.
    fn frame(&self, served: &Served, metadata: &Value) -> (Vec<u8>, &'static [u8]) {
        let mut open = Vec::with_capacity(256);
        let [api_version, _, kind] = self.kinds(served);
        list_head(&mut open, kind, api_version, metadata);
        if let View::Row { served, .. } = self {
            open.extend_from_slice(b",\"columnDefinitions\":");
            open.extend_from_slice(served.columns());
            open.extend_from_slice(b",\"rows\":[");
        } else {
            open.extend_from_slice(b",\"items\":[");
        }
        (open, b"]}")
    }

    /// A table of this one row, or the object itself in another form.
    pub fn write_single(&self, object: &Object, headers: bool, out: &mut Vec<u8>) {
        match self {
            View::Row { served, meta, .. } => {
                list_head(out, "Table", meta, &json!({"resourceVersion": object.rv.to_string()}));
                out.extend_from_slice(b",\"columnDefinitions\":");
                out.extend_from_slice(if headers { served.columns() } else { b"null" });
                out.extend_from_slice(b",\"rows\":[");
                self.write(object, out);
                out.extend_from_slice(b"]}");
            }
            _ => self.write(object, out),
        }
    }
}

fn list_head(out: &mut Vec<u8>, kind: &str, api_version: &str, metadata: &Value) {
    out.extend_from_slice(format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":").as_bytes());
    metadata.write_to(out);
}

/// The object as PartialObjectMetadata of a version of `meta.k8s.io`.
pub fn metadata_only(mut document: Value, meta: &'static str) -> Value {
    let metadata = document.get_mut("metadata").map(Value::take).unwrap_or_else(Value::object);
    let mut out = json!({"kind": "PartialObjectMetadata", "apiVersion": meta});
    out.set(&["metadata"], metadata);
    out
}

fn write_metadata_only(object: &Object, meta: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"apiVersion":""#);
    out.extend_from_slice(meta.as_bytes());
    out.extend_from_slice(br#"","kind":"PartialObjectMetadata","metadata":"#);
    object.write_metadata_to(out);
    out.push(b'}');
}

/// The cells are the kind's, whose function for rows works on the stored version, unless they are given.
fn write_row(
    served: &Served,
    object: &Object,
    (meta, include, now): (&str, Include, Timestamp),
    own: Option<Vec<Value>>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"{\"cells\":");
    // Columns of custom resources change with their definitions, so their cells are not kept.
    match if served.custom.is_none() && own.is_none() { object.cells(served.rules) } else { None } {
        Some(cells) => cells.write(now, out),
        None => Value::Array(own.unwrap_or_else(|| served.row(&object.stored_document(), now))).write_to(out),
    }
    out.extend_from_slice(b",\"object\":");
    match include {
        Include::None => out.extend_from_slice(b"null"),
        Include::Metadata => write_metadata_only(object, meta, out),
        Include::Object if served.conversion.is_some() => served.read(object).write_to(out),
        Include::Object => object.write_to(out),
    }
    out.push(b'}');
}

/// Writes a list piece by piece.
pub struct ListPieces {
    view: View,
    objects: std::vec::IntoIter<Arc<Object>>,
    /// What stands before the first item, until it is written.
    open: Vec<u8>,
    close: &'static [u8],
    first: bool,
    done: bool,
    /// The name of the default one, of classes of storage: tables of lists mark it.
    default: Option<String>,
}

impl ListPieces {
    pub fn new(view: View, served: &Served, metadata: &Value, objects: Vec<Arc<Object>>) -> ListPieces {
        let (open, close) = view.frame(served, metadata);
        let classes = matches!(view, View::Row { .. }) && served.kind == "StorageClass" && served.custom.is_none();
        let default = if classes { default_class::of_storage(&objects) } else { None };
        ListPieces { view, objects: objects.into_iter(), open, close, first: true, done: false, default }
    }
}

impl Pieces for ListPieces {
    fn next(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        let mut out = std::mem::take(&mut self.open);
        let expected: usize = self.objects.as_slice().iter().take(64).map(|o| o.len_bytes()).sum();
        out.reserve(expected.min(CHUNK_BYTES));
        while out.len() < CHUNK_BYTES {
            let Some(object) = self.objects.next() else {
                out.extend_from_slice(self.close);
                self.done = true;
                break;
            };
            if !self.first {
                out.push(b',');
            }
            self.first = false;
            if self.default.as_deref() == Some(&*object.name) {
                self.view.write_default(&object, &mut out);
            } else {
                self.view.write(&object, &mut out);
            }
        }
        Some(out.into())
    }

    fn len_bytes(&self) -> Option<u64> {
        if !self.view.is_whole() {
            return None;
        }
        let left = self.objects.as_slice();
        let commas = if self.first { left.len().saturating_sub(1) } else { left.len() };
        let objects: usize = left.iter().map(|o| o.len_bytes()).sum();
        let close = if self.done { 0 } else { self.close.len() };
        Some((self.open.len() + objects + commas + close) as u64)
    }
}
