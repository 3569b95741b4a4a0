//! The real API server in this process, its store in memory, no controllers: what a kubelet sees is what it sees in a
//! cluster. Objects are JSON, asked for by their paths. Invariant: while it is down no request of a client reaches it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use apiserver::{Server, User};
use http::{Method, Request};
use serde_json::{Value, json};
use tower::{BoxError, ServiceExt};

pub const PODS: &str = "/api/v1/namespaces/default/pods";

pub struct Api {
    server: Server,
    own: kube::Client,
    down: Arc<AtomicBool>,
}

impl Api {
    pub async fn start() -> Api {
        let server = Server::start(apiserver::Config::new(store::memory())).await.expect("the server starts");
        let own = client::local::client(server.local(User::loopback()), "default");
        let api = Api { server, own, down: Arc::default() };
        // pods need it, and no controller makes it here
        api.create("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}}));
        api
    }

    /// A client whose requests fail while the server is down.
    pub fn client(&self) -> kube::Client {
        let (local, down) = (self.server.local(User::loopback()), self.down.clone());
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let (local, down) = (local.clone(), down.load(Ordering::Relaxed));
            async move {
                if down {
                    return Err(BoxError::from("the server is away"));
                }
                local.oneshot(request).await.map_err(BoxError::from)
            }
        });
        client::local::client(service, "default")
    }

    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    /// Null when it is not there.
    pub fn get(&self, path: &str) -> Value {
        match self.ask(Method::GET, path, &Value::Null) {
            Err(kube::Error::Api(status)) if status.code == 404 => Value::Null,
            answer => answer.expect(path),
        }
    }

    pub fn create(&self, path: &str, object: &Value) {
        self.ask(Method::POST, path, object).expect(path);
    }

    /// A strategic merge patch.
    pub fn patch(&self, path: &str, patch: &Value) {
        self.ask(Method::PATCH, path, patch).expect(path);
    }

    /// Graceful deletion of a pod, or removal at `grace` zero.
    pub fn delete_pod(&self, name: &str, grace: i64) {
        self.ask(Method::DELETE, &format!("{PODS}/{name}"), &json!({"gracePeriodSeconds": grace})).expect(name);
    }

    fn ask(&self, method: Method, path: &str, body: &Value) -> kube::Result<Value> {
        let media = if method == Method::PATCH { "application/strategic-merge-patch+json" } else { "application/json" };
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder().method(method).uri(path).header("content-type", media).body(body);
        let answer = self.own.request(request.expect("a request"));
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(answer))
    }
}
