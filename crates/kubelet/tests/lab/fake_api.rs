//! A stand-in for the API server that keeps objects in memory: just enough of list, watch, create, patch and delete for a
//! kubelet. Invariant: watches see every change in order.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;

type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;
/// Resource (with its group path), namespace, name.
type Key = (String, String, String);

#[derive(Clone, Default)]
pub struct FakeApi(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    revision: u64,
    objects: BTreeMap<Key, Value>,
    log: Vec<(u64, String, String, Value)>,
    watchers: Vec<(String, Query, mpsc::UnboundedSender<Bytes>)>,
    /// Requests are refused while set.
    down: bool,
}

#[derive(Clone, Default)]
struct Query {
    namespace: String,
    fields: Vec<(String, String)>,
}

impl FakeApi {
    pub fn client(&self) -> kube::Client {
        let own = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let own = own.clone();
            async move { Ok::<_, Infallible>(own.answer(request).await) }
        });
        client::local::client(service, "default")
    }

    /// Refuses every request, as a server that is away does.
    pub fn set_down(&self, down: bool) {
        self.0.lock().expect("state").down = down;
    }

    pub fn put(&self, resource: &str, mut object: Value) {
        let mut state = self.0.lock().expect("state");
        let key = key_of(resource, &object);
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("{:08x}-0000-0000-0000-000000000000", state.revision + 1));
            object["metadata"]["creationTimestamp"] = json!(jiff::Timestamp::now().strftime("%FT%TZ").to_string());
        }
        state.store(key, object);
    }

    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (resource.to_string(), namespace.to_string(), name.to_string());
        self.0.lock().expect("state").objects.get(&key).cloned()
    }

    pub fn list(&self, resource: &str) -> Vec<Value> {
        let state = self.0.lock().expect("state");
        state.objects.iter().filter(|(key, _)| key.0 == resource).map(|(_, object)| object.clone()).collect()
    }

    pub fn update(&self, resource: &str, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let key = (resource.to_string(), namespace.to_string(), name.to_string());
        let mut state = self.0.lock().expect("state");
        let mut object = state.objects.get(&key).cloned().expect("object");
        change(&mut object);
        state.store(key, object);
    }

    /// Graceful deletion of a pod, or removal at `grace` zero.
    pub fn delete_pod(&self, namespace: &str, name: &str, grace: i64) {
        let key = ("v1/pods".to_string(), namespace.to_string(), name.to_string());
        self.0.lock().expect("state").delete(&key, Some(grace));
    }

    async fn answer(&self, request: Request<Body>) -> Reply {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(|all| all.to_bytes()).unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let mut state = self.0.lock().expect("state");
        if state.down {
            return status(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable");
        }
        let path = parts.uri.path().to_string();
        let query: BTreeMap<String, String> = parts
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_string(), value.replace("%3D", "=").replace("%2C", ",").replace("%2F", "/")))
            .collect();
        let Some((resource, namespace, name, sub)) = route(&path) else {
            return status(StatusCode::NOT_FOUND, "NotFound");
        };
        let key = (resource.clone(), namespace.clone(), name.clone());
        let wanted = Query {
            namespace,
            fields: query
                .get("fieldSelector")
                .map(|text| {
                    text.split(',').filter_map(|term| term.split_once('=')).map(|(a, b)| (a.into(), b.into())).collect()
                })
                .unwrap_or_default(),
        };
        match (parts.method, name.is_empty()) {
            (Method::GET, true) if query.get("watch").is_some_and(|on| on == "true" || on == "1") => {
                let from = query.get("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
                state.watch(resource, wanted, from)
            }
            (Method::GET, true) => {
                let items: Vec<&Value> = state
                    .objects
                    .iter()
                    .filter(|(key, object)| key.0 == resource && wanted.takes(object))
                    .map(|(_, object)| object)
                    .collect();
                reply(
                    StatusCode::OK,
                    &json!({"kind": "List", "apiVersion": "v1",
                    "metadata": {"resourceVersion": state.revision.to_string()}, "items": items}),
                )
            }
            (Method::GET, false) => match state.objects.get(&key) {
                Some(object) => reply(StatusCode::OK, object),
                None => status(StatusCode::NOT_FOUND, "NotFound"),
            },
            (Method::POST, true) => {
                let mut object = body;
                if object["metadata"]["name"].is_null() {
                    object["metadata"]["name"] = json!(format!("generated-{}", state.revision));
                }
                if !wanted.namespace.is_empty() {
                    object["metadata"]["namespace"] = json!(wanted.namespace);
                }
                let key = key_of(&resource, &object);
                if state.objects.contains_key(&key) {
                    return status(StatusCode::CONFLICT, "AlreadyExists");
                }
                object["metadata"]["uid"] = json!(format!("uid-{}", state.revision + 1));
                reply(StatusCode::CREATED, &state.store(key, object))
            }
            (Method::PATCH, false) => {
                let Some(mut object) = state.objects.get(&key).cloned() else {
                    return status(StatusCode::NOT_FOUND, "NotFound");
                };
                let uid = body["metadata"]["uid"].as_str();
                if uid.is_some_and(|uid| object["metadata"]["uid"] != uid) {
                    return status(StatusCode::CONFLICT, "Conflict");
                }
                merge(&mut object, &body);
                let _ = sub;
                reply(StatusCode::OK, &state.store(key, object))
            }
            (Method::PUT, false) => reply(StatusCode::OK, &state.store(key, body)),
            (Method::DELETE, false) => {
                let uid = body["preconditions"]["uid"].as_str();
                match state.objects.get(&key) {
                    None => status(StatusCode::NOT_FOUND, "NotFound"),
                    Some(object) if uid.is_some_and(|uid| object["metadata"]["uid"] != uid) => {
                        status(StatusCode::CONFLICT, "Conflict")
                    }
                    Some(_) => {
                        let grace = body["gracePeriodSeconds"].as_i64();
                        reply(StatusCode::OK, &state.delete(&key, grace))
                    }
                }
            }
            _ => status(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        }
    }
}

impl State {
    fn store(&mut self, key: Key, mut object: Value) -> Value {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let kind = if self.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        self.objects.insert(key.clone(), object.clone());
        self.tell(key.0, kind, object.clone());
        object
    }

    fn delete(&mut self, key: &Key, grace: Option<i64>) -> Value {
        let Some(mut object) = self.objects.get(key).cloned() else { return Value::Null };
        let grace = grace.or(object["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30);
        if key.0 == "v1/pods" && grace > 0 {
            object["metadata"]["deletionTimestamp"] = json!(jiff::Timestamp::now().strftime("%FT%TZ").to_string());
            object["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
            return self.store(key.clone(), object);
        }
        self.objects.remove(key);
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        self.tell(key.0.clone(), "DELETED", object.clone());
        object
    }

    fn tell(&mut self, resource: String, kind: &str, object: Value) {
        let line = event(kind, &object);
        self.watchers.retain(|(watched, query, sender)| {
            *watched != resource || !query.takes(&object) || sender.send(line.clone()).is_ok()
        });
        self.log.push((self.revision, resource, kind.to_string(), object));
    }

    fn watch(&mut self, resource: String, query: Query, from: u64) -> Reply {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        for (revision, changed, kind, object) in &self.log {
            if *revision > from && *changed == resource && query.takes(object) {
                let _ = sender.send(event(kind, object));
            }
        }
        self.watchers.push((resource, query, sender));
        let stream = futures::stream::poll_fn(move |context| {
            receiver.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line))))
        });
        let mut reply = Response::new(BodyExt::boxed_unsync(StreamBody::new(stream)));
        reply.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
        reply
    }
}

impl Query {
    fn takes(&self, object: &Value) -> bool {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        (self.namespace.is_empty() || self.namespace == namespace)
            && self.fields.iter().all(|(path, want)| {
                let pointer = format!("/{}", path.replace('.', "/"));
                object.pointer(&pointer).and_then(Value::as_str).unwrap_or_default() == want
            })
    }
}

fn event(kind: &str, object: &Value) -> Bytes {
    Bytes::from(format!("{}\n", json!({"type": kind, "object": object})))
}

fn key_of(resource: &str, object: &Value) -> Key {
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_string();
    (resource.to_string(), text("namespace"), text("name"))
}

/// `GROUP/VERSION/RESOURCE` (or `v1/RESOURCE`), namespace, name, subresource.
fn route(path: &str) -> Option<(String, String, String, String)> {
    let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let mut prefix = Vec::new();
    match parts.remove(0) {
        "api" => prefix.push(parts.remove(0)),
        "apis" => prefix.extend([parts.remove(0), parts.remove(0)]),
        _ => return None,
    }
    let mut namespace = String::new();
    if parts.len() > 2 && parts[0] == "namespaces" {
        parts.remove(0);
        namespace = parts.remove(0).to_string();
    }
    let mut parts = parts.into_iter().map(str::to_string);
    prefix.push("");
    let resource = format!("{}{}", prefix.join("/"), parts.next()?);
    Some((resource, namespace, parts.next().unwrap_or_default(), parts.next().unwrap_or_default()))
}

/// A merge patch that knows lists with a `type` key and `$patch: replace`.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            target.as_object_mut().expect("object").remove(name);
        } else if name == "conditions" {
            let list = target[name].as_array().cloned().unwrap_or_default();
            target[name] = Value::Array(merge_conditions(list, value));
        } else if let Value::Array(items) = value {
            target[name] = items.iter().filter(|item| item["$patch"].is_null()).cloned().collect();
        } else {
            merge(&mut target[name], value);
        }
    }
}

fn merge_conditions(mut list: Vec<Value>, changes: &Value) -> Vec<Value> {
    for change in changes.as_array().into_iter().flatten() {
        match list.iter_mut().find(|known| known["type"] == change["type"]) {
            Some(known) => merge(known, change),
            None => list.push(change.clone()),
        }
    }
    list
}

fn reply(code: StatusCode, body: &Value) -> Reply {
    let mut reply = Response::new(BodyExt::boxed_unsync(Full::new(Bytes::from(body.to_string()))));
    *reply.status_mut() = code;
    reply.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    reply
}

fn status(code: StatusCode, reason: &str) -> Reply {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason,
        "message": reason, "code": code.as_u16(), "metadata": {}});
    reply(code, &body)
}
