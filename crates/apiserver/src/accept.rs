//! What form of answer the client takes: the `Accept` header.
//!
//! Invariant: the first form that the client names and the server has is taken; none is 406.

use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING};
use meta::Status;

/// The encodings that the server writes, in the order upstream lists them.
pub const MEDIA_TYPES: [&str; 2] = ["application/json", "application/yaml"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Yaml,
}

/// The shape of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Object,
    Table,
    /// One object or a list, as the request is.
    Metadata,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept {
    pub format: Format,
    pub shape: Shape,
    pub gzip: bool,
}

impl Accept {
    /// Plain JSON.
    pub const JSON: Accept = Accept { format: Format::Json, shape: Shape::Object, gzip: false };

    pub fn parse(headers: &HeaderMap) -> Result<Accept, Status> {
        let gzip = headers
            .get(ACCEPT_ENCODING)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|v| v.split(',').any(|e| e.trim().starts_with("gzip")));
        let mut any = false;
        for header in headers.get_all(ACCEPT) {
            let Ok(text) = header.to_str() else { continue };
            for clause in text.split(',').map(str::trim).filter(|c| !c.is_empty()) {
                any = true;
                if let Some((format, shape)) = clause_form(clause) {
                    return Ok(Accept { format, shape, gzip });
                }
            }
        }
        if any { Err(Status::not_acceptable(&MEDIA_TYPES)) } else { Ok(Accept { gzip, ..Accept::JSON }) }
    }
}

fn clause_form(clause: &str) -> Option<(Format, Shape)> {
    let mut parts = clause.split(';').map(str::trim);
    let format = match parts.next()? {
        "application/json" | "*/*" | "application/*" => Format::Json,
        "application/yaml" => Format::Yaml,
        _ => return None,
    };
    let (mut kind, mut version, mut group) = ("", "", "");
    for part in parts {
        match part.split_once('=') {
            Some(("as", v)) => kind = v,
            Some(("v", v)) => version = v,
            Some(("g", v)) => group = v,
            _ => {}
        }
    }
    let shape = match kind {
        "" => Shape::Object,
        _ if group != "meta.k8s.io" || version != "v1" => return None,
        "Table" => Shape::Table,
        "PartialObjectMetadata" | "PartialObjectMetadataList" => Shape::Metadata,
        _ => return None,
    };
    Some((format, shape))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        for (header, want) in [
            ("", Ok((Format::Json, Shape::Object))),
            ("*/*", Ok((Format::Json, Shape::Object))),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                Ok((Format::Json, Shape::Table)),
            ),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1, application/json",
                Ok((Format::Json, Shape::Metadata)),
            ),
            ("application/json;as=Table;v=v2;g=meta.k8s.io,application/json", Ok((Format::Json, Shape::Object))),
            ("application/vnd.kubernetes.protobuf, application/json", Ok((Format::Json, Shape::Object))),
            ("application/yaml", Ok((Format::Yaml, Shape::Object))),
            ("text/html", Err(406)),
        ] {
            let mut headers = HeaderMap::new();
            if !header.is_empty() {
                headers.insert(ACCEPT, header.parse().expect("header"));
            }
            assert_eq!(Accept::parse(&headers).map(|a| (a.format, a.shape)).map_err(|s| s.code), want, "{header}");
        }
    }
}
