//! The request path: who asks, may they, is there room, what is meant, and then the verb.
//!
//! Invariant: every request gets exactly one answer, an error as a `Status`; a bug that panics is a 500 of that request
//! and of no other.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Body as _;
use meta::Status;

use crate::accept::{Accept, Format, Offer, Shape};
use crate::audit::Entry;
use crate::audit::policy::Asked;
use crate::authz::{self, Ask};
use crate::backend::Peer;
use crate::body::{Body, Request, Response};
use crate::call::Call;
use crate::custom::definitions;
use crate::flow::{self, Class, Digest, Seats};
use crate::metrics::Series;
use crate::registry::Served;
use crate::request::{Query, ResourcePath, Target, Verb, parse_path};
use crate::shared::Shared;
use crate::trace::Kind;
use crate::user::User;
use crate::{aggregate, authn, connect, decode, deprecated, paths, reply, stream, trace, verbs};

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// What is known of a connection.
#[derive(Clone, Default)]
pub struct Connection {
    /// Who the client's certificate names, or who is asking in this process.
    pub user: Option<Arc<User>>,
    /// The peer is this machine.
    pub is_near: bool,
    /// `None` for who asks in this process.
    pub peer: Option<IpAddr>,
}

/// Answers one request.
pub fn handle(shared: Arc<Shared>, connection: Connection, request: Request) -> BoxFuture<'static, Response> {
    let accepts = request.headers().get(ACCEPT).cloned();
    let id = audit_id(request.headers());
    let format = move || Accept::of_errors(&HeaderMap::from_iter(accepts.map(|value| (ACCEPT, value))));
    let scope = trace::Scope::new(shared.config.tracer.as_ref(), &id);
    let work = async move {
        let (mut class, mut span) = (Class::default(), None);
        let entry = shared.config.audit.as_ref().map(|auditor| Entry::begin(auditor, &id, &request, &connection));
        let work = route(shared, connection, request, &mut class, &mut span, entry.as_ref());
        let mut response = match AssertUnwindSafe(work).catch_unwind().await {
            Ok(Ok(response)) => response,
            // Compat: a client that cannot be answered in its own way is told so in JSON.
            Ok(Err(status)) => reply::status(&status, if status.code == 406 { Format::Json } else { format() }),
            Err(_) => {
                tracing::error!("a request panicked; the server goes on");
                let status = Status::internal("the server has a bug that this request met; see its log");
                if let Some(entry) = &entry {
                    entry.panicked(&status);
                }
                reply::status(&status, format())
            }
        };
        if let Some(entry) = entry {
            response = entry.response(response);
        }
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(AUDIT_ID, id);
        }
        trace::end(span, &mut response);
        classified(response, &class)
    };
    // Boxed, so that who serves connections need not be compiled with all of it.
    trace::scoped(scope, work)
}

/// What the client calls the request, or a new name for it. Compat: at most 64 bytes (apiserver WithAuditInit).
fn audit_id(headers: &HeaderMap) -> String {
    let given = headers.get(AUDIT_ID).and_then(|v| v.to_str().ok()).filter(|id| !id.is_empty());
    match given {
        Some(id) => id.chars().take(64).collect(),
        None => uuid::Uuid::new_v4().to_string(),
    }
}

/// `class` says afterwards how the request was classified, `span` is what is traced of it.
async fn route(
    shared: Arc<Shared>,
    connection: Connection,
    request: Request,
    class: &mut Class,
    span: &mut Option<trace::Open>,
    entry: Option<&Arc<Entry>>,
) -> Result<Response, Status> {
    let Some(target) = parse_path(request.uri().path()) else {
        return Ok(reply::text(400, "400 Bad Request"));
    };
    let query = Query::parse(request.uri());
    let user = who(&shared, &connection, request.headers(), request.uri().path()).await;
    if let Some(entry) = entry {
        note(entry, user.as_deref().unwrap_or(&User::default()), &target, &query, &request);
    }
    *span = trace::begin(&request, &connection, user.as_deref().ok(), &target);
    let user = user?;
    match target {
        Target::NonResource => Box::pin(non_resource(&shared, &user, &query, request, class)).await,
        Target::Resource(path) => resource(shared, connection, user, path, query, request, class, entry).await,
    }
}

/// Writes down what is asked for, in the verbs of RBAC.
fn note(entry: &Entry, user: &User, target: &Target, query: &Query, request: &Request) {
    let method = request.method();
    let plain = method.as_str().to_ascii_lowercase();
    let (verb, resource) = match target {
        Target::NonResource => (plain.as_str(), None),
        Target::Resource(path) => match path.verb(method, query) {
            // Compat: a connection is as its method says (apiserver RequestInfo).
            Some(Verb::Connect) => (meta::verb_of_method(method.as_str()), Some(path)),
            Some(verb) => (verb.as_str(), Some(path)),
            None => (plain.as_str(), Some(path)),
        },
    };
    entry.asked(&Asked { user, verb, path: request.uri().path(), resource });
}

async fn who(shared: &Shared, connection: &Connection, headers: &HeaderMap, path: &str) -> Result<Arc<User>, Status> {
    match authn::authenticate(shared, connection.user.as_ref(), headers).await? {
        Some(user) => Ok(user),
        None if authz::is_open(path) => Ok(User::anonymous()),
        None => Err(Status::unauthorized()),
    }
}

async fn non_resource(
    shared: &Shared,
    user: &User,
    query: &Query,
    request: Request,
    class: &mut Class,
) -> Result<Response, Status> {
    let path = request.uri().path();
    let ask = Ask::Path { method: request.method().as_str(), path };
    if !shared.authorizer.decide(user, &ask).allowed {
        return Err(Status::forbidden(&meta::GroupResource::default(), "", authz::refusal(user, &ask)));
    }
    let verb = request.method().as_str().to_ascii_lowercase();
    let digest = Digest { user, verb: &verb, target: flow::Target::Path(path) };
    let (found, seats) = shared.flow.enter(&digest, 1).await;
    *class = found;
    let _seats = seats?;
    if let Some(remote) = shared.aggregator.find_path(path) {
        return Ok(Box::pin(aggregate::forward(shared, user, &remote, request)).await);
    }
    paths::answer(shared, request.method(), path, query, request.headers()).await
}

fn with_peer(request: &mut Request, connection: &Connection) {
    if let Some(peer) = connection.peer {
        request.extensions_mut().insert(Peer(peer));
    }
}

/// Says in the answer how the request was classified.
fn classified(mut response: Response, class: &Class) -> Response {
    for (name, uid) in
        [("x-kubernetes-pf-flowschema-uid", &class.schema_uid), ("x-kubernetes-pf-prioritylevel-uid", &class.level_uid)]
    {
        if let Ok(uid) = HeaderValue::from_str(uid)
            && !uid.is_empty()
        {
            response.headers_mut().insert(HeaderName::from_static(name), uid);
        }
    }
    response
}

/// Takes seats for a request; one that lasts takes none.
async fn enter(
    shared: &Shared,
    user: &User,
    verb: Verb,
    path: &ResourcePath,
    query: &Query,
    served: Option<&Served>,
) -> (Class, Result<Option<Seats>, Status>) {
    let target = flow::Target::Resource {
        group: &path.group,
        resource: &path.resource,
        subresource: &path.subresource,
        namespace: &path.namespace,
    };
    let digest = Digest { user, verb: verb.as_str(), target };
    if matches!(verb, Verb::Watch | Verb::Connect) || path.subresource == "log" {
        return (shared.flow.classify(&digest), Ok(None));
    }
    let width = match (verb, served) {
        (Verb::List | Verb::DeleteCollection, Some(served)) => {
            let limit = query.get("limit").parse().unwrap_or(0);
            flow::list_width(served.cache.len(), limit)
        }
        _ => 1,
    };
    let _span = trace::open("priorityandfairness", Kind::Internal, Vec::new);
    let (class, seats) = shared.flow.enter(&digest, width).await;
    (class, seats.map(Some))
}

#[allow(clippy::too_many_arguments)] // what is known of the request so far
async fn resource(
    shared: Arc<Shared>,
    connection: Connection,
    user: Arc<User>,
    path: ResourcePath,
    query: Query,
    mut request: Request,
    class: &mut Class,
    entry: Option<&Arc<Entry>>,
) -> Result<Response, Status> {
    let verb = path.verb(request.method(), &query).ok_or_else(Status::method_not_allowed)?;
    let ask = Ask::Resource { verb, path: &path };
    let span = trace::open("authorization", Kind::Internal, Vec::new);
    if !shared.authorizer.decide(&user, &ask).allowed {
        let gr = meta::GroupResource::new(&path.group, &path.resource);
        return Err(Status::forbidden(&gr, &path.name, authz::refusal(&user, &ask)));
    }
    drop(span);
    if path.group.contains('.') {
        definitions::sync(&shared);
    }
    let find = || shared.registry.find(&path.group, &path.version, &path.resource);
    let mut served = find();
    let remote = shared.aggregator.find(&path.group, &path.version);
    if served.is_none() && remote.is_none() && path.group.contains('.') {
        // A definition may just have been established, here or by another server.
        shared.storage.fresh().await?;
        definitions::sync(&shared);
        served = find();
    }
    let started = Instant::now();
    let (found, seats) = enter(&shared, &user, verb, &path, &query, served.as_deref()).await;
    let queued = started.elapsed();
    *class = found;
    let seats = seats?;
    if let Some(remote) = remote {
        with_peer(&mut request, &connection);
        return Ok(Box::pin(aggregate::forward(&shared, &user, &remote, request)).await);
    }
    let Some(served) = served else { return paths::missing(&shared, &path.group, &path.version) };
    let spans = served.namespaced && matches!(verb, Verb::List | Verb::Watch);
    if served.custom.is_some() && served.namespaced == path.namespace.is_empty() && !spans {
        return Ok(paths::not_found());
    }
    if served.custom.is_none() && !path.subresource.is_empty() && served.info.subresource(&path.subresource).is_none() {
        return Err(Status::unknown_resource());
    }
    if path.name.is_empty() && !path.subresource.is_empty() {
        return Err(Status::bad_request("name must be provided"));
    }
    check_name(&path)?;
    let offer = match verb {
        Verb::Create if !served.is_stored() || path.subresource == "token" => Offer::Review,
        _ => Offer::of(served.info.type_name.is_empty(), verb),
    };
    let connects = served.custom.is_none() && connect::takes(verb, &path.resource, &path.subresource);
    // What is behind a proxy has forms of its own.
    let accept = match verb {
        Verb::Connect if connects => Accept::JSON,
        _ => Accept::parse(request.headers(), offer)?,
    };
    let upgrade = verb == Verb::Watch && stream::wants_websocket(request.headers());
    let upgrade = upgrade.then(|| hyper::upgrade::on(&mut request));
    // A stream's headers go on to the kubelet with the request.
    let headers = if connects { request.headers().clone() } else { std::mem::take(request.headers_mut()) };
    let mut call = Call::new(shared, user, verb, path, query, headers, accept, served, connection.is_near);
    call.audit = entry.cloned();
    call.note_elsewhere(queued);
    let call = Arc::new(call);
    if connects {
        with_peer(&mut request, &connection);
        let answer = Box::pin(connect::connect(call.clone(), request)).await;
        record(&call, &answer, started);
        return answer;
    }
    if let Some(text) = call.served.custom.as_ref().and_then(|c| c.deprecation.as_ref()) {
        call.warn(text.as_str());
    }
    if let Some(text) = deprecated::warning(&call.served.info) {
        call.warn(text);
    }
    let body = decode::bytes(request.into_body(), call.shared.config.limits.body_bytes).await?;
    if let Some(entry) = entry {
        entry.request(&call.headers, &body);
    }
    let working = call.clone();
    let work = async move {
        let mut answer = timed(&working, body).await;
        if let Ok(response) = &mut answer {
            response.body_mut().hold(seats);
        }
        answer
    };
    // A write is not to stop half-way because its client went away.
    let answer = if verb.is_mutating() {
        trace::spawn(AssertUnwindSafe(work).catch_unwind())
            .await
            .ok()
            .and_then(Result::ok)
            .unwrap_or_else(|| Err(Status::internal("the server has a bug that this request met; see its log")))
    } else {
        work.await
    };
    record(&call, &answer, started);
    let mut response = match answer {
        Ok(response) => response,
        Err(status) => reply::status(&status, call.accept.format),
    };
    reply::add_warnings(&mut response, call.take_warnings());
    if verb == Verb::Watch && response.status().is_success() {
        let within = !call.path.namespace.is_empty();
        count_running(call.shared.metrics.running.within(verb, &call.served, within), &mut response);
        if let Some(client) = upgrade {
            response = stream::watch::upgrade(&call, client, response);
        }
    }
    Ok(response)
}

async fn timed(call: &Call, body: bytes::Bytes) -> Result<Response, Status> {
    let limit = call.shared.config.limits.request;
    let _span = trace::of_verb(call);
    let work = verbs::dispatch(call, body);
    match tokio::time::timeout(limit, work).await {
        Ok(answer) => {
            let answer = answer?;
            check_shape(call)?;
            Ok(answer)
        }
        Err(_) => Err(Status::timeout(format!(
            "request did not complete within the allotted timeout of {}s; try again",
            limit.as_secs()
        ))),
    }
}

/// A name that could leave its place in the store is refused before anything reads it.
fn check_name(path: &ResourcePath) -> Result<(), Status> {
    let wrong = meta::names::path_segment(&path.name);
    if path.name.is_empty() || wrong.is_empty() {
        return Ok(());
    }
    Err(Status::bad_request(format!("Name parameter invalid: {:?}: {}", path.name, wrong.join(";"))))
}

/// One object has not the form of a list, nor the other way round; rows go with what there is. Compat: upstream sees that
/// once it has what it is to show.
fn check_shape(call: &Call) -> Result<(), Status> {
    let (served, shape, include) = (&call.served, call.accept.shape, call.query.get("includeObject"));
    if shape == Shape::Table && !["", "Metadata", "Object", "None"].contains(&include) {
        return Err(Status::bad_request(format!(
            "Unable to convert to Table as requested: includeObject: Invalid value: {include:?}: must be 'Metadata', 'Object', 'None', or empty"
        )));
    }
    let (form, is, list) = match (shape, call.verb) {
        (Shape::Metadata, Verb::List | Verb::DeleteCollection) => ("PartialObjectMetadata", "a list", "List"),
        (Shape::MetadataList, Verb::Get | Verb::Create | Verb::Update | Verb::Patch) => {
            ("PartialObjectMetadataList", "not a list", "")
        }
        _ => return Ok(()),
    };
    let (package, kind) = match served.custom.is_some() {
        true => ("unstructured", format!("Unstructured{list}")),
        false => (decode::go_package(&served.info.group), format!("{}{list}", served.kind)),
    };
    let message = format!("you requested {form}, but the requested object is {is} (*{package}.{kind})");
    Err(Status { message, ..Status::not_acceptable(&[]) })
}

fn record(call: &Call, answer: &Result<Response, Status>, started: Instant) {
    let (code, bytes) = match answer {
        Ok(response) => (response.status().as_u16(), response.body().size_hint().exact()),
        Err(status) => (status.code, None),
    };
    call.shared.metrics.record(call, code, started.elapsed(), bytes);
}

/// Counts a watch as running until its body is dropped.
fn count_running(series: Arc<Series>, response: &mut Response) {
    struct Running(Arc<Series>);
    impl Drop for Running {
        fn drop(&mut self) {
            self.0.count.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let body = std::mem::take(response.body_mut());
    *response.body_mut() = match body {
        Body::Stream(stream) => {
            use futures::StreamExt;
            series.count.fetch_add(1, Ordering::Relaxed);
            let running = Running(series);
            Body::stream(stream.map(move |chunk| {
                let _ = &running;
                chunk
            }))
        }
        // An error that is the whole stream.
        other => other,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_future_of_a_request_stays_small() {
        fn size<F: Future>(_: impl FnOnce(&'static Call, bytes::Bytes) -> F) -> usize {
            size_of::<F>()
        }
        // It is moved several times.
        let bytes = size(timed);
        assert!(bytes < 1024, "{bytes}");
    }
}
