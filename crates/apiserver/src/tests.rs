//! Tests of the whole server in this process, on a memory store: a request in, code and body out.

mod aggregation;
mod audit;
mod concurrency;
mod custom;
mod health;
mod lists;
mod mutations;
mod plugins;
mod protobuf;
mod proxies;
mod quotas;
mod requests;
mod sequences;
mod services;
mod still;
mod sweep;
mod traces;
mod upstream;
mod watches;
mod webhooks;

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use http::header::{ACCEPT, CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use meta::{Value, json};
use tower::Service;

use crate::body::Body;
use crate::{Config, Local, Server, User};

pub struct Cluster {
    pub server: Server,
    pub store: Arc<store::Embedded>,
    local: Local,
}

pub struct Answer {
    pub code: u16,
    pub headers: http::HeaderMap,
    pub body: Value,
    pub text: String,
    pub bytes: Bytes,
}

impl Cluster {
    pub async fn start() -> Cluster {
        Cluster::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Cluster {
        let cluster = Cluster::on(store::memory(), change).await;
        cluster
            .ok(Method::POST, "/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}}))
            .await;
        cluster
    }

    /// Another server on the same store.
    pub async fn another(&self, change: impl FnOnce(&mut Config)) -> Cluster {
        Cluster::on(self.store.clone(), change).await
    }

    async fn on(store: Arc<store::Embedded>, change: impl FnOnce(&mut Config)) -> Cluster {
        let mut config = Config::new(Arc::new(still::Still(store.clone())));
        change(&mut config);
        let server = Server::start(config).await.expect("the server starts");
        let local = server.local(User::new("test", ["system:masters"]));
        Cluster { server, store, local }
    }

    pub fn request(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: impl Into<Bytes>,
    ) -> http::Request<Full<Bytes>> {
        let mut request = http::Request::new(Full::new(body.into()));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().expect("path");
        if !content_type.is_empty() {
            request.headers_mut().insert(CONTENT_TYPE, content_type.parse().expect("type"));
        }
        request
    }

    pub async fn send(&self, request: http::Request<Full<Bytes>>) -> http::Response<Body> {
        self.local.clone().call(request).await.unwrap_or_else(|e| match e {})
    }

    pub async fn raw(&self, method: Method, path: &str, content_type: &str, body: impl Into<Bytes>) -> Answer {
        collect(self.send(self.request(method, path, content_type, body)).await).await
    }

    pub async fn accepting(&self, path: &str, accept: &str) -> Answer {
        let mut request = self.request(Method::GET, path, "", "");
        request.headers_mut().insert(ACCEPT, accept.parse().expect("header"));
        collect(self.send(request).await).await
    }

    pub async fn call(&self, method: Method, path: &str, body: Value) -> Answer {
        let content_type = match method {
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        let bytes = if body.is_null() { Vec::new() } else { body.to_vec() };
        self.raw(method, path, content_type, bytes).await
    }

    /// A request that has to succeed.
    pub async fn ok(&self, method: Method, path: &str, body: Value) -> Value {
        let answer = self.call(method.clone(), path, body).await;
        assert!(answer.code < 300, "{method} {path}: {} {}", answer.code, answer.text);
        answer.body
    }

    pub async fn get(&self, path: &str) -> Value {
        self.ok(Method::GET, path, Value::Null).await
    }

    /// A minimal pod in the default namespace.
    pub async fn pod(&self, name: &str) -> Value {
        self.ok(Method::POST, "/api/v1/namespaces/default/pods", pod(name)).await
    }

    pub async fn config_map(&self, name: &str, value: &str) -> Value {
        let body = json!({"metadata": {"name": name, "labels": {"v": value}}, "data": {"v": value}});
        self.ok(Method::POST, "/api/v1/namespaces/default/configmaps", body).await
    }
}

pub fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

pub async fn collect(response: http::Response<Body>) -> Answer {
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.expect("a body").to_bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Answer {
        code: parts.status.as_u16(),
        headers: parts.headers,
        body: meta::parse(&bytes).unwrap_or_default(),
        text,
        bytes,
    }
}

/// Lines of a watch as they come.
pub struct Lines {
    body: Body,
    rest: Vec<u8>,
}

impl Lines {
    pub fn new(response: http::Response<Body>) -> Lines {
        assert_eq!(response.status(), 200);
        Lines { body: response.into_body(), rest: Vec::new() }
    }

    /// The next event; `None` when the watch has ended.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            // Upstream breaks some events in two.
            for end in (0..self.rest.len()).filter(|i| self.rest[*i] == b'\n') {
                if let Ok(event) = meta::parse(&self.rest[..=end]) {
                    self.rest.drain(..=end);
                    return Some(event);
                }
            }
            let data = self.body.frame().await?.expect("a frame").into_data().expect("data");
            self.rest.extend_from_slice(&data);
        }
    }

    /// `TYPE name@version` of the next event.
    pub async fn shown(&mut self) -> String {
        match self.next().await {
            Some(event) => format!(
                "{} {}@{}",
                event["type"].as_str().unwrap_or_default(),
                event["object"]["metadata"]["name"].as_str().unwrap_or_default(),
                event["object"]["metadata"]["resourceVersion"].as_str().unwrap_or_default(),
            ),
            None => "end".into(),
        }
    }
}

pub fn version(object: &Value) -> &str {
    object.str_at(&["metadata", "resourceVersion"]).expect("a version")
}
