//! API servers behind this one, from registration to their end.

use http::Method;
use meta::{Value, json};
use pki::{Authority, CertificateRequest};
use tokio_rustls::TlsAcceptor;

use super::proxies::{SERVICES, SLICES, backend, slice, store_slice};
use super::{Cluster, Lines};
use crate::FrontProxy;

const PATH: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const NAME: &str = "v1.ext.example.com";

async fn wait_for(lines: &mut Lines, reason: &str) -> String {
    loop {
        let event = lines.next().await.expect("an event");
        let condition = event["object"].array_at(&["status", "conditions"]).first().cloned().unwrap_or_default();
        if condition.str_at(&["reason"]) == Some(reason) {
            let status = if ["Passed", "Local"].contains(&reason) { "True" } else { "False" };
            assert_eq!(condition.str_at(&["status"]), Some(status));
            return condition.str_at(&["message"]).unwrap_or_default().to_string();
        }
    }
}

#[tokio::test]
async fn what_is_served_here_is_registered() {
    let cluster = Cluster::start().await;
    let list = cluster.get(PATH).await;
    let shown = |name: &str| {
        let all = list.array_at(&["items"]);
        let found = all.iter().find(|a| a.str_at(&["metadata", "name"]) == Some(name)).expect("there");
        let condition = &found["status"]["conditions"][0];
        let label = found["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"].as_str();
        assert_eq!((label, condition.str_at(&["type"])), (Some("onstart"), Some("Available")));
        (found["spec"].int_at(&["groupPriorityMinimum"]), condition.str_at(&["reason"]).map(str::to_string))
    };
    assert_eq!(shown("v1."), (Some(18000), Some("Local".into())));
    assert_eq!(shown("v1.apps"), (Some(17800), Some("Local".into())));
    assert!(!list.to_vec().windows(10).any(|w| w == b"\"v1.apireg"), "served by the aggregator itself");
}

#[tokio::test]
async fn another_server_serves_a_group() {
    let ca = Authority::generate("ext").expect("an authority");
    let front = Authority::generate("front").expect("an authority");
    let certificate = ca.issue(&CertificateRequest::server("api", &["api.default.svc".into()], &[])).expect("issued");
    let tls = pki::tls::server(&certificate, Some(front.certificate_pem())).expect("TLS");
    let at = backend(Some(TlsAcceptor::from(std::sync::Arc::new(tls)))).await;
    let identity = front.issue(&CertificateRequest::client("front-proxy-client", None)).expect("issued");
    let ca_pem = front.certificate_pem().to_string();
    let cluster = Cluster::start_with(|c| {
        c.front_proxy = Some(FrontProxy { identity, ca_pem });
        c.features.loopback_endpoints = true;
    })
    .await;
    let trust = cluster.get("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication").await;
    assert_eq!(trust.str_at(&["data", "requestheader-allowed-names"]), Some(r#"["front-proxy-client"]"#));
    assert_eq!(trust.str_at(&["data", "requestheader-client-ca-file"]), Some(front.certificate_pem()));

    use base64::Engine;
    let bundle = base64::engine::general_purpose::STANDARD.encode(ca.certificate_pem());
    let registration = json!({"metadata": {"name": NAME}, "spec": {"group": "ext.example.com", "version": "v1",
        "groupPriorityMinimum": 17900, "versionPriority": 10, "caBundle": bundle,
        "service": {"namespace": "default", "name": "api", "port": 8443}}});
    let watch = cluster.request(Method::GET, &format!("{PATH}?watch=1&fieldSelector=metadata.name={NAME}"), "", "");
    let mut lines = Lines::new(cluster.send(watch).await);
    cluster.ok(Method::POST, PATH, registration).await;
    assert_eq!(wait_for(&mut lines, "ServiceNotFound").await, r#"service/api in "default" is not present"#);
    let things = "/apis/ext.example.com/v1/namespaces/default/things?limit=5";
    let answer = cluster.call(Method::GET, things, Value::Null).await;
    assert_eq!((answer.code, answer.text.as_str()), (503, "service unavailable\n"));

    let service = json!({"metadata": {"name": "api"}, "spec": {"ports": [{"name": "https", "port": 8443}]}});
    cluster.ok(Method::POST, SERVICES, service).await;
    let message = wait_for(&mut lines, "MissingEndpoints").await;
    assert_eq!(message, r#"endpoints for service/api in "default" have no addresses with port name "https""#);
    store_slice(&cluster, &slice("api", "https", at)).await;
    assert_eq!(wait_for(&mut lines, "Passed").await, "all checks passed");
    while cluster.server.shared.aggregator.remotes().iter().any(|r| !r.is_available()) {
        tokio::task::yield_now().await;
    }

    for body in ["", "{}"] {
        let mut request = cluster.request(Method::POST, things, "", body);
        request.headers_mut().insert("x-remote-group", "forged".parse().expect("value"));
        let answer = super::collect(cluster.send(request).await).await;
        let want = format!(
            "POST {things}\ncertificate: front-proxy-client\nx-forwarded-proto: https\nx-forwarded-uri: {}\n\
             x-remote-group: system:authenticated\nx-remote-group: system:masters\nx-remote-user: test\n",
            things.trim_end_matches("?limit=5")
        );
        let said: Vec<_> = answer.text.lines().filter(|l| !l.starts_with("content-length")).collect();
        assert_eq!((answer.code, said.join("\n") + "\n"), (200, want));
    }
    discovery(&cluster).await;

    cluster.ok(Method::DELETE, &format!("{SLICES}/api"), Value::Null).await;
    wait_for(&mut lines, "MissingEndpoints").await;
    let answer = cluster.call(Method::GET, things, Value::Null).await;
    assert_eq!((answer.code, answer.text.as_str()), (503, "service unavailable\n"));
    cluster.ok(Method::DELETE, &format!("{PATH}/{NAME}"), Value::Null).await;
    while !cluster.server.shared.aggregator.remotes().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(cluster.call(Method::GET, things, Value::Null).await.code, 404);
}

async fn discovery(cluster: &Cluster) {
    let groups = cluster.get("/apis").await;
    let names: Vec<&str> = groups.array_at(&["groups"]).iter().filter_map(|g| g.str_at(&["name"])).collect();
    assert_eq!(names[..3], ["apiregistration.k8s.io", "ext.example.com", "apps"]);
    let version = json!({"groupVersion": "ext.example.com/v1", "version": "v1"});
    assert_eq!(
        cluster.get("/apis/ext.example.com").await,
        json!({"kind": "APIGroup", "apiVersion": "v1", "name": "ext.example.com", "versions": [version.clone()],
            "preferredVersion": version})
    );
    let list = cluster.get("/apis/ext.example.com/v1").await;
    assert_eq!(list.str_at(&["groupVersion"]), Some("ext.example.com/v1"));
    let accept = &*format!("application/json;{}", api::discovery::AGGREGATED_PARAMETERS);
    let aggregated = cluster.accepting("/apis", accept).await.body;
    let kind = json!({"group": "ext.example.com", "version": "v1", "kind": "Thing"});
    let scale = json!({"group": "autoscaling", "version": "v1", "kind": "Scale"});
    assert_eq!(
        aggregated["items"][1],
        json!({"metadata": {"name": "ext.example.com"}, "versions": [{"version": "v1", "freshness": "Current", "resources": [
            {"resource": "things", "singularResource": "thing", "scope": "Namespaced", "responseKind": kind,
                "verbs": ["get", "list"],
                "subresources": [{"subresource": "scale", "responseKind": scale, "verbs": ["get"]}]}]}]})
    );
    let index = cluster.get("/openapi/v3").await;
    let url = |path: &str| index["paths"][path].str_at(&["serverRelativeURL"]).unwrap_or_default().to_string();
    assert_eq!(url("apis/ext.example.com/v1"), "/openapi/v3/apis/ext.example.com/v1?hash=A");
    assert!(!url("apis/apps/v1").contains("EVIL"));
    let whole = cluster.get("/openapi/v2").await;
    assert_eq!(whole["definitions"]["Thing"], json!({"type": "object"}));
    assert!(whole["paths"].get("/apis/ext.example.com/v1/things").is_some());
    assert!(!whole.to_string().contains("EVIL"));
    let document = cluster.call(Method::GET, "/openapi/v3/apis/ext.example.com/v1?hash=A", Value::Null).await;
    assert!(document.text.starts_with("GET /openapi/v3/apis/ext.example.com/v1?hash=A\n"), "{}", document.text);
}

#[tokio::test]
async fn group_versions_of_definitions_are_registered_while_they_are_served() {
    let cluster = Cluster::start().await;
    let path = "/apis/apiregistration.k8s.io/v1/apiservices?watch=true&labelSelector=kube-aggregator.kubernetes.io/automanaged=true";
    let mut lines = Lines::new(cluster.send(cluster.request(Method::GET, path, "", "")).await);
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let definition = json!({"metadata": {"name": "foos.a.example.com"}, "spec": {"group": "a.example.com", "scope": "Cluster",
        "names": {"plural": "foos", "kind": "Foo"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    cluster.ok(Method::POST, definitions, definition).await;
    let made = lines.next().await.expect("an event");
    assert_eq!(made["type"].as_str(), Some("ADDED"));
    let want = json!({"group": "a.example.com", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 100});
    assert_eq!(made["object"]["spec"], want);
    assert_eq!(wait_for(&mut lines, "Local").await, "Local APIServices are always available");
    cluster.ok(Method::DELETE, &format!("{definitions}/foos.a.example.com"), Value::Null).await;
    while lines.next().await.expect("an event")["type"].as_str() != Some("DELETED") {}
}
