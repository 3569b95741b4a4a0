//! Forms in which objects are sent: whole, converted to another version, metadata only, or a row of a table.
//!
//! Invariant: the object and its metadata are written from the stored bytes without parsing; only a conversion parses, and
//! the first row of a version of an object.

use std::sync::Arc;

use bytes::Bytes;
use meta::time::Timestamp;
use meta::{Value, json};

use crate::accept::{Accept, Shape};
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
    Metadata,
    Row {
        served: Arc<Served>,
        include: Include,
        now: Timestamp,
    },
}

impl View {
    pub fn new(served: &Arc<Served>, accept: &Accept, query: &Query) -> View {
        match accept.shape {
            Shape::Object if served.conversion.is_some() => View::Converted(served.clone()),
            Shape::Object => View::Whole,
            Shape::Metadata | Shape::MetadataList => View::Metadata,
            Shape::Table => {
                let include = match query.get("includeObject") {
                    "None" => Include::None,
                    "Object" => Include::Object,
                    _ => Include::Metadata,
                };
                View::Row { served: served.clone(), include, now: meta::time::now() }
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
            View::Metadata => ["meta.k8s.io/v1", "PartialObjectMetadata", "PartialObjectMetadataList"],
            View::Row { .. } => ["meta.k8s.io/v1", "Table", "Table"],
        }
    }

    /// The object in this form as a protobuf message, which a table has none of.
    pub fn message(&self, object: &Object) -> Bytes {
        match self {
            View::Converted(served) => protobuf::object(&served.read(object)),
            View::Metadata => protobuf::metadata(object.message()),
            View::Whole | View::Row { .. } => object.message().clone(),
        }
    }

    /// Appends the object in this form, as it stands in a list.
    pub fn write(&self, object: &Object, out: &mut Vec<u8>) {
        match self {
            View::Whole => object.write_to(out),
            View::Converted(served) => served.read(object).write_to(out),
            View::Metadata => write_metadata_only(object, out),
            View::Row { served, include, now } => write_row(served, object, *include, *now, out),
        }
    }

    /// What stands before and after the items of a list.
    fn frame(&self, served: &Served, metadata: &Value) -> (Vec<u8>, &'static [u8]) {
        let mut open = Vec::with_capacity(256);
        let [api_version, _, kind] = self.kinds(served);
        list_head(&mut open, kind, api_version, metadata);
        if let View::Row { served, .. } = self {
            open.extend_from_slice(b",\"columnDefinitions\":");
            columns(served).write_to(&mut open);
            open.extend_from_slice(b",\"rows\":[");
        } else {
            open.extend_from_slice(b",\"items\":[");
        }
        (open, b"]}")
    }

    /// A table of this one row, or the object itself in another form.
    pub fn write_single(&self, object: &Object, headers: bool, out: &mut Vec<u8>) {
        match self {
            View::Row { served, .. } => {
                table_head(served, object.rv, headers, out);
                self.write(object, out);
                out.extend_from_slice(b"]}");
            }
            _ => self.write(object, out),
        }
    }
}

fn table_head(served: &Served, rv: u64, headers: bool, out: &mut Vec<u8>) {
    list_head(out, "Table", "meta.k8s.io/v1", &json!({"resourceVersion": rv.to_string()}));
    out.extend_from_slice(b",\"columnDefinitions\":");
    if headers {
        columns(served).write_to(out);
    } else {
        out.extend_from_slice(b"null");
    }
    out.extend_from_slice(b",\"rows\":[");
}

fn list_head(out: &mut Vec<u8>, kind: &str, api_version: &str, metadata: &Value) {
    out.extend_from_slice(format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":").as_bytes());
    metadata.write_to(out);
}

fn columns(served: &Served) -> Value {
    served.columns()
}

/// The object as `meta.k8s.io/v1` PartialObjectMetadata.
pub fn metadata_only(mut document: Value) -> Value {
    let metadata = document.get_mut("metadata").map(Value::take).unwrap_or_else(Value::object);
    let mut out = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"});
    out.set(&["metadata"], metadata);
    out
}

fn write_metadata_only(object: &Object, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"apiVersion":"meta.k8s.io/v1","kind":"PartialObjectMetadata","metadata":"#);
    object.write_metadata_to(out);
    out.push(b'}');
}

/// The kind's function for rows works on the stored version.
fn write_row(served: &Served, object: &Object, include: Include, now: Timestamp, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"cells\":");
    // Columns of custom resources change with their definitions, so their cells are not kept.
    match if served.custom.is_none() { object.cells(served.rules) } else { None } {
        Some(cells) => cells.write(now, out),
        None => Value::Array(served.row(&object.stored_document(), now)).write_to(out),
    }
    out.extend_from_slice(b",\"object\":");
    match include {
        Include::None => out.extend_from_slice(b"null"),
        Include::Metadata => write_metadata_only(object, out),
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
}

impl ListPieces {
    pub fn new(view: View, served: &Served, metadata: &Value, objects: Vec<Arc<Object>>) -> ListPieces {
        let (open, close) = view.frame(served, metadata);
        ListPieces { view, objects: objects.into_iter(), open, close, first: true, done: false }
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
            self.view.write(&object, &mut out);
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
