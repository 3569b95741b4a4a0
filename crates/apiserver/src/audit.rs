//! The audit log: who asked for what, when, and what came of it.
//!
//! Reads: a policy, and every request on its way. Writes: events of `audit.k8s.io/v1`, a line each. Source: the page
//! "Auditing". Invariant: an event that cannot be written is told in our own log and stops no request, as upstream's mode
//! `blocking`.

mod log;
pub mod policy;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use meta::{Status, Value, json, time};

pub use self::log::{Log, Settings};
pub use self::policy::Policy;
use self::policy::{Asked, Decision, Level, Stage};
use crate::body::{Body, Request, Response};
use crate::decode;
use crate::handle::Connection;
use crate::request::ResourcePath;

/// The longest user agent that is written.
const AGENT_MAX_CHARS: usize = 1024;

pub struct Auditor {
    policy: Policy,
    log: Log,
}

impl Auditor {
    pub fn new(policy: Policy, log: Log) -> Auditor {
        Auditor { policy, log }
    }
}

/// One request's part of the log.
pub struct Entry {
    auditor: Arc<Auditor>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    decision: Decision,
    event: Value,
    annotations: BTreeMap<String, String>,
    ended: bool,
}

impl Entry {
    pub fn begin(auditor: &Arc<Auditor>, id: &str, request: &Request, connection: &Connection) -> Arc<Entry> {
        let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let forwarded = header("x-forwarded-for").split(',').chain([header("x-real-ip")]).map(str::trim);
        let peer = connection.peer.map(|ip| ip.to_string()).unwrap_or_default();
        let mut sources: Vec<&str> = forwarded.chain([peer.as_str()]).filter(|ip| !ip.is_empty()).collect();
        sources.dedup();
        let agent: String = header(USER_AGENT.as_str()).chars().take(AGENT_MAX_CHARS).collect();
        let uri = request.uri().path_and_query().map_or("/", |p| p.as_str());
        let mut event = json!({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": id, "requestURI": uri,
            "sourceIPs": sources, "requestReceivedTimestamp": time::micros(time::now())});
        if !agent.is_empty() {
            event.set(&["userAgent"], agent);
        }
        Arc::new(Entry { auditor: auditor.clone(), open: Mutex::new(Open { event, ..Open::default() }) })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the request is about: decides how much is written, and writes that it came.
    pub fn asked(&self, asked: &Asked) {
        let open = &mut *self.open();
        open.decision = self.auditor.policy.decide(asked);
        if open.decision.level == Level::None {
            return;
        }
        open.event.set(&["level"], format!("{:?}", open.decision.level));
        open.event.set(&["verb"], asked.verb);
        open.event.set(&["user"], asked.user.to_value());
        if let Some(path) = asked.resource {
            open.event.set(&["objectRef"], reference(path));
        }
        self.write(open, Stage::RequestReceived);
    }

    pub fn level(&self) -> Level {
        self.open().decision.level
    }

    /// A fact that a part of the server found; the first value of a key stays.
    pub fn annotate(&self, key: impl Into<String>, value: impl Into<String>) {
        let mut open = self.open();
        if open.decision.level > Level::None {
            open.annotations.entry(key.into()).or_insert(value.into());
        }
    }

    /// The body of the request.
    pub fn request(&self, headers: &HeaderMap, body: &Bytes) {
        let mut open = self.open();
        if open.decision.level == Level::None || body.is_empty() {
            return;
        }
        let parsed = match decode::media_type(headers) {
            "application/apply-patch+yaml" => decode::yaml(body).ok(),
            media_type if media_type.ends_with("+json") => meta::parse_noting_duplicates(body).ok(),
            _ => decode::parse(headers, body).ok(),
        };
        let Some((mut object, _)) = parsed else { return };
        for member in ["name", "namespace", "uid", "resourceVersion"] {
            let found = object.str_at(&["metadata", member]).filter(|v| !v.is_empty()).map(str::to_string);
            if let Some(found) = found.filter(|_| open.event["objectRef"].get(member).is_none()) {
                open.event.set(&["objectRef", member], found);
            }
        }
        if open.decision.level >= Level::Request {
            open.trim(&mut object);
            open.event.set(&["requestObject"], object);
        }
    }

    /// The answer; of one that goes on, its beginning.
    pub fn response(self: &Arc<Self>, mut answer: Response) -> Response {
        let mut open = self.open();
        if open.decision.level == Level::None {
            return answer;
        }
        open.event.set(&["responseStatus"], json!({"metadata": {}, "code": i64::from(answer.status().as_u16())}));
        if matches!(answer.body(), Body::Stream(_)) {
            self.write(&open, Stage::ResponseStarted);
            drop(open);
            return self.until_its_end(answer);
        }
        let is_error = answer.status().is_client_error() || answer.status().is_server_error();
        if is_error || open.decision.level >= Level::RequestResponse {
            let shown = shown(&mut answer);
            if is_error {
                for member in ["status", "message", "reason", "details"] {
                    if let Some(value) = shown.as_ref().and_then(|s| s.get(member)) {
                        open.event.set(&["responseStatus", member], value.clone());
                    }
                }
            }
            if let (Some(mut object), Level::RequestResponse) = (shown, open.decision.level) {
                open.trim(&mut object);
                open.event.set(&["responseObject"], object);
            }
        }
        drop(open);
        self.end(Stage::ResponseComplete);
        answer
    }

    /// Writes the end once the stream has been read or dropped.
    fn until_its_end(self: &Arc<Self>, mut answer: Response) -> Response {
        struct End(Arc<Entry>);
        impl Drop for End {
            fn drop(&mut self) {
                self.0.end(Stage::ResponseComplete);
            }
        }
        let end = End(self.clone());
        if let Body::Stream(stream) = std::mem::take(answer.body_mut()) {
            use futures::StreamExt;
            *answer.body_mut() = Body::stream(stream.inspect(move |_| _ = &end));
        }
        answer
    }

    pub fn panicked(&self, status: &Status) {
        self.open().event.set(
            &["responseStatus"],
            json!({"metadata": {}, "code": 500, "status": "Failure",
            "reason": "InternalError", "message": status.message.as_str()}),
        );
        self.end(Stage::Panic);
    }

    fn end(&self, stage: Stage) {
        let mut open = self.open();
        if !std::mem::replace(&mut open.ended, true) {
            self.write(&open, stage);
        }
    }

    fn write(&self, open: &Open, stage: Stage) {
        if open.decision.level == Level::None || open.decision.omit_stages.contains(&stage) {
            return;
        }
        let mut event = open.event.clone();
        event.set(&["stage"], format!("{stage:?}"));
        event.set(&["stageTimestamp"], time::micros(time::now()));
        for (key, value) in &open.annotations {
            event.set(&["annotations", key.as_str()], value.as_str());
        }
        let mut line = event.to_vec();
        line.push(b'\n');
        if let Err(error) = self.auditor.log.write(&line) {
            tracing::error!("an audit event was not written: {error}; is the disk full?");
        }
    }
}

impl Open {
    fn trim(&self, object: &mut Value) {
        if self.decision.omit_managed_fields {
            object.remove(&["metadata", "managedFields"]);
            for item in object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
                item.remove(&["metadata", "managedFields"]);
            }
        }
    }
}

fn reference(path: &ResourcePath) -> Value {
    let mut reference = json!({"resource": path.resource.as_str(), "apiVersion": path.version.as_str()});
    let others = [
        ("namespace", &path.namespace),
        ("name", &path.name),
        ("apiGroup", &path.group),
        ("subresource", &path.subresource),
    ];
    for (member, value) in others.into_iter().filter(|(_, value)| !value.is_empty()) {
        reference.set(&[member], value.as_str());
    }
    reference
}

/// The document that an answer holds, whatever its form; the answer stays whole.
fn shown(answer: &mut Response) -> Option<Value> {
    let bytes: Bytes = match std::mem::take(answer.body_mut()) {
        Body::Full(bytes) => bytes,
        Body::Pieces(mut body) => std::iter::from_fn(|| body.pieces.next()).collect::<Vec<_>>().concat().into(),
        other => {
            *answer.body_mut() = other;
            return None;
        }
    };
    *answer.body_mut() = Body::Full(bytes.clone());
    let mut plain = Vec::new();
    let bytes: &[u8] = match answer.headers().get(CONTENT_ENCODING) {
        None => &bytes,
        Some(_) => {
            GzDecoder::new(&*bytes).read_to_end(&mut plain).ok()?;
            &plain
        }
    };
    let headers = HeaderMap::from_iter(answer.headers().get(CONTENT_TYPE).map(|v| (CONTENT_TYPE, v.clone())));
    decode::parse(&headers, bytes).ok().map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_shown_and_stay_whole() {
        let lists = |text: &str| {
            let mut answer = crate::reply::json(200, text.to_string());
            let shown = shown(&mut answer);
            let Body::Full(bytes) = answer.into_body() else { panic!("no body") };
            assert_eq!(bytes, text);
            shown.map(|value| value.to_string())
        };
        assert_eq!(lists(r#"{"kind":"List"}"#).as_deref(), Some(r#"{"kind":"List"}"#));
        assert_eq!(lists("ok"), None);
    }
}
