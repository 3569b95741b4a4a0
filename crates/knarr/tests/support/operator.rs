//! What people do with kube-rs, a small operator among it: a definition, an admission webhook, a finalizer.
//!
//! Works in a namespace with a pod `server` that has written `started` and serves its /etc on port 8080. Calls `ready`
//! when the API server may be restarted, and goes on after `restarted`.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use futures::StreamExt;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    ApiResource, AttachParams, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
    PostParams,
};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{self, Event, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub async fn run(client: Client, ns: &str, ready: impl FnOnce(), restarted: impl Future<Output = ()>) {
    objects(Api::namespaced(client.clone(), ns)).await;
    streams(Api::namespaced(client.clone(), ns)).await;
    operate(client, ns, ready, restarted).await;
}

fn config_map(name: &str, data: Value) -> ConfigMap {
    let map = json!({"metadata": {"name": name, "labels": {"of": "kube-rs"}}, "data": data});
    serde_json::from_value(map).expect("a config map")
}

fn data(map: &ConfigMap) -> Value {
    serde_json::to_value(&map.data).expect("JSON")
}

/// Code and message of a refusal.
fn refusal<T>(result: Result<T, kube::Error>) -> (u16, String) {
    match result {
        Err(kube::Error::Api(status)) => (status.code, status.message),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("not refused"),
    }
}

async fn objects(maps: Api<ConfigMap>) {
    for number in 0..25 {
        maps.create(&PostParams::default(), &config_map(&format!("page-{number:02}"), json!({})))
            .await
            .expect("created");
    }
    let (mut sizes, mut page) = (Vec::new(), ListParams::default().labels("of=kube-rs").limit(10));
    loop {
        let list = maps.list(&page).await.expect("a page");
        sizes.push(list.items.len());
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => break,
        }
    }
    assert_eq!(sizes, [10, 10, 5]);

    maps.create(&PostParams::default(), &config_map("patched", json!({"a": "1"}))).await.expect("created");
    let operations = json!([{"op": "add", "path": "/data/b", "value": "2"}]);
    for (patch, want) in [
        (Patch::Json(serde_json::from_value(operations).expect("a patch")), json!({"a": "1", "b": "2"})),
        (Patch::Merge(json!({"data": {"a": null, "c": "3"}})), json!({"b": "2", "c": "3"})),
        (Patch::Strategic(json!({"data": {"d": "4"}})), json!({"b": "2", "c": "3", "d": "4"})),
    ] {
        assert_eq!(data(&maps.patch("patched", &PatchParams::default(), &patch).await.expect("patched")), want);
    }
    let apply = async |manager: &str, value: &str, force: bool| {
        let metadata = json!({"name": "applied"});
        let wanted = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"owned": value}});
        let params = PatchParams { force, ..PatchParams::apply(manager) };
        maps.patch("applied", &params, &Patch::Apply(wanted)).await
    };
    apply("one", "1", false).await.expect("applied");
    let conflict = r#"Apply failed with 1 conflict: conflict with "one": .data.owned"#;
    assert_eq!(refusal(apply("two", "2", false).await), (409, conflict.into()));
    assert_eq!(data(&apply("two", "2", true).await.expect("forced")), json!({"owned": "2"}));
}

async fn streams(pods: Api<Pod>) {
    assert_eq!(pods.logs("server", &Default::default()).await.expect("a log"), "started\n");
    let command = ["sh", "-c", "read line; echo out $line; echo err >&2; exit 3"];
    let mut process = pods.exec("server", command, &AttachParams::default().stdin(true)).await.expect("executed");
    let status = process.take_status().expect("a status");
    process.stdin().expect("stdin").write_all(b"put\n").await.expect("written");
    let (mut out, mut err) = (String::new(), String::new());
    process.stdout().expect("stdout").read_to_string(&mut out).await.expect("read");
    process.stderr().expect("stderr").read_to_string(&mut err).await.expect("read");
    assert_eq!((out.as_str(), err.as_str()), ("out put\n", "err\n"));
    assert_eq!(status.await.and_then(|s| s.reason).as_deref(), Some("NonZeroExitCode"));
    let mut forwarded = pods.portforward("server", &[8080]).await.expect("forwarded");
    let mut stream = forwarded.take_stream(8080).expect("a stream");
    stream.write_all(b"GET /hostname HTTP/1.0\r\n\r\n").await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("server\n"), "{answer}");
}

/// Serves an admission webhook that refuses what is rude; its client configuration.
async fn webhook() -> Value {
    let authority = pki::Authority::generate("operator").expect("an authority");
    let names = ["localhost".to_string()];
    let identity = authority.issue(&pki::CertificateRequest::server("localhost", &names, &[])).expect("a certificate");
    let tls = tokio_rustls::TlsAcceptor::from(Arc::new(pki::tls::server(&identity, None).expect("tls")));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = tls.accept(stream).await else { continue };
            let service = hyper::service::service_fn(async |request: http::Request<hyper::body::Incoming>| {
                let body = request.into_body().collect().await.expect("a body").to_bytes();
                let mut review: Value = serde_json::from_slice(&body).expect("a review");
                let request = review["request"].take();
                let polite = !request["object"]["spec"]["text"].to_string().contains("rude");
                let mut response = json!({"uid": request["uid"], "allowed": polite});
                if !polite {
                    response["status"] = json!({"code": 403, "message": "be polite"});
                }
                review["response"] = response;
                Ok::<_, Infallible>(http::Response::new(review.to_string()))
            });
            let http = hyper::server::conn::http1::Builder::new();
            tokio::spawn(http.serve_connection::<_, _>(TokioIo::new(stream), service));
        }
    });
    let bundle = base64::engine::general_purpose::STANDARD.encode(authority.certificate_pem());
    json!({"url": format!("https://localhost:{port}/"), "caBundle": bundle})
}

fn greetings() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", "v1", "Greeting"))
}

async fn install(client: &Client) {
    let create = async |path: &str, body: Value| {
        let request = http::Request::post(path).header("content-type", "application/json");
        client
            .request::<Value>(request.body(body.to_string().into_bytes()).expect("a request"))
            .await
            .expect("created");
    };
    let text = json!({"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]});
    let schema = json!({"type": "object", "properties": {"spec": text}});
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}});
    create(
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        json!({"metadata": {"name": "greetings.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "greetings", "kind": "Greeting"}, "versions": [version]}}),
    )
    .await;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    await_condition(definitions, "greetings.example.com", conditions::is_crd_established()).await.expect("established");
    let rule =
        json!({"apiGroups": ["example.com"], "apiVersions": ["v1"], "resources": ["greetings"], "operations": ["*"]});
    create(
        "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
        json!({"metadata": {"name": "polite"}, "webhooks": [{"name": "polite.example.com", "rules": [rule],
            "sideEffects": "None", "admissionReviewVersions": ["v1"], "clientConfig": webhook().await}]}),
    )
    .await;
}

type Failure = finalizer::Error<kube::Error>;

/// Makes a config map of each greeting; says farewell in another before the greeting goes.
async fn reconcile(greeting: Arc<DynamicObject>, client: Arc<Client>) -> Result<Action, Failure> {
    let ns = greeting.namespace().unwrap_or_default();
    let maps: Api<ConfigMap> = Api::namespaced((*client).clone(), &ns);
    let api = Api::namespaced_with((*client).clone(), &ns, &greetings());
    finalizer(&api, "example.com/farewell", greeting, async |event| {
        let (name, text) = match event {
            Event::Apply(greeting) => (greeting.name_any(), greeting.data["spec"]["text"].clone()),
            Event::Cleanup(greeting) => (format!("farewell-{}", greeting.name_any()), json!("gone")),
        };
        let metadata = json!({"name": name.as_str()});
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"text": text}});
        maps.patch(&name, &PatchParams::apply("greeter").force(), &Patch::Apply(map)).await?;
        Ok(Action::await_change())
    })
    .await
}

async fn operate(client: Client, ns: &str, ready: impl FnOnce(), restarted: impl Future<Output = ()>) {
    install(&client).await;
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), ns, &greetings());
    let retry = |_, _: &Failure, _| Action::requeue(Duration::from_millis(500));
    let controller = Controller::new_with(api.clone(), watcher::Config::default(), greetings());
    tokio::spawn(controller.run(reconcile, retry, Arc::new(client.clone())).for_each(async |_| {}));
    let greet = async |name: &str, text: &str| {
        let metadata = json!({"name": name});
        let wanted =
            json!({"apiVersion": "example.com/v1", "kind": "Greeting", "metadata": metadata, "spec": {"text": text}});
        api.patch(name, &PatchParams::apply("people"), &Patch::Apply(wanted)).await
    };
    let says = async |name: &str, text: &'static str| {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), ns);
        let is = move |map: Option<&ConfigMap>| map.is_some_and(|map| data(map) == json!({"text": text}));
        await_condition(maps, name, is).await.expect("watched");
    };
    greet("hello", "ahoy").await.expect("greeted");
    says("hello", "ahoy").await;
    let refused = r#"admission webhook "polite.example.com" denied the request: be polite"#;
    assert_eq!(refusal(greet("hello", "rude words").await), (403, refused.into()));
    ready();
    restarted.await;
    greet("again", "moin").await.expect("greeted");
    says("again", "moin").await;
    assert_eq!(refusal(greet("again", "rude words").await), (403, refused.into()));
    api.delete("hello", &DeleteParams::default()).await.expect("deleted");
    says("farewell-hello", "gone").await;
    await_condition(api, "hello", |greeting: Option<&DynamicObject>| greeting.is_none()).await.expect("gone");
}
