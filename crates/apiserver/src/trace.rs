//! Traces: a span for every request, spans for its parts, and the context that goes on to webhooks and other API servers.
//!
//! Reads: a TracingConfiguration, `traceparent` of callers. Source: the page "Traces For Kubernetes System Components", W3C
//! Trace Context; names and attributes as kube-apiserver sends them. Invariants: without a tracer nothing is allocated; no
//! request waits for the collector; only who may do everything is believed about where a trace began, others are linked to.

mod config;
pub mod otlp;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use http::HeaderMap;
use http::header::{HOST, HeaderName, USER_AGENT};
use tokio::task::JoinHandle;

pub use self::config::Settings;
pub use self::otlp::Tracer;
use self::otlp::{AnyValue, KeyValue, Link, Span, Status};
use crate::backend::insert;
use crate::body::{Body, Request, Response};
use crate::call::Call;
use crate::handle::Connection;
use crate::registry::Served;
use crate::request::{Target, Verb};
use crate::user::{MASTERS, User};

const PARENT: HeaderName = HeaderName::from_static("traceparent");
const STATE: HeaderName = HeaderName::from_static("tracestate");
const STATE_MAX_BYTES: usize = 512;
/// Who scrapes and probes; believed as well (kube-apiserver).
const MONITORING: &str = "system:monitoring";

tokio::task_local! { static CURRENT: Arc<Scope>; }

/// The request that is being worked on.
pub struct Scope {
    tracer: Arc<Tracer>,
    audit_id: String,
    since: SystemTime,
    /// Known once it is known who asks.
    trace: OnceLock<Arc<Trace>>,
    /// The span that new ones are parts of.
    parent: AtomicU64,
}

struct Trace {
    id: u128,
    state: String,
    sampled: bool,
}

/// What a part of a trace is, in OTLP's numbers.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Internal = 1,
    Server = 2,
    Client = 3,
}

/// A span that lasts until this is dropped.
pub struct Open {
    scope: Arc<Scope>,
    trace: Arc<Trace>,
    id: u64,
    /// `None` where the trace is not sampled: then there is only a context to hand on.
    span: Option<Box<Span>>,
    /// The span that this one has taken the place of as the parent of new ones.
    entered: Option<u64>,
}

pub type Attributes = Vec<(&'static str, String)>;

impl Scope {
    pub fn new(tracer: Option<&Arc<Tracer>>, audit_id: &str) -> Option<Scope> {
        Some(Scope {
            tracer: tracer?.clone(),
            audit_id: audit_id.into(),
            since: SystemTime::now(),
            trace: OnceLock::new(),
            parent: AtomicU64::default(),
        })
    }
}

/// Runs the work on one request where its spans find each other.
pub fn scoped<T>(scope: Option<Scope>, work: impl Future<Output = T> + Send + 'static) -> BoxFuture<'static, T> {
    match scope {
        Some(scope) => CURRENT.scope(Arc::new(scope), work).boxed(),
        None => work.boxed(),
    }
}

/// `tokio::spawn` of a part of the request.
pub fn spawn<F>(work: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    match current() {
        Some(scope) => tokio::spawn(CURRENT.scope(scope, work)),
        None => tokio::spawn(work),
    }
}

/// Does what `span` measures; spans that are opened meanwhile are its parts.
pub async fn within<T>(span: Option<Open>, work: impl Future<Output = T>) -> T {
    let Some(span) = span else { return work.await };
    let scope = Scope {
        tracer: span.scope.tracer.clone(),
        audit_id: span.scope.audit_id.clone(),
        since: span.scope.since,
        trace: span.trace.clone().into(),
        parent: AtomicU64::new(span.id),
    };
    CURRENT.scope(Arc::new(scope), work).await
}

fn current() -> Option<Arc<Scope>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// Begins a part of the request; `None` when nothing is traced.
pub fn open(name: &str, kind: Kind, attributes: impl FnOnce() -> Attributes) -> Option<Open> {
    let scope = current()?;
    let trace = scope.trace.get()?.clone();
    let parent = scope.parent.load(Ordering::Relaxed);
    Some(Open::new(scope, trace, parent, name, kind, attributes))
}

/// The span of the whole request, once it is known who asks (`None`: nobody who is let in); it holds the authentication.
pub fn begin(request: &Request, connection: &Connection, user: Option<&User>, target: &Target) -> Option<Open> {
    let scope = current()?;
    let caller = read(request.headers());
    let believed = user.is_some_and(|u| u.groups.iter().any(|g| g == MASTERS || g == MONITORING));
    let (trace, parent) = match caller {
        Some((id, parent, sampled)) if believed => (Trace { id, state: state(request.headers()), sampled }, parent),
        _ => {
            let id = rand::random::<u128>().max(1);
            (Trace { id, state: String::new(), sampled: scope.tracer.samples(id) }, 0)
        }
    };
    let trace = scope.trace.get_or_init(|| Arc::new(trace)).clone();
    let name = match target {
        Target::Resource(path) => format!("{} {}", request.method(), path.route()),
        Target::NonResource => request.method().to_string(),
    };
    let since = scope.since;
    let attributes = || attributes(request, connection, &scope.audit_id);
    let mut root = Open::new(scope.clone(), trace, parent, &name, Kind::Server, attributes);
    if let Some(span) = &mut root.span {
        span.start = nanos(since);
        span.flags |= if parent == 0 { 0 } else { otlp::PARENT_IS_REMOTE };
        if let Some((id, parent, _)) = caller.filter(|_| !believed) {
            let (trace_id, span_id) = (id.to_be_bytes().into(), parent.to_be_bytes().into());
            span.links.push(Link { trace_id, span_id, flags: otlp::IS_KNOWN | otlp::PARENT_IS_REMOTE });
        }
    }
    root.enter();
    if let Some(span) = open("authentication", Kind::Internal, Vec::new).as_mut().and_then(|o| o.span.as_mut()) {
        span.start = nanos(since);
    }
    Some(root)
}

fn attributes(request: &Request, connection: &Connection, audit_id: &str) -> Attributes {
    let (uri, header) = (request.uri(), |name| request.headers().get(name).and_then(|v| v.to_str().ok()));
    let mut all = vec![
        ("audit-id", audit_id.to_string()),
        ("http.request.method", request.method().to_string()),
        ("http.target", uri.path_and_query().map_or("/", |p| p.as_str()).to_string()),
        ("url.path", uri.path().to_string()),
        ("url.scheme", "https".to_string()),
        ("network.protocol.version", format!("{:?}", request.version()).trim_start_matches("HTTP/").to_string()),
    ];
    let peer = connection.peer.map(|ip| ip.to_string());
    all.extend(peer.iter().flat_map(|ip| ["client.address", "network.peer.address"].map(|name| (name, ip.clone()))));
    let host = uri.host().or_else(|| header(HOST).map(|h| h.rsplit_once(':').map_or(h, |(host, _)| host)));
    all.extend(host.map(|host| ("server.address", host.to_string())));
    all.extend(header(USER_AGENT).map(|agent| ("user_agent.original", agent.to_string())));
    all
}

/// The span of a verb on a resource, around all that it does.
pub fn of_verb(call: &Call) -> Option<Open> {
    let name = match call.verb {
        Verb::Get => "Get",
        Verb::List => "List",
        Verb::Create => "Create",
        Verb::Update => "Update",
        Verb::Patch => "Patch",
        Verb::Delete | Verb::DeleteCollection => "Delete",
        Verb::Watch | Verb::Connect => return None,
    };
    let path = &call.path;
    let text = |pairs: [(&'static str, &str); 7]| pairs.map(|(name, value)| (name, value.to_string())).to_vec();
    let mut span = open(name, Kind::Internal, || {
        text([
            ("api-group", &path.group),
            ("api-version", &path.version),
            ("resource", &path.resource),
            ("subresource", &path.subresource),
            ("namespace", &path.namespace),
            ("name", &path.name),
            ("verb", call.verb.metric()),
        ])
    });
    span.iter_mut().for_each(Open::enter);
    span
}

/// The span of a call of the store. Compat: named as if all stores were etcd's, as the metrics are (kube-apiserver).
pub fn of_store(name: &str, served: &Served, key: &str) -> Option<Open> {
    open(name, Kind::Internal, || {
        let key = String::from_utf8_lossy(&served.store_key(key)).trim_start_matches("/registry").to_string();
        vec![("group", served.gr.group.clone()), ("resource", served.gr.resource.clone()), ("key", key)]
    })
}

/// The span of an HTTP request to a webhook or another API server.
pub fn of_client(method: &str, url: impl FnOnce() -> String) -> Option<Open> {
    CURRENT.try_with(|_| ()).ok()?;
    open(&format!("HTTP {method}"), Kind::Client, || vec![("http.request.method", method.into()), ("url.full", url())])
}

/// Ends the span of a request with its answer, when the last of that has been sent.
pub fn end(span: Option<Open>, response: &mut Response) {
    let Some(mut span) = span else { return };
    let code = response.status().as_u16();
    span.set("http.response.status_code", i64::from(code));
    if code >= 500 {
        span.fail();
    }
    *response.body_mut() = match std::mem::take(response.body_mut()) {
        Body::Stream(stream) => Body::stream(stream.inspect(move |_| {
            let _ = &span;
        })),
        other => other,
    };
}

impl Open {
    fn new(
        scope: Arc<Scope>,
        trace: Arc<Trace>,
        parent: u64,
        name: &str,
        kind: Kind,
        attributes: impl FnOnce() -> Attributes,
    ) -> Open {
        let id = rand::random::<u64>().max(1);
        let span = trace.sampled.then(|| {
            let attributes = attributes().into_iter().map(|(name, value)| attribute(name, AnyValue::from(value)));
            Box::new(Span {
                trace_id: trace.id.to_be_bytes().into(),
                span_id: id.to_be_bytes().into(),
                trace_state: trace.state.clone(),
                parent_span_id: if parent == 0 { Vec::new() } else { parent.to_be_bytes().into() },
                name: name.into(),
                kind: kind as i32,
                start: nanos(SystemTime::now()),
                attributes: attributes.collect(),
                flags: otlp::IS_KNOWN | otlp::SAMPLED,
                ..Span::default()
            })
        });
        Open { scope, trace, id, span, entered: None }
    }

    /// Makes spans that are opened from now on parts of this one, until it ends.
    fn enter(&mut self) {
        self.entered = Some(self.scope.parent.swap(self.id, Ordering::Relaxed));
    }

    pub fn set(&mut self, name: &str, value: impl Into<AnyValue>) {
        if let Some(span) = &mut self.span {
            span.attributes.push(attribute(name, value.into()));
        }
    }

    /// What the span measures went wrong.
    pub fn fail(&mut self) {
        if let Some(span) = &mut self.span {
            span.status = Some(Status { code: otlp::FAILED });
        }
    }

    /// Says in a request that goes elsewhere which span it is part of.
    pub fn hand_on(&self, headers: &mut HeaderMap) {
        let Trace { id, state, sampled } = &*self.trace;
        insert(headers, PARENT, &format!("00-{id:032x}-{:016x}-{:02x}", self.id, u8::from(*sampled)));
        headers.remove(STATE);
        if !state.is_empty() {
            insert(headers, STATE, state);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(before) = self.entered {
            self.scope.parent.store(before, Ordering::Relaxed);
        }
        if let Some(mut span) = self.span.take() {
            span.end = nanos(SystemTime::now());
            self.scope.tracer.take(*span);
        }
    }
}

fn attribute(name: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: name.into(), value: Some(value) }
}

fn nanos(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

fn state(headers: &HeaderMap) -> String {
    let all: Vec<&str> = headers.get_all(STATE).iter().filter_map(|v| v.to_str().ok()).collect();
    Some(all.join(",")).filter(|text| text.len() <= STATE_MAX_BYTES).unwrap_or_default()
}

/// Trace, span, and whether it is sampled. Source: W3C Trace Context, 3.2.
fn read(headers: &HeaderMap) -> Option<(u128, u64, bool)> {
    let mut all = headers.get_all(PARENT).iter();
    let (text, None) = (all.next()?.to_str().ok()?, all.next()) else { return None };
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, span, flags, more @ ..] = parts.as_slice() else { return None };
    let lengths = [version.len(), trace.len(), span.len(), flags.len()];
    let is_hex = |part: &&str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if lengths != [2, 32, 16, 2] || !parts[..4].iter().all(is_hex) || *version == "ff" {
        return None;
    }
    if *version == "00" && !more.is_empty() {
        return None;
    }
    let (trace, span) = (u128::from_str_radix(trace, 16).ok()?, u64::from_str_radix(span, 16).ok()?);
    let flags = u8::from_str_radix(flags, 16).ok()?;
    (trace != 0 && span != 0).then_some((trace, span, flags & 1 == 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_parents() {
        let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        for (text, want) in [
            (format!("00-{trace}-{span}-01"), Some(true)),
            (format!("00-{trace}-{span}-00"), Some(false)),
            (format!("cc-{trace}-{span}-03-more"), Some(true)),
            (format!("00-{trace}-{span}-01-more"), None),
            (format!("ff-{trace}-{span}-01"), None),
            (format!("00-{}-{span}-01", trace.to_uppercase()), None),
            (format!("00-{}-{span}-01", "0".repeat(32)), None),
            (format!("00-{trace}-{}-01", "0".repeat(16)), None),
            (format!("00-{trace}-{span}"), None),
        ] {
            let mut headers = HeaderMap::new();
            insert(&mut headers, PARENT, &text);
            assert_eq!(read(&headers).map(|(_, _, sampled)| sampled), want, "{text}");
        }
    }
}
