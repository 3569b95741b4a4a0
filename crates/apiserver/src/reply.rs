//! Answers: objects, documents, lists and errors as HTTP responses.
//!
//! Reads: what the client accepts. Invariant: every error leaves as a `Status` object with the same code as the
//! response; a response built here always has a Content-Type.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, VARY, WARNING};
use http::{Response as HttpResponse, StatusCode};
use meta::{Status, Value};

use crate::accept::{Accept, Format};
use crate::body::{Body, Pieces, Response};
use crate::call::Call;
use crate::listing::Token;
use crate::object::Object;
use crate::options::WriteOptions;
use crate::view::{ListPieces, View, metadata_only};
use crate::{protobuf, table, yaml};

/// Answers smaller than this are never compressed, as upstream.
const GZIP_FROM_BYTES: usize = 128 * 1024;
pub const JSON: &str = "application/json";
const PROTOBUF: &str = meta::protobuf::MEDIA_TYPE;

fn response(code: u16, content_type: &'static str, body: Body) -> Response {
    let mut response = HttpResponse::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Plain text.
pub fn text(code: u16, text: impl Into<Bytes>) -> Response {
    response(code, "text/plain; charset=utf-8", Body::Full(text.into()))
}

/// JSON that is no API object of the request's own kind: discovery, version, OpenAPI.
pub fn json(code: u16, bytes: impl Into<Bytes>) -> Response {
    response(code, JSON, Body::Full(bytes.into()))
}

/// An error, in the format that the client takes.
pub fn status(status: &Status, format: Format) -> Response {
    let (content_type, bytes) = render(format, &status.to_value());
    let mut response = response(status.code, content_type, Body::from(bytes));
    if let Some(details) = &status.details
        && details.retry_after_seconds > 0
    {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(details.retry_after_seconds));
    }
    response
}

/// A document's content type and bytes; JSON where it has no other form.
pub fn render(format: Format, value: &Value) -> (&'static str, Vec<u8>) {
    let bytes = match format {
        Format::Json => None,
        Format::Yaml => Some(yaml::write(value).into_bytes()),
        Format::Protobuf => protobuf::body(value),
    };
    match bytes {
        Some(bytes) => (format.media_type(), bytes),
        None => (JSON, value.to_vec()),
    }
}

/// The end of a list whose revision is gone, with a token that goes on with what is there now.
pub fn expired_list(call: &Call, token: &Token) -> Response {
    let message = "The provided continue parameter is too old to display a consistent list result. You can start a new \
                   list without the continue parameter, or use the continue token in this response to retrieve the \
                   remainder of the results. Continuing with the provided token results in an inconsistent list - \
                   objects that were created, modified, or deleted between the time the first chunk was returned and \
                   now may show up in the list.";
    let mut value = Status::expired(message).to_value();
    value.set(&["metadata", "continue"], token.encode());
    let (content_type, bytes) = render(call.accept.format, &value);
    response(410, content_type, Body::from(bytes))
}

/// A success without an object, as deletions answer.
pub fn success(details: Value) -> Value {
    let mut value = meta::json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    value.set(&["details"], details);
    value
}

/// A stored object in the form the client asked for.
pub fn object(call: &Call, code: u16, object: &Object) -> Response {
    let view = View::new(&call.served, &call.accept, &call.query);
    if call.accept.format == Format::Protobuf {
        let [api_version, kind, _] = view.kinds(&call.served);
        return full(call, code, PROTOBUF, protobuf::enveloped(api_version, kind, &view.message(object)));
    }
    let mut out = Vec::with_capacity(object.len_bytes() + 512);
    view.write_single(object, true, &mut out);
    in_text(call, code, out)
}

/// A new object; that of a dry run has no version.
pub fn created(call: &Call, made: &Object, options: &WriteOptions) -> Response {
    if !options.dry_run {
        return object(call, 201, made);
    }
    let mut value = made.stored_document();
    crate::write::from_stored(call, &mut value);
    document(call, 201, &value)
}

/// A document that is not stored under its own key: the result of a dry run, a Scale, a review.
pub fn document(call: &Call, code: u16, document: &Value) -> Response {
    let (content_type, bytes) = match View::new(&call.served, &call.accept, &call.query) {
        View::Metadata(meta) if document["metadata"].as_object().is_some() => {
            render(call.accept.format, &metadata_only(document.clone(), meta))
        }
        View::Row { meta, include, now, .. } if call.served.custom.is_none() => {
            let shown = table::of(document, meta, include, now);
            render(call.accept.format, shown.as_ref().unwrap_or(document))
        }
        _ => render(call.accept.format, document),
    };
    full(call, code, content_type, bytes)
}

/// JSON, or the same as YAML.
fn in_text(call: &Call, code: u16, json: Vec<u8>) -> Response {
    if call.accept.format == Format::Yaml
        && let Ok(value) = meta::parse(&json)
    {
        return full(call, code, Format::Yaml.media_type(), yaml::write(&value).into_bytes());
    }
    full(call, code, JSON, json)
}

fn full(call: &Call, code: u16, content_type: &'static str, bytes: Vec<u8>) -> Response {
    if bytes.len() >= GZIP_FROM_BYTES && call.accept.gzip && !call.is_near {
        return gzipped(code, content_type, Whole(Some(bytes.into())));
    }
    response(code, content_type, Body::from(bytes))
}

/// A list, written while it is sent.
pub fn pieces(call: &Call, pieces: ListPieces) -> Response {
    if call.accept.format == Format::Yaml {
        let mut pieces = pieces;
        let mut all = Vec::new();
        while let Some(piece) = pieces.next() {
            all.extend_from_slice(&piece);
        }
        return in_text(call, 200, all);
    }
    streamed(call, JSON, pieces)
}

/// A list in protobuf, written while it is sent.
pub fn list_message(call: &Call, pieces: protobuf::ListMessage) -> Response {
    streamed(call, PROTOBUF, pieces)
}

fn streamed(call: &Call, content_type: &'static str, pieces: impl Pieces + 'static) -> Response {
    let large = pieces.len_bytes().is_none_or(|len| len >= GZIP_FROM_BYTES as u64);
    if large && call.accept.gzip && !call.is_near {
        return gzipped(200, content_type, pieces);
    }
    response(200, content_type, Body::pieces(pieces))
}

/// Bytes that are there already.
struct Whole(Option<Bytes>);

impl Pieces for Whole {
    fn next(&mut self) -> Option<Bytes> {
        self.0.take()
    }

    fn len_bytes(&self) -> Option<u64> {
        self.0.as_ref().map(|b| b.len() as u64)
    }
}

fn gzipped(code: u16, content_type: &'static str, pieces: impl Pieces + 'static) -> Response {
    let gzip = Gzip { pieces, encoder: Some(GzEncoder::new(Vec::new(), Compression::fast())) };
    let mut response = response(code, content_type, Body::pieces(gzip));
    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    response
}

struct Gzip<P> {
    pieces: P,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl<P: Pieces> Pieces for Gzip<P> {
    fn next(&mut self) -> Option<Bytes> {
        let mut encoder = self.encoder.take()?;
        loop {
            match self.pieces.next() {
                Some(piece) => {
                    // Writing to memory cannot fail.
                    let _ = encoder.write_all(&piece);
                    if !encoder.get_ref().is_empty() {
                        let out = std::mem::take(encoder.get_mut());
                        self.encoder = Some(encoder);
                        return Some(out.into());
                    }
                }
                None => return encoder.finish().ok().map(Bytes::from),
            }
        }
    }

    fn len_bytes(&self) -> Option<u64> {
        None
    }
}

/// Adds the warnings that came up to the headers.
pub fn add_warnings(response: &mut Response, warnings: Vec<String>) {
    for text in warnings {
        let quoted: String = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .flat_map(|c| if matches!(c, '"' | '\\') { vec!['\\', c] } else { vec![c] })
            .collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

/// A document to who is no `Call`, such as a path without a resource.
pub fn plain(accept: &Accept, value: &Value) -> Response {
    let (content_type, bytes) = render(accept.format, value);
    response(200, content_type, Body::from(bytes))
}
