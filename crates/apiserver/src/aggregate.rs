//! Aggregation: group versions that other API servers serve, behind this one.
//!
//! Reads: APIService objects. A request for a group version with a service is authenticated and authorized here, then
//! passed on with the front proxy's certificate and the user in headers. Source: the pages "Kubernetes API Aggregation
//! Layer" and "Configure the Aggregation Layer". Invariant: headers that name a user are always ours, never the client's.

mod automanaged;
mod availability;
pub mod merge;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::resource::Resource;
use arc_swap::ArcSwap;
use base64::Engine;
use http::HeaderMap;
use http::header::{HOST, HeaderName, HeaderValue};
use meta::{Value, json};

use crate::backend::{Backend, FORWARDED_URI, insert};
use crate::body::{Request, Response};
use crate::config::Config;
use crate::reply;
use crate::shared::Shared;
use crate::stream::connect::encode;
use crate::trace;
use crate::user::User;

pub use availability::{follow, is_unavailable, settle_local};

pub const GROUP: &str = "apiregistration.k8s.io";
pub const RESOURCE: &str = "apiservices";
/// Says who keeps an APIService: the server, at its start or all the time.
const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
const DEFAULT_PORT: u16 = 443;

/// The group versions that are served elsewhere, by the names of their APIServices.
#[derive(Default)]
pub struct Aggregator(ArcSwap<Vec<Arc<Remote>>>);

/// A group version that is served elsewhere.
pub struct Remote {
    name: String,
    group: String,
    version: String,
    spec: Value,
    backend: Result<Backend, String>,
    /// As the object's condition says.
    available: AtomicBool,
    known: Mutex<Known>,
}

/// What was learnt from the backend.
#[derive(Default)]
struct Known {
    /// Where its service led when it was last asked.
    found: Option<Found>,
    /// Its APIResourceList.
    resources: Option<Arc<Value>>,
    /// Where its OpenAPI document is, with the hash.
    openapi: Option<String>,
    /// Its OpenAPI document of version 2, with the tag that it came with.
    openapi_v2: Option<(HeaderValue, Arc<Value>)>,
}

/// Addresses, or the reason and message of a condition.
type Found = Result<Vec<SocketAddr>, (&'static str, String)>;

impl Aggregator {
    pub fn remotes(&self) -> Arc<Vec<Arc<Remote>>> {
        self.0.load_full()
    }

    pub fn find(&self, group: &str, version: &str) -> Option<Arc<Remote>> {
        self.0.load().iter().find(|r| r.group == group && r.version == version).cloned()
    }

    /// Who answers a path that names no resource: a version's discovery and OpenAPI documents.
    pub fn find_path(&self, path: &str) -> Option<Arc<Remote>> {
        let path = path.strip_prefix("/openapi/v3").unwrap_or(path);
        let mut segments = path.split('/').filter(|s| !s.is_empty());
        let (Some("apis"), Some(group), Some(version), None) =
            (segments.next(), segments.next(), segments.next(), segments.next())
        else {
            return None;
        };
        self.find(group, version)
    }
}

impl Remote {
    fn new(name: &str, spec: &Value, config: &Config) -> Remote {
        let text = |field: &str| spec.str_at(&[field]).unwrap_or_default().to_string();
        Remote {
            name: name.into(),
            group: text("group"),
            version: text("version"),
            spec: spec.clone(),
            backend: backend(spec, config),
            available: AtomicBool::new(false),
            known: Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_available(&self) -> bool {
        self.available.load(Ordering::Acquire)
    }

    /// The namespace and name of its service.
    fn service(&self) -> (&str, &str) {
        let text = |field: &str| self.spec.str_at(&["service", field]).unwrap_or_default();
        (text("namespace"), text("name"))
    }

    fn port(&self) -> u16 {
        self.spec.int_at(&["service", "port"]).and_then(|p| p.try_into().ok()).unwrap_or(DEFAULT_PORT)
    }
}

fn backend(spec: &Value, config: &Config) -> Result<Backend, String> {
    let identity = config.front_proxy.as_ref().map(|f| &f.identity);
    let text = |path: &[&str]| spec.str_at(path).unwrap_or_default().to_string();
    let tls = if spec.bool_at(&["insecureSkipTLSVerify"]) == Some(true) {
        pki::tls::client_unverified(identity)
    } else {
        let bundle = text(&["caBundle"]);
        let pem = match bundle.is_empty() {
            true => pki::tls::system_bundle(),
            false => {
                let pem = base64::engine::general_purpose::STANDARD.decode(bundle).map_err(|e| e.to_string())?;
                String::from_utf8(pem).map_err(|e| e.to_string())?
            }
        };
        pki::tls::client(&pem, identity)
    };
    let name = format!("{}.{}.svc", text(&["service", "name"]), text(&["service", "namespace"]));
    let tls = tls.map_err(|e| format!("unable to load root certificates: {e}"))?;
    Ok(Backend::tls(tls, Some(name)).kept())
}

/// Takes the stored objects as what is served elsewhere.
pub fn sync(shared: &Shared) {
    let Some(served) = shared.registry.stored(GROUP, RESOURCE) else { return };
    let old = shared.aggregator.remotes();
    let mut remotes = Vec::new();
    for object in served.cache.snapshot("", "", 0, false, |o| o.holds("\"service\"")).objects {
        let (document, name) = (object.document(), object.name.as_str());
        let spec = &document["spec"];
        if spec["service"].as_object().is_none() {
            continue;
        }
        let same = old.iter().find(|r| r.name == name && r.spec == *spec).cloned();
        let remote = same.unwrap_or_else(|| Arc::new(Remote::new(name, spec, &shared.config)));
        let status = availability::condition(&document).and_then(|c| c["status"].as_str());
        remote.available.store(status == Some("True"), Ordering::Release);
        remotes.push(remote);
    }
    shared.aggregator.0.store(Arc::new(remotes));
}

/// Passes a request on, as this user's.
pub async fn forward(shared: &Shared, user: &User, remote: &Remote, mut request: Request) -> Response {
    let unavailable = || reply::text(503, "service unavailable\n");
    if !remote.is_available() {
        return unavailable();
    }
    let (Ok(backend), Ok(at)) = (&remote.backend, availability::locate(shared, remote).await) else {
        return unavailable();
    };
    let target = request.uri().path_and_query().map_or("/", |p| p.as_str()).to_string();
    let path = request.uri().path().to_string();
    let headers = request.headers_mut();
    if !identify(headers, user) {
        return reply::text(500, "the user's name does not fit into a header\n");
    }
    insert(headers, FORWARDED_URI, &path);
    insert(headers, HeaderName::from_static("x-forwarded-proto"), "https");
    if let Some(host) = headers.get(HOST).cloned() {
        headers.insert(HeaderName::from_static("x-forwarded-host"), host);
    }
    let (namespace, name) = remote.service();
    insert(headers, HOST, &format!("{name}.{namespace}.svc:{}", remote.port()));
    let method = request.method().clone();
    let mut span =
        trace::of_client(method.as_str(), || format!("https://{name}.{namespace}.svc:{}{target}", remote.port()));
    span.iter().for_each(|span| span.hand_on(request.headers_mut()));
    match backend.pass(&at, request, &target).await {
        Ok(response) => {
            let code = i64::from(response.status().as_u16());
            span.iter_mut().for_each(|span| span.set("http.response.status_code", code));
            response
        }
        Err(why) => reply::text(503, format!("error trying to reach service: {why}\n")),
    }
}

/// Says who asks; false when that cannot be said.
fn identify(headers: &mut HeaderMap, user: &User) -> bool {
    let ours = |name: &&HeaderName| name.as_str().starts_with("x-remote-") || name.as_str().starts_with("impersonate-");
    let claimed: Vec<HeaderName> = headers.keys().filter(ours).cloned().collect();
    claimed.iter().for_each(|name| drop(headers.remove(name)));
    let extra = user.extra.iter().flat_map(|(key, values)| values.iter().map(move |v| (extra_header(key), v)));
    let mut all: Vec<(String, &String)> = vec![("x-remote-user".into(), &user.name)];
    all.extend((!user.uid.is_empty()).then(|| ("x-remote-uid".into(), &user.uid)));
    all.extend(user.groups.iter().map(|group| ("x-remote-group".into(), group)));
    all.extend(extra);
    for (name, value) in all {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_bytes(value.as_bytes())) {
            headers.append(name, value);
        }
    }
    headers.contains_key("x-remote-user")
}

fn extra_header(key: &str) -> String {
    format!("x-remote-extra-{}", encode(key))
}

/// The APIServices of what this server serves itself.
pub fn local_documents(served: &[Arc<Resource>]) -> Vec<(String, Value)> {
    let all = served.iter().map(|r| (r.group.as_ref(), r.version.as_ref()));
    let mut all: Vec<(&str, &str)> = all.filter(|(group, _)| *group != GROUP).collect();
    all.sort();
    all.dedup();
    all.into_iter()
        .map(|(group, version)| (format!("{version}.{group}"), document(group, version, "onstart")))
        .collect()
}

/// The APIService of a group version that this server serves itself.
fn document(group: &str, version: &str, automanaged: &str) -> Value {
    json!({
        "metadata": {"name": format!("{version}.{group}"), "labels": {AUTOMANAGED: automanaged}},
        "spec": {"group": group, "version": version, "groupPriorityMinimum": merge::group_priority(group),
            "versionPriority": merge::version_priority(group, version)},
    })
}

/// What API servers behind this one need to trust it: the data of `extension-apiserver-authentication`.
pub fn trust(config: &Config) -> Value {
    let mut data = Value::object();
    if let Some(ca) = &config.client_ca_pem {
        data.set(&["client-ca-file"], ca.as_str());
    }
    if let Some(front) = &config.front_proxy {
        let name = pki::identity::of_pem(&front.identity.certificate_pem).map(|i| i.name).unwrap_or_default();
        data.set(&["requestheader-allowed-names"], format!("[{name:?}]"));
        data.set(&["requestheader-client-ca-file"], front.ca_pem.as_str());
        data.set(&["requestheader-extra-headers-prefix"], r#"["X-Remote-Extra-"]"#);
        data.set(&["requestheader-group-headers"], r#"["X-Remote-Group"]"#);
        data.set(&["requestheader-uid-headers"], r#"["X-Remote-Uid"]"#);
        data.set(&["requestheader-username-headers"], r#"["X-Remote-User"]"#);
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_ours_to_name() {
        let mut headers = HeaderMap::new();
        insert(&mut headers, HeaderName::from_static("x-remote-group"), "system:masters");
        insert(&mut headers, HeaderName::from_static("x-remote-extra-a"), "b");
        insert(&mut headers, HeaderName::from_static("impersonate-user"), "root");
        let user = User {
            name: "ann".into(),
            uid: "1".into(),
            groups: vec!["a".into(), "b".into()],
            extra: vec![("k8s.io/Key".into(), vec!["v".into()])],
        };
        assert!(identify(&mut headers, &user));
        let mut all: Vec<String> = headers.iter().map(|(k, v)| format!("{k}: {}", v.to_str().expect("text"))).collect();
        all.sort();
        let want = ["x-remote-extra-k8s.io%2fkey: v", "x-remote-group: a", "x-remote-group: b"];
        assert_eq!(all, [&want[..], &["x-remote-uid: 1", "x-remote-user: ann"]].concat());
        assert!(!identify(&mut headers, &User { name: "a\nb".into(), ..User::default() }));
    }
}
