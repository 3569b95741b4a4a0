//! Paths that are no resources: discovery, OpenAPI, version, health, metrics, token keys.
//!
//! Invariant: discovery and OpenAPI are made from the same table that requests are routed by.

use std::sync::Arc;

use api::openapi::Docs;
use api::resource::Resource;
use api::{discovery, openapi};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH};
use http::{HeaderMap, Method, StatusCode};
use meta::{Status, Value, json};
use pki::tokens::Verifier;

use crate::accept::{Accept, Format, Offer};
use crate::aggregate::{Remote, merge};
use crate::body::{Body, Response};
use crate::custom::definitions;
use crate::request::{self, Query};
use crate::shared::Shared;
use crate::{health, issuer, metrics, reply};

/// What the server calls itself.
pub const MAJOR: &str = "1";
pub const MINOR: &str = "37";

/// The oldest version whose servers may run beside.
const COMPATIBLE_MINOR: &str = "36";

/// What OpenAPI version 2 is called in protobuf.
const OPENAPI_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Answers a path.
pub async fn answer(
    shared: &Shared,
    method: &Method,
    path: &str,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response, Status> {
    if method != Method::GET && method != Method::HEAD {
        return if path == "/" { Err(Status::method_not_allowed()) } else { Ok(not_found()) };
    }
    let segments: Vec<&str> = request::segments(path).collect();
    if matches!(segments.as_slice(), ["apis" | "openapi", ..]) {
        definitions::sync(shared);
    }
    let served = shared.registry.resources();
    let resources = || served.iter().map(|r| &**r);
    let remotes = shared.aggregator.remotes();
    let remotes: Vec<_> = remotes.iter().map(|r| &**r).collect();
    let whole = wants_aggregated(headers);
    match segments.as_slice() {
        [""] if path == "/" => Ok(reply::json(200, index(resources()).to_vec())),
        ["apis", "", ..] => Ok(not_found()),
        ["api", ..] if segments.contains(&"") => missing(shared, "", ""),
        ["apis", group, ..] if segments.contains(&"") => missing(shared, group, ""),
        _ if segments.contains(&"") => Ok(not_found()),
        [".well-known", "openid-configuration"] => {
            Ok(of_issuer(shared, |verifier| issuer::configuration(verifier, &address(shared))))
        }
        ["openid", "v1", "jwks"] => Ok(of_issuer(shared, issuer::keys)),
        ["version"] => Ok(reply::json(200, version().to_vec())),
        ["healthz" | "livez" | "readyz", ..] => Ok(health::answer(shared, path, query).await),
        ["metrics", page @ ..] if matches!(page, [] | ["slis"]) => {
            let text = if page.is_empty() { metrics::render(shared) } else { shared.metrics.checks.render() };
            let mut response = reply::text(200, text);
            let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            Ok(response)
        }
        ["api"] if whole.is_some() => Ok(aggregated(whole, &discovery::aggregated(resources(), true))),
        ["apis"] if whole.is_some() => {
            Ok(aggregated(whole, &merge::aggregated(&remotes, discovery::aggregated(resources(), false))))
        }
        ["api"] => plain(headers, Some(discovery::api_versions(&address(shared)))),
        ["apis"] => plain(headers, Some(merge::group_list(&remotes, discovery::group_list(resources())))),
        ["api", version] => listed(shared, headers, "", version),
        ["apis", group] => plain(headers, merge::group(&remotes, group, discovery::group(resources(), group))),
        ["apis", group, version] => listed(shared, headers, group, version),
        ["openapi", "v2"] if wants_protobuf(headers) => protobuf_v2(&openapi_v2(&remotes, resources())),
        // Compat: in whatever form it is asked for.
        ["openapi", "v3"] => Ok(reply::text(200, merge::openapi_index(&remotes, openapi::v3_index(resources())))),
        ["openapi", ..] if !takes_json(headers) => Err(Status::not_acceptable(&[reply::JSON])),
        ["openapi", "v2"] => Ok(reply::json(200, openapi_v2(&remotes, resources()))),
        // Compat: go-openapi's handler says nothing.
        ["openapi", "v3", ..] if !openapi_is_known(resources(), &segments[2..]) => Ok(reply::text(404, "")),
        ["openapi", "v3", "api", version] => Ok(document(resources, headers, query, "", version)),
        ["openapi", "v3", "apis", group, version] => Ok(document(resources, headers, query, group, version)),
        ["openapi", "v3", page @ ..] => match openapi::v3_page(resources(), &page.join("/"), &docs()) {
            Some(document) => Ok(reply::json(200, document)),
            None => Ok(reply::text(404, "")),
        },
        ["api" | "version", ..] => missing(shared, "", ""),
        ["apis", group, ..] => missing(shared, group, ""),
        _ => Ok(not_found()),
    }
}

/// There is none where no tokens are read.
fn of_issuer(shared: &Shared, page: impl FnOnce(&Verifier) -> Response) -> Response {
    shared.config.tokens.as_ref().map_or_else(not_found, |tokens| page(&tokens.verifier))
}

fn listed(shared: &Shared, headers: &HeaderMap, group: &str, version: &str) -> Result<Response, Status> {
    let served = shared.registry.resources();
    match discovery::resource_list(served.iter().map(|r| &**r), group, version) {
        Some(list) => plain(headers, Some(list)),
        None => missing(shared, group, version),
    }
}

fn openapi_is_known<'r>(mut resources: impl Iterator<Item = &'r Resource>, path: &[&str]) -> bool {
    match path {
        [] => true,
        ["api", version] => resources.any(|r| r.group.is_empty() && r.version == *version),
        ["apis", group, version] => resources.any(|r| r.group == *group && r.version == *version),
        _ => true,
    }
}

/// Compat: below what is built in, an unknown path is a Status, as is an unknown resource of a known group version;
/// anything else is plain text (go-restful's routing).
pub fn missing(shared: &Shared, group: &str, version: &str) -> Result<Response, Status> {
    let known = |r: &Arc<Resource>| r.group == group && (r.version == version || !r.type_name.is_empty());
    match shared.registry.resources().iter().any(known) {
        true => Err(Status::unknown_resource()),
        false => Ok(not_found()),
    }
}

pub fn not_found() -> Response {
    reply::text(404, "404 page not found\n")
}

fn docs() -> Docs {
    Docs::new(api_docs::text())
}

fn address(shared: &Shared) -> String {
    let port = shared.address.get().map_or(shared.config.advertise_port, |a| a.port());
    format!("{}:{port}", shared.config.advertise)
}

fn plain(headers: &HeaderMap, value: Option<Value>) -> Result<Response, Status> {
    match value {
        Some(value) => Ok(reply::plain(&Accept::parse(headers, Offer::Discovery)?, &value)),
        None => Ok(not_found()),
    }
}

fn takes_json(headers: &HeaderMap) -> bool {
    // The documents are JSON and nothing else, as such watches are.
    Accept::parse(headers, Offer::WatchCustom).is_ok_and(|accept| accept.format == Format::Json)
}

/// Compat: kubectl takes version 2 in nothing else, and its media type has an `@` or, in older ones, a dot.
fn wants_protobuf(headers: &HeaderMap) -> bool {
    let all = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok());
    all.flat_map(|v| v.split(',')).any(|clause| {
        let media_type = clause.split(';').next().unwrap_or_default().trim();
        media_type == OPENAPI_PROTOBUF || media_type == OPENAPI_PROTOBUF.replace("v2.v1", "v2@v1")
    })
}

fn openapi_v2<'r>(remotes: &[&Remote], resources: impl Iterator<Item = &'r Resource>) -> Vec<u8> {
    merge::openapi_v2(remotes, openapi::v2(resources, &docs()))
}

fn protobuf_v2(document: &[u8]) -> Result<Response, Status> {
    let document =
        meta::parse(document).map_err(|e| Status::internal(format!("the OpenAPI document is damaged: {e}")))?;
    let mut response = reply::json(200, openapi::protobuf::v2(&document));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(OPENAPI_PROTOBUF));
    Ok(response)
}

/// The form in which discovery is asked for whole.
fn wants_aggregated(headers: &HeaderMap) -> Option<Format> {
    let wanted = |clause: &str| {
        let clause: String = clause.chars().filter(|c| !c.is_whitespace()).collect();
        let has = |part: &str| clause.split(';').any(|p| p == part);
        let whole = discovery::AGGREGATED_PARAMETERS.split(';').all(has);
        [Format::Json, Format::Yaml, Format::Protobuf].into_iter().find(|form| whole && has(form.media_type()))
    };
    let all = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok());
    all.flat_map(|v| v.split(',')).find_map(wanted)
}

fn aggregated(form: Option<Format>, value: &Value) -> Response {
    let (media_type, body) = reply::render(form.unwrap_or(Format::Json), value);
    let media_type = format!("{media_type};{}", discovery::AGGREGATED_PARAMETERS);
    let mut response = reply::json(200, body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_str(&media_type).expect("plain text"));
    response
}

/// An OpenAPI document; one asked for by its hash may be kept for good.
fn document<'r, R: Iterator<Item = &'r Resource>>(
    resources: impl Fn() -> R,
    headers: &HeaderMap,
    query: &Query,
    group: &str,
    version: &str,
) -> Response {
    if !resources().any(|r| r.group == group && r.version == version) {
        return not_found();
    }
    let hash = openapi::v3_hash(resources(), group, version);
    let tag = format!("\"{hash}\"");
    let mut response = match headers.get(IF_NONE_MATCH) {
        Some(known) if known.as_bytes() == tag.as_bytes() => {
            let mut response = Response::new(Body::Empty);
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        }
        _ => match openapi::v3(resources(), group, version, &docs()) {
            Some(document) => reply::json(200, document),
            None => return not_found(),
        },
    };
    if query.get("hash") == hash {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    }
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

fn version() -> Value {
    let platform = format!("{}/{}", std::env::consts::OS, go_arch());
    json!({
        "major": MAJOR, "minor": MINOR, "emulationMajor": MAJOR, "emulationMinor": MINOR, "minCompatibilityMajor": MAJOR,
        "minCompatibilityMinor": COMPATIBLE_MINOR, "gitVersion": format!("{}+knarr-{}", meta::KUBERNETES_VERSION, env!("CARGO_PKG_VERSION")), "gitCommit": "", "gitTreeState": "clean", "buildDate": "",
        "goVersion": "", "compiler": "rustc", "platform": platform,
    })
}

/// The architecture as Go names it.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn index<'r>(resources: impl Iterator<Item = &'r Resource>) -> Value {
    let mut paths: Vec<String> =
        ["/api", "/api/v1", "/apis", "/metrics", "/metrics/slis", "/openapi/v2", "/openapi/v3", "/version"]
            .map(str::to_string)
            .to_vec();
    paths.extend([issuer::CONFIGURATION, issuer::KEYS].map(str::to_string));
    paths.extend(health::paths());
    for r in resources.filter(|r| !r.group.is_empty()) {
        paths.push(format!("/apis/{}", r.group));
        paths.push(format!("/apis/{}/{}", r.group, r.version));
    }
    paths.sort();
    paths.dedup();
    let mut value = Value::object();
    value.set(&["paths"], paths);
    value
}
