//! What form of answer the client takes: the `Accept` and `Accept-Encoding` headers.
//!
//! Invariant: of the forms that the server has, the one that the client likes best is taken (the first, of several with
//! the same `q`, and wildcards last); none is 406.

use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderName};
use meta::{Status, protobuf};

use crate::request::Verb;

/// The encodings that the server reads and writes, in the order upstream lists them.
pub const MEDIA_TYPES: [&str; 3] = ["application/json", "application/yaml", protobuf::MEDIA_TYPE];
const STREAM_TYPES: [&str; 2] = ["application/json;stream=watch", PROTOBUF_STREAM];
/// The content type of watches in protobuf.
pub const PROTOBUF_STREAM: &str = "application/vnd.kubernetes.protobuf;stream=watch";

/// Tables and metadata alone are the same in both versions.
const META: [&str; 2] = ["meta.k8s.io/v1", "meta.k8s.io/v1beta1"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Yaml,
    Protobuf,
}

impl Format {
    pub fn media_type(self) -> &'static str {
        MEDIA_TYPES[self as usize]
    }
}

/// The shape of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Object,
    Table,
    Metadata,
    MetadataList,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept {
    pub format: Format,
    pub shape: Shape,
    /// The version of `meta.k8s.io` in which tables and metadata alone are told.
    pub meta: &'static str,
    pub gzip: bool,
}

/// What there is to choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// All forms: built-in kinds, Status.
    Everything,
    /// The same of a collection.
    List,
    /// What is never shown as a table: reviews.
    Review,
    /// What has one shape only.
    Discovery,
    /// Custom resources, which have no protobuf form but that of their metadata.
    Custom,
    /// The same as streams of events, for which there is no YAML.
    Watch,
    WatchCustom,
}

impl Offer {
    pub fn of(is_custom: bool, verb: Verb) -> Offer {
        match (is_custom, verb) {
            (false, Verb::Watch) => Offer::Watch,
            (true, Verb::Watch) => Offer::WatchCustom,
            (false, Verb::List) => Offer::List,
            (false, _) => Offer::Everything,
            (true, _) => Offer::Custom,
        }
    }

    fn has(self, format: Format, shape: Shape) -> bool {
        let is_watch = matches!(self, Offer::Watch | Offer::WatchCustom);
        match (format, shape) {
            (_, Shape::Table) if self == Offer::Review => false,
            (_, shape) if self == Offer::Discovery && shape != Shape::Object => false,
            (Format::Json, _) => true,
            (Format::Yaml, _) => !is_watch,
            // Compat: a Table has no protobuf form (apimachinery's types.go).
            (Format::Protobuf, Shape::Table) => false,
            (Format::Protobuf, Shape::Metadata | Shape::MetadataList) => true,
            (Format::Protobuf, Shape::Object) => !matches!(self, Offer::Custom | Offer::WatchCustom),
        }
    }

    fn media_types(self) -> &'static [&'static str] {
        match self {
            Offer::Everything | Offer::List | Offer::Review | Offer::Discovery => &MEDIA_TYPES,
            Offer::Custom => &MEDIA_TYPES[..2],
            Offer::Watch => &STREAM_TYPES,
            Offer::WatchCustom => &STREAM_TYPES[..1],
        }
    }

    /// Compat: the routes of built-in kinds are go-restful's, which refuses what it never heard of in its own words.
    fn refusal(self, headers: &HeaderMap) -> Status {
        let known = |name: &str| name == "*/*" || MEDIA_TYPES.contains(&name);
        if clauses(headers, ACCEPT).any(|(name, ..)| known(name)) {
            // The form is looked at before what a stream or a custom resource can be sent as.
            let has_form = best(headers, Offer::Everything).is_some();
            return Status::not_acceptable(if has_form { self.media_types() } else { &MEDIA_TYPES });
        }
        if matches!(self, Offer::Custom | Offer::WatchCustom) {
            return Status::not_acceptable(self.media_types());
        }
        let streams = if matches!(self, Offer::List | Offer::Watch) { &STREAM_TYPES[..] } else { &[] };
        let all = [&MEDIA_TYPES[..], streams].concat().join(", ");
        let message = format!("406: Not Acceptable\n\nAvailable representations: {all}");
        Status { message, ..Status::not_acceptable(&[]) }.with_causes(vec![])
    }
}

impl Accept {
    /// Plain JSON.
    pub const JSON: Accept = Accept { format: Format::Json, shape: Shape::Object, meta: META[0], gzip: false };

    pub fn parse(headers: &HeaderMap, offer: Offer) -> Result<Accept, Status> {
        let gzip = clauses(headers, ACCEPT_ENCODING).any(|(name, q, _)| name == "gzip" && q > 0);
        match best(headers, offer) {
            Some(found) => Ok(Accept { gzip, ..found }),
            None if clauses(headers, ACCEPT).next().is_some() => Err(offer.refusal(headers)),
            None => Ok(Accept { gzip, ..Accept::JSON }),
        }
    }

    /// The format of an error to a client that sent these headers.
    pub fn of_errors(headers: &HeaderMap) -> Format {
        Accept::parse(headers, Offer::Everything).map_or(Format::Json, |accept| accept.format)
    }
}

/// What the client likes best of what is offered.
fn best(headers: &HeaderMap, offer: Offer) -> Option<Accept> {
    let mut best: Option<((u16, bool, bool), Accept)> = None;
    for (media_type, q, parameters) in clauses(headers, ACCEPT) {
        let rank = (q, !media_type.starts_with("*/"), !media_type.ends_with("/*"));
        if let Some(found) = form(media_type, parameters, offer)
            && best.is_none_or(|(other, _)| rank > other)
        {
            best = Some((rank, found));
        }
    }
    best.map(|(_, found)| found)
}

/// What a header lists: the value, its `q` in thousandths, and its parameters.
fn clauses(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = (&str, u16, &str)> {
    let texts = headers.get_all(name).into_iter().filter_map(|v| v.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(str::trim).filter(|clause| !clause.is_empty()).map(|clause| {
        let (value, parameters) = clause.split_once(';').unwrap_or((clause, ""));
        let q = pairs(parameters).find(|(key, _)| *key == "q").and_then(|(_, q)| q.parse::<f32>().ok()).unwrap_or(1.0);
        (value.trim(), (q.clamp(0.0, 1.0) * 1000.0) as u16, parameters)
    })
}

fn pairs(parameters: &str) -> impl Iterator<Item = (&str, &str)> {
    parameters.split(';').filter_map(|part| part.split_once('=')).map(|(key, value)| (key.trim(), value.trim()))
}

fn form(media_type: &str, parameters: &str, offer: Offer) -> Option<Accept> {
    let format = match media_type {
        "application/json" | "*/*" | "application/*" => Format::Json,
        "application/yaml" => Format::Yaml,
        protobuf::MEDIA_TYPE => Format::Protobuf,
        _ => return None,
    };
    let (mut kind, mut version, mut group) = (None, "", "");
    for (key, value) in pairs(parameters) {
        match key {
            "as" => kind = Some(value),
            "v" => version = value,
            "g" => group = value,
            _ => {}
        }
    }
    let Some(kind) = kind else {
        return offer.has(format, Shape::Object).then_some(Accept { format, ..Accept::JSON });
    };
    let shape = match kind {
        "Table" => Shape::Table,
        "PartialObjectMetadata" => Shape::Metadata,
        "PartialObjectMetadataList" => Shape::MetadataList,
        _ => return None,
    };
    let meta = META.into_iter().find(|meta| meta.split_once('/') == Some((group, version)))?;
    offer.has(format, shape).then_some(Accept { format, shape, meta, gzip: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn headers() {
        golden::check!("accept.txt", |case| {
            let (header, offer) = case.rsplit_once(" | ").unwrap_or((case, "Everything"));
            let offers = [
                Offer::Everything,
                Offer::List,
                Offer::Custom,
                Offer::Watch,
                Offer::WatchCustom,
                Offer::Review,
                Offer::Discovery,
            ];
            let offer = offers.into_iter().find(|o| format!("{o:?}") == offer).expect("an offer");
            let headers = HeaderMap::from_iter([(ACCEPT, header.parse().expect("a header"))]);
            let chosen = Accept::parse(&headers, offer);
            chosen.map_or_else(|status| status.message, |a| format!("{:?} {:?}", a.format, a.shape))
        });
    }

    #[test]
    fn gzip() {
        for (header, want) in [("gzip", true), ("br, gzip;q=0.5", true), ("gzip;q=0", false), ("br", false)] {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(header))]);
            assert_eq!(Accept::parse(&headers, Offer::Everything).map(|a| a.gzip), Ok(want), "{header}");
        }
    }
}
