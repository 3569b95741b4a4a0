//! Custom resources: definitions come, are changed and go; objects are converted, and seen alike by all servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Method;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use meta::{Value, json};
use store::Store;

use super::*;
use crate::Config;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

fn definition() -> Value {
    meta::parse(include_bytes!("widgets.json")).expect("JSON")
}

fn condition<'v>(definition: &'v Value, name: &str) -> &'v str {
    let all = definition.array_at(&["status", "conditions"]).iter();
    all.filter(|c| c["type"].as_str() == Some(name)).filter_map(|c| c["status"].as_str()).next().unwrap_or("-")
}

impl Cluster {
    /// Waits until a definition is as is wanted; `None` when it is gone.
    async fn until(&self, name: &str, holds: impl Fn(Option<&Value>) -> bool) {
        let list = self.get(&format!("{DEFINITIONS}?fieldSelector=metadata.name={name}")).await;
        if holds(list.array_at(&["items"]).first()) {
            return;
        }
        let path =
            format!("{DEFINITIONS}?watch=true&fieldSelector=metadata.name={name}&resourceVersion={}", version(&list));
        let mut lines = Lines::new(self.send(self.request(Method::GET, &path, "", "")).await);
        loop {
            let event = lines.next().await.expect("the watch goes on");
            let object = Some(&event["object"]).filter(|_| event["type"].as_str() != Some("DELETED"));
            if holds(object) {
                return;
            }
        }
    }

    async fn define(&self, definition: Value) {
        let name = definition.str_at(&["metadata", "name"]).expect("a name").to_string();
        self.ok(Method::POST, DEFINITIONS, definition).await;
        self.until(&name, |d| d.is_some_and(|d| condition(d, "Established") == "True")).await;
    }
}

fn widget(name: &str, spec: Value) -> Value {
    let mut widget = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}});
    widget.set(&["spec"], spec);
    widget
}

/// A definition with versions v1 (stored) and v2, whose field is called otherwise.
fn two_versions(conversion: Value) -> Value {
    let mut definition = definition();
    let version = |name: &str, storage: bool, field: &str| {
        let mut version = json!({"name": name, "served": true, "storage": storage});
        version
            .set(&["schema", "openAPIV3Schema"], json!({"type": "object", "properties": {field: {"type": "string"}}}));
        version.set(&["selectableFields"], json!([{"jsonPath": format!(".{field}")}]));
        version
    };
    definition.set(&["spec", "versions"], vec![version("v1", true, "old"), version("v2", false, "new")]);
    definition.set(&["spec", "conversion"], conversion);
    definition
}

/// A conversion webhook that renames `old` to `new` and back, or says no to objects named so; it counts its calls.
async fn converter(calls: Arc<AtomicUsize>) -> (String, String) {
    let authority = pki::Authority::generate("ca").expect("an authority");
    let request = pki::CertificateRequest::server("localhost", &["localhost".to_string()], &[]);
    let identity = authority.issue(&request).expect("a certificate");
    let mut tls = pki::tls::server(&identity, None).expect("tls");
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let tls = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (tls, calls) = (tls.clone(), calls.clone());
            tokio::spawn(async move {
                let Ok(stream) = tls.accept(tcp).await else { return };
                let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async {
                    let body = request.into_body().collect().await.expect("a body").to_bytes();
                    calls.fetch_add(1, Ordering::Relaxed);
                    Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(Bytes::from(convert(&body)))))
                });
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    use base64::Engine;
    let bundle = base64::engine::general_purpose::STANDARD.encode(authority.certificate_pem());
    (format!("https://localhost:{port}/convert"), bundle)
}

fn convert(body: &[u8]) -> Vec<u8> {
    let mut review = meta::parse(body).expect("a review");
    let request = review.remove(&["request"]).expect("a request");
    let wanted = request.str_at(&["desiredAPIVersion"]).expect("a version");
    let mut result = json!({"status": "Success"});
    let mut objects = request.array_at(&["objects"]).to_vec();
    for object in &mut objects {
        let (from, to) = if wanted.ends_with("v2") { ("old", "new") } else { ("new", "old") };
        if let Some(value) = object.remove(&[from]) {
            object.set(&[to], value);
        }
        object.set(&["apiVersion"], wanted);
        if object["metadata"]["name"].as_str() == Some("no") {
            result = json!({"status": "Failure", "message": "not this one"});
        }
    }
    review.set(&["response", "uid"], &request["uid"]);
    review.set(&["response", "result"], result);
    review.set(&["response", "convertedObjects"], objects);
    review.to_vec()
}

/// A cluster with widgets of two versions, between which a webhook converts.
async fn converting(calls: &Arc<AtomicUsize>) -> Cluster {
    let cluster = Cluster::start().await;
    let (url, bundle) = converter(calls.clone()).await;
    let mut conversion = json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"]}});
    conversion.set(&["webhook", "clientConfig"], json!({"url": url, "caBundle": bundle}));
    cluster.define(two_versions(conversion)).await;
    cluster
}

const V2: &str = "/apis/example.com/v2/namespaces/default/widgets";

fn of_v2(name: &str, new: &str) -> Value {
    json!({"apiVersion": "example.com/v2", "kind": "Widget", "metadata": {"name": name}, "new": new})
}

#[tokio::test]
async fn a_webhook_converts() {
    let cluster = converting(&Arc::default()).await;
    let made = cluster.ok(Method::POST, V2, of_v2("a", "x")).await;
    assert_eq!(made["new"].as_str(), Some("x"));
    let old = cluster.get(&format!("{WIDGETS}/a")).await;
    assert_eq!((old["old"].as_str(), old.get("new")), (Some("x"), None));
    let patched = cluster.ok(Method::PATCH, &format!("{V2}/a"), json!({"new": "y"})).await;
    assert_eq!(patched["new"].as_str(), Some("y"));
    let mut lines = Lines::new(cluster.send(cluster.request(Method::GET, &format!("{V2}?watch=true"), "", "")).await);
    assert_eq!(lines.next().await.expect("an event")["object"]["new"].as_str(), Some("y"));
    cluster
        .ok(
            Method::POST,
            WIDGETS,
            json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "b"}, "old": "z"}),
        )
        .await;
    assert_eq!(lines.next().await.expect("an event")["object"]["new"].as_str(), Some("z"));
    let answer = cluster.call(Method::POST, V2, of_v2("no", "x")).await;
    let why = "conversion webhook for example.com/v2, Kind=Widget failed: not this one";
    assert_eq!((answer.code, answer.body["message"].as_str()), (500, Some(why)));
}

/// Fields are selected by in the version that is asked for, whatever version is stored.
#[tokio::test]
async fn fields_are_those_of_the_version() {
    let cluster = converting(&Arc::default()).await;
    let names = |list: Value| -> Vec<String> {
        let name = |item: &Value| item.str_at(&["metadata", "name"]).unwrap_or_default().to_string();
        list.array_at(&["items"]).iter().map(name).collect()
    };
    for (name, value) in [("a", "x"), ("b", "y"), ("c", "x")] {
        cluster.ok(Method::POST, V2, of_v2(name, value)).await;
    }
    // Twice: the second list shows what the first had converted.
    for _ in 0..2 {
        assert_eq!(names(cluster.get(&format!("{V2}?fieldSelector=new=x")).await), ["a", "c"]);
    }
    assert_eq!(names(cluster.get(&format!("{WIDGETS}?fieldSelector=old!=x")).await), ["b"]);
    assert_eq!(cluster.call(Method::GET, &format!("{V2}?fieldSelector=old=x"), Value::Null).await.code, 400);

    let watch = cluster.request(Method::GET, &format!("{V2}?watch=true&fieldSelector=new=x"), "", "");
    let mut lines = Lines::new(cluster.send(watch).await);
    let mut seen = Vec::new();
    cluster.ok(Method::PATCH, &format!("{V2}/a"), json!({"new": "y"})).await;
    cluster.ok(Method::PATCH, &format!("{WIDGETS}/b"), json!({"old": "x"})).await;
    let gone = cluster.ok(Method::DELETE, &format!("{V2}?fieldSelector=new=y"), Value::Null).await;
    assert_eq!(names(gone), ["a"]);
    cluster.ok(Method::DELETE, &format!("{WIDGETS}/c"), Value::Null).await;
    for _ in 0..5 {
        let event = lines.next().await.expect("an event");
        let text = |path: &[&str]| event.str_at(path).unwrap_or_default().to_string();
        let of = [text(&["type"]), text(&["object", "metadata", "name"]), text(&["object", "new"])];
        seen.push(of.join(" "));
    }
    assert_eq!(seen, ["ADDED a x", "ADDED c x", "DELETED a x", "ADDED b x", "DELETED c x"]);
}

/// Whoever watches wants the same states: the webhook is asked for each once.
#[tokio::test]
async fn a_state_is_converted_once() {
    let calls = Arc::default();
    let cluster = converting(&calls).await;
    let mut watches = Vec::new();
    for _ in 0..20 {
        let watch = cluster.request(Method::GET, &format!("{V2}?watch=true"), "", "");
        watches.push(Lines::new(cluster.send(watch).await));
    }
    let of_v1 =
        |name: &str| json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "old": "x"});
    for (asked, name) in ["a", "b"].into_iter().enumerate() {
        cluster.ok(Method::POST, WIDGETS, of_v1(name)).await;
        for event in futures::future::join_all(watches.iter_mut().map(Lines::next)).await {
            assert_eq!(event.expect("an event")["object"]["new"].as_str(), Some("x"));
        }
        assert_eq!(calls.load(Ordering::Relaxed), asked + 1);
    }
    assert_eq!(cluster.get(V2).await.array_at(&["items"]).len(), 2);
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    // One object alone is shown as the webhook makes it now.
    cluster.get(&format!("{V2}/a")).await;
    assert_eq!(calls.load(Ordering::Relaxed), 3);
}

/// What is declared for one version binds requests in the others too, which a webhook converts for that.
#[tokio::test]
async fn policies_of_one_version_bind_all() {
    let cluster = converting(&Arc::default()).await;
    let rules = json!({"resourceRules": [{"apiGroups": ["example.com"], "apiVersions": ["v1"], "operations": ["*"],
        "resources": ["widgets"]}]});
    let api = "/apis/admissionregistration.k8s.io/v1";
    let patch = r#"has(object.old) ? [JSONPatch{op: "replace", path: "/old", value: object.old + "!"}] : []"#;
    let policy = json!({"metadata": {"name": "p"}, "spec": {"reinvocationPolicy": "Never", "matchConstraints": rules.clone(),
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}]}});
    cluster.ok(Method::POST, &format!("{api}/mutatingadmissionpolicies"), policy).await;
    let policy = json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": rules,
        "validations": [{"expression": "!has(object.old) || !object.old.startsWith('bad')"}]}});
    cluster.ok(Method::POST, &format!("{api}/validatingadmissionpolicies"), policy).await;
    for (kind, actions) in [("mutating", Value::Null), ("validating", json!(["Deny"]))] {
        let mut binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p"}});
        if !actions.is_null() {
            binding.set(&["spec", "validationActions"], actions);
        }
        let path = format!("{api}/{kind}admissionpolicybindings");
        cluster.ok(Method::POST, &path, binding).await;
        // A list is answered once the caches show what was written before.
        cluster.get(&path).await;
    }
    let made = cluster.ok(Method::POST, V2, of_v2("a", "x")).await;
    assert_eq!((made["new"].as_str(), made["apiVersion"].as_str()), (Some("x!"), Some("example.com/v2")));
    let answer = cluster.call(Method::POST, V2, of_v2("b", "bad")).await;
    assert_eq!(answer.code, 422, "{}", answer.text);
    assert!(answer.text.contains("ValidatingAdmissionPolicy 'p' with binding 'b' denied request"), "{}", answer.text);
    // What cannot be converted cannot be judged.
    let answer = cluster.call(Method::POST, V2, of_v2("no", "x")).await;
    assert!(answer.code >= 400 && answer.text.contains("failed: not this one"), "{} {}", answer.code, answer.text);
}

#[tokio::test]
async fn servers_on_one_store_agree() {
    let cluster = Cluster::start().await;
    let server = Server::start(Config::new(cluster.store.clone() as Arc<dyn Store>)).await.expect("a second server");
    let local = server.local(User::new("test", ["system:masters"]));
    let second = Cluster { server, store: cluster.store.clone(), local };
    cluster.define(definition()).await;
    second.ok(Method::POST, WIDGETS, widget("a", json!({"size": 1}))).await;
    assert_eq!(cluster.get(&format!("{WIDGETS}/a")).await["spec"]["color"].as_str(), Some("red"));
    let name = "widgets.example.com";
    cluster.ok(Method::DELETE, &format!("{DEFINITIONS}/{name}"), Value::Null).await;
    second.until(name, |d| d.is_none()).await;
    let start = Bytes::from_static(b"/registry/example.com/");
    let left = store::RangeRequest { end: store::prefix_end(&start), start, ..Default::default() };
    assert_eq!(cluster.store.range(left).await.expect("a range").kvs.len(), 0);
    assert_eq!(second.call(Method::GET, WIDGETS, Value::Null).await.code, 404);
}

#[tokio::test]
async fn a_changed_schema_shows_in_what_is_stored() {
    let cluster = Cluster::start().await;
    cluster.define(definition()).await;
    cluster.ok(Method::POST, WIDGETS, widget("a", json!({"size": 9, "free": {"x": 1}}))).await;
    let mut lines =
        Lines::new(cluster.send(cluster.request(Method::GET, &format!("{WIDGETS}?watch=true"), "", "")).await);
    lines.next().await.expect("the object");
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    let patch = json!([{"op": "remove", "path": format!("{path}/free")}, {"op": "replace", "path": format!("{path}/size/maximum"), "value": 5},
        {"op": "add", "path": format!("{path}/shape"), "value": {"type": "string", "default": "round"}}]);
    let url = format!("{DEFINITIONS}/widgets.example.com");
    let answer = cluster.raw(Method::PATCH, &url, "application/json-patch+json", patch.to_vec()).await;
    assert_eq!(answer.code, 200, "{}", answer.text);
    // Watches of what was before end.
    assert!(lines.next().await.is_none());
    let shown = cluster.get(&format!("{WIDGETS}/a")).await;
    assert_eq!(shown["spec"].to_string(), r#"{"color":"red","replicas":1,"shape":"round","size":9}"#);
    // What was valid once may stay; what changes must be valid now.
    cluster.ok(Method::PATCH, &format!("{WIDGETS}/a"), json!({"metadata": {"labels": {"l": "1"}}})).await;
    let answer = cluster.call(Method::PATCH, &format!("{WIDGETS}/a"), json!({"spec": {"size": 8}})).await;
    assert_eq!(answer.code, 422, "{}", answer.text);
}
