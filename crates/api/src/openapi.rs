//! OpenAPI documents: what clients validate, explain, complete and merge by. Version 3 by group version, version 2 whole.
//!
//! Pure functions from resources and the schema to bytes. Documents are written straight into a buffer, some
//! milliseconds each, so nothing need be kept between requests.
//! Source: the published documents' structure (`x-kubernetes-*` extensions: API reference, "OpenAPI").
//! Invariant: every `$ref` in a document points into it, and every served resource has paths and a schema with its kind.

mod docs;
mod facts;
mod paths;
pub mod protobuf;
mod schemas;
mod write;

pub use docs::Docs;

use crate::discovery::version_order;
use crate::resource::Resource;
use crate::schema;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use write::Writer;

/// The two forms differ in where schemas stand and in how parameters and bodies are spelled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    V2,
    V3,
}

impl Form {
    fn ref_prefix(self) -> &'static str {
        match self {
            Form::V2 => "#/definitions/",
            Form::V3 => "#/components/schemas/",
        }
    }
}

/// The path of a group version without the leading slash: `api/v1`, `apis/apps/v1`.
fn group_version_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// `GET /openapi/v3`: where each document is. The hash in an address changes when its document does, so clients may
/// keep documents for good.
pub fn v3_index<'r>(resources: impl IntoIterator<Item = &'r Resource>) -> Vec<u8> {
    let mut versions: BTreeMap<String, Vec<&Resource>> = BTreeMap::new();
    for r in resources {
        versions.entry(group_version_path(&r.group, &r.version)).or_default().push(r);
    }
    let all: Vec<&Resource> = versions.values().flatten().copied().collect();
    let pages = pages(all.iter().copied()).into_iter().map(|page| (page, Vec::new()));
    versions.extend(pages.collect::<Vec<_>>());
    let mut w = Writer::new();
    w.object(|w| {
        w.within("paths", |w| {
            for (path, resources) in &versions {
                let address = format!("/openapi/v3/{path}?hash={}", hash(resources));
                w.within(path, |w| w.pair("serverRelativeURL", &address));
            }
        });
    });
    w.finish()
}

/// What has a document without being a group version: the server's own pages and those of the built-in groups.
fn pages<'r>(resources: impl IntoIterator<Item = &'r Resource>) -> BTreeSet<String> {
    let groups = resources.into_iter().filter(|r| !r.group.is_empty() && r.schema.is_none());
    let own = ["api", "apis", "version", ".well-known/openid-configuration", "openid/v1/jwks"].map(str::to_string);
    groups.map(|r| format!("apis/{}", r.group)).chain(own).collect()
}

/// The hash in the index's address of a group version's document: over what the document is made from.
pub fn v3_hash<'r>(resources: impl IntoIterator<Item = &'r Resource>, group: &str, version: &str) -> String {
    let own: Vec<&Resource> = resources.into_iter().filter(|r| r.group == group && r.version == version).collect();
    hash(&own)
}

fn hash(resources: &[&Resource]) -> String {
    let mut sorted: Vec<String> = resources.iter().map(|r| format!("{r:?}")).collect();
    sorted.sort();
    let mut hasher = Sha256::new();
    hasher.update(env!("CARGO_PKG_VERSION"));
    hasher.update(include_bytes!("data/schema.txt"));
    hasher.update(include_bytes!("data/openapi.txt"));
    sorted.iter().for_each(|r| hasher.update(r));
    hasher.finalize().iter().fold(String::new(), |text, byte| text + &format!("{byte:02X}"))
}

/// `GET /openapi/v3/api/v1`, `GET /openapi/v3/apis/GROUP/VERSION`; `None` when nothing of it is served.
pub fn v3<'r>(
    resources: impl IntoIterator<Item = &'r Resource>,
    group: &str,
    version: &str,
    docs: &Docs,
) -> Option<Vec<u8>> {
    let own: Vec<&Resource> = resources.into_iter().filter(|r| r.group == group && r.version == version).collect();
    if own.is_empty() {
        return None;
    }
    Some(v3_document(docs, |w, used| paths::write(w, Form::V3, &own, docs, used)))
}

/// `GET /openapi/v3/apis/GROUP`, `GET /openapi/v3/version` and others that are no group versions.
pub fn v3_page<'r>(resources: impl IntoIterator<Item = &'r Resource>, page: &str, docs: &Docs) -> Option<Vec<u8>> {
    let known = pages(resources).contains(page);
    known.then(|| v3_document(docs, |w, used| paths::write_page(w, Form::V3, page, docs, used)))
}

fn v3_document(docs: &Docs, paths: impl FnOnce(&mut Writer, &mut schemas::Used<'static>)) -> Vec<u8> {
    let mut w = Writer::new();
    let mut used = schemas::Used::new(schema());
    w.object(|w| {
        w.pair("openapi", "3.0.0");
        info(w);
        w.within("paths", |w| paths(w, &mut used));
        w.within("components", |w| {
            w.within("schemas", |w| schemas::write(w, Form::V3, docs, &mut used));
            w.within("securitySchemes", security_scheme);
        });
    });
    w.finish()
}

/// `GET /openapi/v2`: all of it in one document (4 MB).
pub fn v2<'r>(resources: impl IntoIterator<Item = &'r Resource>, docs: &Docs) -> Vec<u8> {
    let mut versions: BTreeMap<(&str, _), Vec<&Resource>> = BTreeMap::new();
    for r in resources {
        versions.entry((&*r.group, version_order(&r.version))).or_default().push(r);
    }
    let pages = pages(versions.values().flatten().copied());
    let mut w = Writer::new();
    let mut used = schemas::Used::new(schema());
    w.object(|w| {
        w.pair("swagger", "2.0");
        info(w);
        w.within("paths", |w| {
            versions.values().for_each(|own| paths::write(w, Form::V2, own, docs, &mut used));
            pages.iter().for_each(|page| paths::write_page(w, Form::V2, page, docs, &mut used));
        });
        w.within("definitions", |w| schemas::write(w, Form::V2, docs, &mut used));
        w.within("securityDefinitions", security_scheme);
        w.objects("security", ["BearerToken"], |w, name| w.strings(name, []));
    });
    w.finish()
}

fn info(w: &mut Writer) {
    w.within("info", |w| {
        w.pair("title", "Kubernetes");
        let version = meta::KUBERNETES_VERSION.trim_start_matches('v');
        w.pair("version", version.rsplit_once('.').map_or(version, |(minor, _)| minor));
    });
}

fn security_scheme(w: &mut Writer) {
    w.within("BearerToken", |w| {
        w.pair("type", "apiKey");
        w.pair("description", "Bearer Token authentication");
        w.pair("name", "authorization");
        w.pair("in", "header");
    });
}

#[cfg(test)]
mod tests;
