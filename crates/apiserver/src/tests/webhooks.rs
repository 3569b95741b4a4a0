//! Admission webhooks: an HTTPS server in this process, who is called with what, and what comes of its answers.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use meta::{Value, json};
use tokio_rustls::TlsAcceptor;

use super::{Cluster, pod};

pub const MUTATING: &str = "mutatingwebhookconfigurations";
const VALIDATING: &str = "validatingwebhookconfigurations";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Answers a request (with its path) with a response, `uid` aside.
type Answer = fn(&str, &Value) -> Value;

pub struct Hooks {
    url: String,
    bundle: String,
    /// The requests, with their paths.
    seen: Arc<Mutex<Vec<(String, Value)>>>,
    /// Where in which trace they are, of those that say.
    pub contexts: Arc<Mutex<Vec<String>>>,
}

impl Hooks {
    pub async fn start(answer: Answer) -> Hooks {
        let authority = pki::Authority::generate("ca").expect("an authority");
        let request = pki::CertificateRequest::server("localhost", &["localhost".to_string()], &[]);
        let identity = authority.issue(&request).expect("a certificate");
        let tls = TlsAcceptor::from(Arc::new(pki::tls::server(&identity, None).expect("tls")));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("https://localhost:{}", listener.local_addr().expect("an address").port());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let contexts = Arc::new(Mutex::new(Vec::new()));
        let keep = (seen.clone(), contexts.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, keep) = (tls.clone(), keep.clone());
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                        let keep = keep.clone();
                        async move {
                            let path = request.uri().path().to_string();
                            let said = ["traceparent", "tracestate"].map(|name| request.headers().get(name).cloned());
                            let said =
                                said.map(|v| v.and_then(|v| v.to_str().map(String::from).ok()).unwrap_or_default());
                            keep.1.lock().expect("not poisoned").extend((!said[0].is_empty()).then(|| said.join(" ")));
                            let body = request.into_body().collect().await.expect("a body").to_bytes();
                            let mut review = meta::parse(&body).expect("a review");
                            let asked = review.remove(&["request"]).expect("a request");
                            let mut response = answer(&path, &asked);
                            response.set(&["uid"], &asked["uid"]);
                            review.set(&["response"], response);
                            keep.0.lock().expect("not poisoned").push((path, asked));
                            Ok::<_, Infallible>(http::Response::new(Full::new(bytes::Bytes::from(review.to_vec()))))
                        }
                    });
                    if let Ok(stream) = tls.accept(stream).await {
                        let io = TokioIo::new(stream);
                        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
                    }
                });
            }
        });
        Hooks { url, bundle: STANDARD.encode(authority.certificate_pem()), seen, contexts }
    }

    /// A webhook `NAME.hooks.test` at `/NAME` for everything about config maps and pods, with `more` on top.
    pub fn hook(&self, name: &str, more: Value) -> Value {
        let mut hook = json!({"name": format!("{name}.hooks.test"), "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "clientConfig": {"url": format!("{}/{name}", self.url)},
            "rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"],
                "resources": ["configmaps", "pods", "pods/binding", "deployments/scale", "horizontalpodautoscalers"]}]});
        hook.set(&["clientConfig", "caBundle"], self.bundle.as_str());
        for (member, value) in more.as_object().expect("an object").iter() {
            hook.set(&[member], value);
        }
        hook
    }

    /// What was asked since the last time: path, operation, resource and name.
    fn shown(&self) -> Vec<String> {
        let seen = std::mem::take(&mut *self.seen.lock().expect("not poisoned"));
        let text = |v: &Value, path: &[&str]| v.str_at(path).unwrap_or_default().to_string();
        let show = |(path, r): &(String, Value)| {
            let sub = r.str_at(&["subResource"]).map(|s| format!("/{s}")).unwrap_or_default();
            format!(
                "{path} {} {}{sub} {}",
                text(r, &["operation"]),
                text(r, &["resource", "resource"]),
                text(r, &["name"])
            )
        };
        seen.iter().map(show).collect()
    }
}

pub async fn configure(cluster: &Cluster, plural: &str, hooks: Vec<Value>) {
    let path = format!("/apis/admissionregistration.k8s.io/v1/{plural}");
    let mut body = json!({"metadata": {"name": "c"}});
    body.set(&["webhooks"], hooks);
    let made = cluster.call(Method::POST, &path, body).await;
    assert_eq!((made.code, made.headers.get("warning")), (201, None), "{}", made.text);
    // A list is answered once the caches show what was written before.
    cluster.get(&path).await;
}

fn patch(operations: Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_vec())})
}

fn config_map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "b"}})
}

#[tokio::test]
async fn a_review_says_what_is_asked_and_a_patch_is_applied() {
    let hooks = Hooks::start(|_, asked| {
        let mut answer = patch(
            json!([{"op": "add", "path": "/data/added", "value": "1"}, {"op": "add", "path": "/nope", "value": 1}]),
        );
        if asked["object"].is_null() || asked.str_at(&["kind", "kind"]) != Some("ConfigMap") {
            answer = json!({"allowed": true});
        }
        answer.set(&["warnings"], vec!["mind the gap"]);
        answer
    })
    .await;
    let cluster = Cluster::start().await;
    configure(&cluster, MUTATING, vec![hooks.hook("a", json!({}))]).await;
    let path = format!("{CONFIG_MAPS}?fieldManager=me");
    let made = cluster.call(Method::POST, &path, config_map("m")).await;
    assert_eq!(made.body["data"], json!({"a": "b", "added": "1"}), "{}", made.text);
    assert!(made.body["nope"].is_null());
    assert_eq!(made.headers["warning"], r#"299 - "mind the gap""#);
    let (path, mut asked) = hooks.seen.lock().expect("not poisoned").remove(0);
    assert_eq!(path, "/a");
    assert_eq!(asked.remove(&["uid"]).and_then(|uid| uid.as_str().map(str::len)), Some(36));
    asked.remove(&["object", "metadata", "managedFields"]);
    let kind = json!({"group": "", "version": "v1", "kind": "ConfigMap"});
    let resource = json!({"group": "", "version": "v1", "resource": "configmaps"});
    let mut want = json!({
        "name": "m", "namespace": "default", "operation": "CREATE", "dryRun": false, "oldObject": null,
        "userInfo": {"username": "test", "groups": ["system:masters", "system:authenticated"]},
        "object": {"kind": "ConfigMap", "apiVersion": "v1", "data": {"a": "b"},
            "metadata": {"name": "m", "namespace": "default", "creationTimestamp": null}},
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "me"}});
    for (member, value) in
        [("kind", &kind), ("requestKind", &kind), ("resource", &resource), ("requestResource", &resource)]
    {
        want.set(&[member], value);
    }
    if asked.at(&["object", "metadata", "creationTimestamp"]).is_none() {
        want.remove(&["object", "metadata", "creationTimestamp"]);
    }
    assert_eq!(asked, want);

    let path = format!("{CONFIG_MAPS}/m");
    cluster.ok(Method::PATCH, &format!("{path}?dryRun=All"), json!({"data": {"a": "c"}})).await;
    cluster.ok(Method::DELETE, &path, json!({"propagationPolicy": "Background"})).await;
    let seen = std::mem::take(&mut *hooks.seen.lock().expect("not poisoned"));
    let [(_, update), (_, delete)] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!(update["options"], json!({"kind": "UpdateOptions", "apiVersion": "meta.k8s.io/v1", "dryRun": ["All"]}));
    assert_eq!((&update["oldObject"]["data"]["a"], &update["object"]["data"]["a"]), (&"b".into(), &"c".into()));
    let options = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1", "propagationPolicy": "Background"});
    assert_eq!((&delete["options"], &delete["object"]), (&options, &Value::Null));
    assert_eq!(delete.str_at(&["oldObject", "metadata", "name"]), Some("m"));
}

#[tokio::test]
async fn refusals_and_failures() {
    let hooks = Hooks::start(|path, _| match path {
        "/no" => json!({"allowed": false, "status": {"code": 403, "reason": "Forbidden", "message": "not today"}}),
        "/odd" => json!({"allowed": true, "patch": "W10="}),
        _ => json!({"allowed": true}),
    })
    .await;
    let cluster = Cluster::start().await;
    let only =
        |name: &str| json!({"matchConditions": [{"name": "only", "expression": format!("request.name == '{name}'")}]});
    let with = |name: &str, mut more: Value, member: &str, value: &str| {
        more.set(&[member], value);
        hooks.hook(name, more)
    };
    let mut closed = hooks.hook("closed", only("closed"));
    closed.set(&["clientConfig", "url"], "https://localhost:1/x");
    let broken =
        json!({"matchConditions": [{"name": "a", "expression": "request.name != 'broken' || object.none == 1"}]});
    configure(
        &cluster,
        VALIDATING,
        vec![
            hooks.hook("no", only("no")),
            with("no-ignored", only("ignored"), "failurePolicy", "Ignore"),
            hooks.hook("odd", only("odd")),
            closed,
            hooks.hook("broken", broken),
        ],
    )
    .await;
    for (name, want) in [
        ("fine", "201 "),
        ("no", r#"403 Forbidden admission webhook "no.hooks.test" denied the request: not today"#),
        (
            "odd",
            "500 InternalError Internal error occurred: failed calling webhook \"odd.hooks.test\": received invalid \
             webhook response: validating webhook may not return response.patch",
        ),
        (
            "closed",
            "500 InternalError Internal error occurred: failed calling webhook \"closed.hooks.test\": failed to call \
             webhook: Post \"https://localhost:1/x?timeout=10s\": dial tcp *",
        ),
        (
            "broken",
            "403 Forbidden configmaps \"broken\" is forbidden: expression 'request.name != 'broken' || object.none == 1' \
             resulted in error: no such key: none",
        ),
    ] {
        let answer = cluster.call(Method::POST, CONFIG_MAPS, config_map(name)).await;
        let text = |member: &str| answer.body.str_at(&[member]).unwrap_or_default().to_string();
        let found = format!("{} {}", answer.code, [text("reason"), text("message")].join(" ").trim());
        match want.strip_suffix('*') {
            Some(start) => assert!(found.starts_with(start), "{found}"),
            None => assert_eq!(found, want),
        }
    }
    let page = cluster.raw(Method::GET, "/metrics", "", "").await.text;
    let mut found: Vec<&str> = page.lines().filter(|line| line.starts_with("apiserver_admission_webhook_")).collect();
    let counted = |line: &str| ["closed", "no", "odd"].iter().any(|name| line.contains(&format!("name=\"{name}.")));
    found.retain(|line| !line.contains("_bucket{") && !line.contains("_sum{") && counted(line));
    let start = "apiserver_admission_webhook_";
    let (operation, rejected) = ("operation=\"CREATE\"", "rejected=\"true\",type=\"validating\"");
    let hooks_of = |name: &str, code: u16, error: &str| {
        let name = format!("name=\"{name}.hooks.test\"");
        [
            format!("{start}admission_duration_seconds_count{{{name},{operation},{rejected}}} 1"),
            format!(
                "{start}rejection_count{{error_type=\"{error}\",{name},{operation},rejection_code=\"{code}\",type=\"validating\"}} 1"
            ),
            format!("{start}request_total{{code=\"{code}\",{name},{operation},{rejected}}} 1"),
        ]
    };
    let mut want =
        [("closed", 503, "calling_webhook_error"), ("no", 403, "no_error"), ("odd", 503, "calling_webhook_error")]
            .map(|(name, code, error)| hooks_of(name, code, error))
            .concat();
    found.sort();
    want.sort();
    assert_eq!(found, want);
    let step =
        "admission_step_admission_duration_seconds_count{operation=\"CREATE\",rejected=\"true\",type=\"validate\"} 4\n";
    assert!(page.contains(step), "{page}");
    // What configures webhooks is not subject to them, and faulty conditions are refused.
    let path = format!("/apis/admissionregistration.k8s.io/v1/{VALIDATING}");
    let faulty = json!({"matchConditions": [{"name": "a", "expression": "object."}]});
    let mut body = json!({"metadata": {"name": "d"}});
    body.set(&["webhooks"], vec![hooks.hook("a", faulty)]);
    let answer = cluster.call(Method::POST, &path, body).await;
    let start = "ValidatingWebhookConfiguration.admissionregistration.k8s.io \"d\" is invalid: \
        webhooks[0].matchConditions[0].expression: Invalid value: \"object.\": compilation failed: ERROR: <input>:1:8: ";
    assert!(answer.body.str_at(&["message"]).is_some_and(|m| m.starts_with(start)), "{}", answer.text);
}

#[tokio::test]
async fn selectors_versions_and_subresources() {
    let hooks = Hooks::start(|_, _| json!({"allowed": true})).await;
    let cluster = Cluster::start().await;
    let labels = json!({"matchLabels": {"a": "b"}});
    let rule = |version: &str, policy: &str| {
        json!({"matchPolicy": policy, "rules": [{"operations": ["CREATE"], "apiGroups": ["autoscaling"],
            "apiVersions": [version], "resources": ["horizontalpodautoscalers"]}]})
    };
    let mut hook = hooks.hook("objects", json!({}));
    hook.set(&["objectSelector"], &labels);
    let mut spaces = hooks.hook("spaces", json!({}));
    spaces.set(&["namespaceSelector"], &labels);
    let versions = [hooks.hook("v1", rule("v1", "Equivalent")), hooks.hook("exact", rule("v1", "Exact"))];
    configure(&cluster, VALIDATING, [hook, spaces].into_iter().chain(versions).collect()).await;
    cluster.ok(Method::POST, CONFIG_MAPS, config_map("m")).await;
    assert!(hooks.shown().is_empty());
    cluster.ok(Method::PATCH, &format!("{CONFIG_MAPS}/m"), json!({"metadata": {"labels": {"a": "b"}}})).await;
    cluster.ok(Method::PATCH, &format!("{CONFIG_MAPS}/m"), json!({"metadata": {"labels": {"a": null}}})).await;
    assert_eq!(hooks.shown(), ["/objects UPDATE configmaps m"; 2]);
    cluster.ok(Method::PATCH, "/api/v1/namespaces/default", json!({"metadata": {"labels": {"a": "b"}}})).await;
    cluster.get("/api/v1/namespaces").await;
    cluster.ok(Method::DELETE, &format!("{CONFIG_MAPS}/m"), Value::Null).await;
    assert_eq!(hooks.shown(), ["/spaces DELETE configmaps m"]);

    let autoscaler = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 2, "targetCPUUtilizationPercentage": 50,
        "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}});
    cluster.ok(Method::POST, "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers", autoscaler).await;
    let mut shown = hooks.shown();
    shown.sort_unstable();
    let create = "CREATE horizontalpodautoscalers h";
    assert_eq!(shown, ["/exact", "/spaces", "/v1"].map(|path| format!("{path} {create}")));
    let autoscaler = json!({"metadata": {"name": "i"}, "spec": {"maxReplicas": 2,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}],
        "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}});
    cluster.ok(Method::POST, "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers", autoscaler).await;
    let seen = std::mem::take(&mut *hooks.seen.lock().expect("not poisoned"));
    let converted = seen.iter().find(|(path, _)| path == "/v1").expect("asked in the other version");
    assert_eq!(converted.1["object"]["spec"]["targetCPUUtilizationPercentage"], 50.into());
    assert_eq!(converted.1.str_at(&["kind", "version"]), Some("v1"));
    assert_eq!(converted.1.str_at(&["requestKind", "version"]), Some("v2"));
    assert!(seen.iter().all(|(path, _)| path != "/exact"));

    cluster.pod("p").await;
    hooks.shown();
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    cluster.ok(Method::POST, "/api/v1/namespaces/default/pods/p/binding", binding).await;
    let (_, asked) = hooks.seen.lock().expect("not poisoned").remove(0);
    assert_eq!(asked.str_at(&["object", "kind"]), Some("Binding"));
    assert!(hooks.shown().is_empty());
}

#[tokio::test]
async fn a_changed_object_is_shown_again_to_whom_it_matters() {
    let hooks = Hooks::start(|path, asked| match path {
        "/b" => patch(json!([{"op": "add", "path": "/metadata/labels", "value": {"b": "1"}}])),
        _ if asked["object"]["spec"]["priority"].is_null() => json!({"allowed": false}),
        _ => json!({"allowed": true}),
    })
    .await;
    let cluster = Cluster::start().await;
    let again = || json!({"reinvocationPolicy": "IfNeeded"});
    let all = vec![hooks.hook("a", again()), hooks.hook("b", again()), hooks.hook("c", json!({}))];
    configure(&cluster, MUTATING, all).await;
    let made = cluster.ok(Method::POST, "/api/v1/namespaces/default/pods", pod("p")).await;
    assert_eq!(made.str_at(&["metadata", "labels", "b"]), Some("1"));
    assert_eq!(hooks.shown(), ["/a", "/b", "/c", "/a"].map(|path| format!("{path} CREATE pods p")));
    let refused = cluster.call(Method::DELETE, "/api/v1/namespaces/default/pods/p", Value::Null).await;
    // It may look at a deletion, and refuse it.
    assert_eq!(
        refused.body.str_at(&["message"]),
        Some(r#"admission webhook "a.hooks.test" denied the request without explanation"#)
    );
}
