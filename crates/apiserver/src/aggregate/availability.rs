//! Whether the API servers behind this one answer: the `Available` condition of APIServices.
//!
//! Reads: APIServices, services and EndpointSlices, from the caches; the backends' discovery documents. Writes: APIServices'
//! status. Invariant: a status is written only when it changes, so that this does not feed itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::StatusCode;
use http::header::{ACCEPT, ETAG, HeaderValue, IF_NONE_MATCH};
use http_body_util::{BodyExt, Empty, Limited};
use meta::{Value, json, time};

use super::{Found, GROUP, RESOURCE, Remote, automanaged, identify, sync};
use crate::backend::{Leads, Lost, service_addresses};
use crate::body::boxed;
use crate::bootstrap::own_call;
use crate::options::WriteOptions;
use crate::request::Verb;
use crate::shared::Shared;
use crate::user::{MASTERS, User};
use crate::write::{self, Endpoint};

const MANAGER: &str = "kube-aggregator";
/// How often every backend is asked, and how often one that does not answer.
const EVERY: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_secs(2);
const WITHIN: Duration = Duration::from_secs(5);
/// Failures in a row that count as one.
const ATTEMPTS: usize = 3;
const AT_ONCE: usize = 8;
const ANSWER_MAX_BYTES: usize = 16 << 20;

/// Status, reason and message of the condition.
type Verdict = (bool, &'static str, String);

pub fn condition(document: &Value) -> Option<&Value> {
    document.array_at(&["status", "conditions"]).iter().find(|c| c["type"].as_str() == Some("Available"))
}

pub fn is_unavailable(document: &Value) -> bool {
    condition(document).is_some_and(|c| c["status"].as_str() != Some("True"))
}

/// Where a remote's service leads.
pub async fn locate(shared: &Shared, remote: &Remote) -> Found {
    let ((namespace, name), port) = (remote.service(), remote.port());
    match service_addresses(shared, namespace, name, port) {
        Ok(Leads::To(all)) => Ok(all),
        Ok(Leads::Outside(host)) => {
            let found = tokio::net::lookup_host((host.as_str(), port)).await;
            found.map(Iterator::collect).map_err(|e| ("FailedDiscoveryCheck", format!("lookup {host}: {e}")))
        }
        Err(Lost::Service) => Err(("ServiceNotFound", format!("service/{name} in {namespace:?} is not present"))),
        Err(Lost::Port) => {
            Err(("ServicePortError", format!("service/{name} in {namespace:?} is not listening on port {port}")))
        }
        Err(Lost::Endpoints(port)) => {
            let message =
                format!("endpoints for service/{name} in {namespace:?} have no addresses with port name {port:?}");
            Err(("MissingEndpoints", message))
        }
    }
}

impl Remote {
    async fn check(&self, found: &Found) -> Verdict {
        let at = match found {
            Ok(at) => at,
            Err((reason, message)) => return (false, reason, message.clone()),
        };
        let path = format!("/apis/{}/{}", self.group, self.version);
        let url = format!("https://{}{path}", at.first().map(ToString::to_string).unwrap_or_default());
        let mut failure = String::new();
        for _ in 0..ATTEMPTS {
            match self.ask(at, &path).await {
                Ok((200..=299, document)) => {
                    let openapi = self.openapi(at, &path).await;
                    let openapi_v2 = self.openapi_v2(at).await;
                    let mut known = self.known();
                    known.resources = document.map(Arc::new);
                    known.openapi = openapi;
                    known.openapi_v2 = openapi_v2.or(known.openapi_v2.take());
                    return (true, "Passed", "all checks passed".into());
                }
                Ok((code, _)) => failure = format!("bad status from {url}: {code}"),
                Err(why) => failure = format!("Get {url:?}: {why}"),
            }
        }
        (false, "FailedDiscoveryCheck", format!("failing or missing response from {url}: {failure}"))
    }

    /// Where the OpenAPI document is, of a backend that has one.
    async fn openapi(&self, at: &[std::net::SocketAddr], path: &str) -> Option<String> {
        let (_, index) = self.ask(at, "/openapi/v3").await.ok()?;
        let entry = index?.str_at(&["paths", path.trim_start_matches('/'), "serverRelativeURL"])?.to_string();
        // Nothing but its own document may be advertised in its name.
        entry.strip_prefix("/openapi/v3")?.strip_prefix(path)?.starts_with('?').then_some(entry)
    }

    /// Its OpenAPI document of version 2; `None` when it has none, or still has the known one.
    async fn openapi_v2(&self, at: &[std::net::SocketAddr]) -> Option<(HeaderValue, Arc<Value>)> {
        let known = self.known().openapi_v2.as_ref().map(|(tag, _)| tag.clone());
        let (parts, body) = self.fetch(at, "/openapi/v2", known).await.ok()?;
        let document = meta::parse(&body).ok().filter(|_| parts.status == StatusCode::OK)?;
        let tag = parts.headers.get(ETAG).cloned().unwrap_or(HeaderValue::from_static(""));
        Some((tag, Arc::new(document)))
    }

    async fn ask(&self, at: &[std::net::SocketAddr], path: &str) -> Result<(u16, Option<Value>), String> {
        let (parts, body) = self.fetch(at, path, None).await?;
        Ok((parts.status.as_u16(), meta::parse(&body).ok()))
    }

    async fn fetch(
        &self,
        at: &[std::net::SocketAddr],
        path: &str,
        known: Option<HeaderValue>,
    ) -> Result<(http::response::Parts, Bytes), String> {
        let backend = self.backend.as_ref().map_err(Clone::clone)?;
        let mut request = http::Request::new(boxed(Empty::new()));
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        request.headers_mut().extend(known.filter(|tag| !tag.is_empty()).map(|tag| (IF_NONE_MATCH, tag)));
        identify(request.headers_mut(), &User::new("system:kube-aggregator", [MASTERS]));
        let work = async {
            let (parts, body) = backend.pass(at, request, path).await?.into_parts();
            let body = Limited::new(body, ANSWER_MAX_BYTES).collect().await.map_err(|e| e.to_string())?;
            Ok((parts, body.to_bytes()))
        };
        tokio::time::timeout(WITHIN, work).await.unwrap_or_else(|_| Err("context deadline exceeded".into()))
    }
}

/// Says of every group version served here that it is there.
pub async fn settle_local(shared: &Arc<Shared>) {
    sync(shared);
    let Some(served) = shared.registry.stored(GROUP, RESOURCE) else { return };
    let objects = served.cache.snapshot("", "", 0, false, |o| !o.holds("\"Local\"")).objects;
    let local = objects.iter().filter(|o| o.document()["spec"]["service"].as_object().is_none());
    let verdict: Verdict = (true, "Local", "Local APIServices are always available".into());
    futures::future::join_all(local.map(|o| note(shared, &o.name, &verdict))).await;
}

/// Asks the backends: all of them, or those whose service leads elsewhere than before. Whether all of them answer.
async fn settle(shared: &Arc<Shared>, all: bool) -> bool {
    settle_local(shared).await;
    let remotes = shared.aggregator.remotes();
    let checks = remotes.iter().cloned().map(|remote| {
        let shared = shared.clone();
        async move {
            let found = locate(&shared, &remote).await;
            if !all && remote.known().found.as_ref() == Some(&found) {
                return remote.is_available();
            }
            let verdict = remote.check(&found).await;
            remote.known().found = Some(found);
            note(&shared, &remote.name, &verdict).await;
            verdict.0
        }
    });
    let answers: Vec<bool> = futures::stream::iter(checks).buffer_unordered(AT_ONCE).collect().await;
    answers.iter().all(|ok| *ok)
}

async fn note(shared: &Arc<Shared>, name: &str, (available, reason, message): &Verdict) {
    let status = if *available { "True" } else { "False" };
    let says = |document: &Value| {
        let text = |c: &Value, field: &str| c[field].as_str().unwrap_or_default().to_string();
        condition(document).is_some_and(|c| {
            text(c, "status") == status && text(c, "reason") == *reason && text(c, "message") == *message
        })
    };
    if shared.peek(GROUP, RESOURCE, "", name).is_some_and(|o| says(&o.document())) {
        return;
    }
    let Ok(call) = own_call(shared, Verb::Update, GROUP, RESOURCE, "", name) else { return };
    let set = |old: &Value| {
        let mut new = old.clone();
        if says(old) {
            return Ok(new);
        }
        let before = condition(old).filter(|c| c["status"].as_str() == Some(status));
        let since = before.map_or_else(|| time::seconds(time::now()).into(), |c| c["lastTransitionTime"].clone());
        let wanted = json!({"type": "Available", "status": status, "reason": *reason, "message": message.as_str(),
            "lastTransitionTime": since});
        let conditions = old.array_at(&["status", "conditions"]).iter();
        let others = conditions.filter(|c| c["type"].as_str() != Some("Available")).cloned();
        new.set(&["status", "conditions"], others.chain([wanted]).collect::<Vec<_>>());
        Ok(new)
    };
    if let Err(status) = write::update(&call, Endpoint::Status, &WriteOptions::own(MANAGER), set).await {
        // Deleted meanwhile, or the store fails: the next round looks again.
        tracing::debug!("cannot say whether API service {name} is available: {status}");
    }
}

/// Follows the objects until the server stops.
pub async fn follow(shared: Arc<Shared>) {
    let stored = |group, resource| shared.registry.stored(group, resource);
    let served = (
        stored(GROUP, RESOURCE),
        stored("", "services"),
        stored("discovery.k8s.io", "endpointslices"),
        stored("apiextensions.k8s.io", "customresourcedefinitions"),
    );
    let (Some(apis), Some(services), Some(slices), Some(custom)) = served else { return };
    let mut changes = (apis.cache.changes(), services.cache.changes(), slices.cache.changes());
    let mut defined = custom.cache.changes();
    let mut next = tokio::time::Instant::now();
    let work = async {
        loop {
            for seen in [&mut changes.0, &mut changes.1, &mut changes.2, &mut defined] {
                seen.mark_unchanged();
            }
            automanaged::settle(&shared).await;
            let due = tokio::time::Instant::now() >= next;
            let well = settle(&shared, due).await;
            let at = tokio::time::Instant::now() + if well { EVERY } else { AGAIN };
            next = if due { at } else { next.min(at) };
            sync(&shared);
            let some = !shared.aggregator.remotes().is_empty();
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                changed = defined.changed() => if changed.is_err() { return },
                changed = changes.0.changed() => if changed.is_err() { return },
                changed = changes.1.changed(), if some => if changed.is_err() { return },
                changed = changes.2.changed(), if some => if changed.is_err() { return },
            }
        }
    };
    shared.shutdown.run_until_cancelled(work).await;
}
