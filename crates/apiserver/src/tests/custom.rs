//! Custom resources: definitions come, are changed and go; objects are pruned, defaulted, validated, converted, shown.

use std::sync::Arc;

use expect_test::{Expect, expect};
use http::Method;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use meta::{Value, json};
use store::Store;

use super::*;
use crate::Config;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

fn schema() -> Value {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 10},
            "color": {"type": "string", "enum": ["red", "green"], "default": "red"},
            "replicas": {"type": "integer", "default": 1, "x-kubernetes-validations": [{"rule": "self >= oldSelf", "message": "may not shrink"}]},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "port": {"type": "integer"}}}},
        }},
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}, "phase": {"type": "string"}}},
    }})
}

fn definition(plural: &str, kind: &str) -> Value {
    let mut definition = json!({"metadata": {"name": format!("{plural}.example.com")}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "shortNames": [plural[..2].to_string()], "categories": ["all"]}}});
    let version = json!({"name": "v1", "served": true, "storage": true,
        "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
        "selectableFields": [{"jsonPath": ".spec.color"}],
        "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
            {"name": "First", "type": "string", "jsonPath": ".spec.ports[0].name", "priority": 1}]});
    definition.set(&["spec", "versions"], vec![version]);
    definition.get_mut("spec").and_then(|s| s.get_mut("versions")).and_then(|v| v.as_array_mut()).expect("versions")[0]
        .set(&["schema", "openAPIV3Schema"], schema());
    definition
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

fn shown(answer: &Answer) -> String {
    format!(
        "{} {} {}",
        answer.code,
        answer.body["reason"].as_str().unwrap_or("-"),
        answer.body["message"].as_str().unwrap_or("-")
    )
}

#[tokio::test]
async fn objects_come_and_go() {
    let cluster = Cluster::start().await;
    let answer = cluster.call(Method::GET, WIDGETS, Value::Null).await;
    assert_eq!((answer.code, answer.text.as_str()), (404, "404 page not found\n"));
    cluster.define(definition("widgets", "Widget")).await;

    let mut sent = widget("a", json!({"size": 3, "extra": 1, "free": {"any": [1]}}));
    sent.set(&["status", "phase"], "Done");
    let answer = cluster.call(Method::POST, WIDGETS, sent.clone()).await;
    assert_eq!(answer.code, 201, "{}", answer.text);
    assert_eq!(answer.headers["warning"], "299 - \"unknown field \\\"spec.extra\\\"\"");
    let mut made = answer.body;
    assert_eq!(made["metadata"]["generation"], 1.into());
    assert_eq!(made["spec"].to_string(), r#"{"color":"red","free":{"any":[1]},"replicas":1,"size":3}"#);
    assert!(made.get("status").is_none());
    made.set(&["spec", "size"], 4);
    let updated = cluster.ok(Method::PUT, &format!("{WIDGETS}/a"), made.clone()).await;
    assert_eq!(updated["metadata"]["generation"], 2.into());
    let patched = cluster.ok(Method::PATCH, &format!("{WIDGETS}/a"), json!({"spec": {"color": "green"}})).await;
    assert_eq!(patched["spec"]["color"].as_str(), Some("green"));
    let status = cluster
        .ok(
            Method::PATCH,
            &format!("{WIDGETS}/a/status"),
            json!({"spec": {"size": 9}, "status": {"phase": "Up", "replicas": 2, "selector": "a=b"}}),
        )
        .await;
    assert_eq!(status["spec"]["size"], 4.into());
    assert_eq!(status["status"]["phase"].as_str(), Some("Up"));
    assert_eq!(status["metadata"]["generation"], 3.into());
    let scale = cluster.get(&format!("{WIDGETS}/a/scale")).await;
    assert_eq!(scale["status"].to_string(), r#"{"replicas":2,"selector":"a=b"}"#);
    cluster.ok(Method::PATCH, &format!("{WIDGETS}/a/scale"), json!({"spec": {"replicas": 5}})).await;
    assert_eq!(cluster.get(&format!("{WIDGETS}/a")).await["spec"]["replicas"], 5.into());

    cluster.ok(Method::POST, WIDGETS, widget("b", json!({"size": 1, "ports": [{"name": "p"}]}))).await;
    let red = cluster.get(&format!("{WIDGETS}?fieldSelector=spec.color%3Dred")).await;
    assert_eq!(red.array_at(&["items"]).len(), 1);
    let answer = cluster.call(Method::GET, &format!("{WIDGETS}?fieldSelector=spec.size%3D1"), Value::Null).await;
    assert_eq!(shown(&answer), "400 BadRequest field label not supported: spec.size");
    let table = cluster.accepting(WIDGETS, "application/json;as=Table;g=meta.k8s.io;v=v1").await.body;
    let names: Vec<&str> = table.array_at(&["columnDefinitions"]).iter().filter_map(|c| c["name"].as_str()).collect();
    assert_eq!(names, ["Name", "Size", "First"]);
    let cells: Vec<String> = table.array_at(&["rows"]).iter().map(|r| r["cells"].to_string()).collect();
    assert_eq!(cells, [r#"["a",4,null]"#, r#"["b",1,"p"]"#]);

    let mut lines =
        Lines::new(cluster.send(cluster.request(Method::GET, &format!("{WIDGETS}?watch=true"), "", "")).await);
    assert!(lines.shown().await.starts_with("ADDED a@"));
    assert!(lines.shown().await.starts_with("ADDED b@"));
    let answer = cluster.call(Method::DELETE, &format!("{DEFINITIONS}/widgets.example.com"), Value::Null).await;
    assert_eq!(answer.code, 200, "{}", answer.text);
    assert_eq!(condition(&answer.body, "Terminating"), "True");
    cluster.until("widgets.example.com", |d| d.is_none()).await;
    let answer = cluster.call(Method::GET, WIDGETS, Value::Null).await;
    assert_eq!(answer.code, 404);
    let start = Bytes::from_static(b"/registry/example.com/");
    let left = store::RangeRequest { end: store::prefix_end(&start), start, ..Default::default() };
    assert_eq!(cluster.store.range(left).await.expect("a range").kvs.len(), 0);
}

#[tokio::test]
async fn refusals_in_upstreams_words() {
    let cluster = Cluster::start().await;
    cluster.define(definition("widgets", "Widget")).await;
    let hold = async |body: Value, query: &str, want: Expect| {
        want.assert_eq(&shown(&cluster.call(Method::POST, &format!("{WIDGETS}{query}"), body).await));
    };
    hold(
        widget("a", json!({"size": "x", "color": "blue", "ports": [{"name": "a"}, {"name": "a"}, {}]})),
        "",
        expect![[r#"422 Invalid Widget.example.com "a" is invalid: [spec.color: Unsupported value: "blue": supported values: "red", "green", spec.ports[2].name: Required value, spec.size: Invalid value: "string": spec.size in body must be of type integer: "string", spec.ports[1]: Duplicate value: {"name":"a"}, <nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation]"#]],
    )
    .await;
    hold(
        widget("a", json!({"size": 1, "extra": 2})),
        "?fieldValidation=Strict",
        expect![[r#"400 BadRequest Widget in version "v1" cannot be handled as a Widget: strict decoding error: unknown field "spec.extra""#]],
    )
    .await;
    hold(
        json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a", "labels": {"a": 1}}, "spec": {"size": 1}}),
        "",
        expect![[r#"400 BadRequest Widget in version "v1" cannot be handled as a Widget: json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string"#]],
    )
    .await;
    cluster.ok(Method::POST, WIDGETS, widget("a", json!({"size": 1, "replicas": 2}))).await;
    let answer = cluster.call(Method::PATCH, &format!("{WIDGETS}/a"), json!({"spec": {"replicas": 1}})).await;
    expect![[r#"422 Invalid Widget.example.com "a" is invalid: spec.replicas: Invalid value: 1: may not shrink"#]]
        .assert_eq(&shown(&answer));
    let answer =
        cluster.raw(Method::PATCH, &format!("{WIDGETS}/a"), "application/strategic-merge-patch+json", "{}").await;
    expect!["415 UnsupportedMediaType the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"].assert_eq(&shown(&answer));

    let mut bad = definition("things", "Thing");
    bad.set(
        &["spec", "versions"],
        vec![json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
        {"type": "object", "properties": {"spec": {"properties": {"a": {"type": "integer", "default": "x"}}}}}}})],
    );
    let answer = cluster.call(Method::POST, DEFINITIONS, bad).await;
    expect![[r#"422 Invalid CustomResourceDefinition.apiextensions.k8s.io "things.example.com" is invalid: spec.validation.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields"#]].assert_eq(&shown(&answer));

    cluster.ok(Method::POST, DEFINITIONS, definition("wieners", "Widget")).await;
    cluster.until("wieners.example.com", |d| d.is_some_and(|d| condition(d, "NamesAccepted") == "False")).await;
    let conflict = cluster.get(&format!("{DEFINITIONS}/wieners.example.com")).await;
    assert_eq!(condition(&conflict, "Established"), "False");
    assert_eq!(conflict["status"]["acceptedNames"]["plural"].as_str(), Some("wieners"));
}

#[tokio::test]
async fn what_is_applied_is_owned() {
    let cluster = Cluster::start().await;
    cluster.define(definition("widgets", "Widget")).await;
    let apply = async |manager: &str, spec: Value| {
        let path = format!("{WIDGETS}/a?fieldManager={manager}");
        cluster.raw(Method::PATCH, &path, "application/apply-patch+yaml", widget("a", spec).to_vec()).await
    };
    let first = apply("one", json!({"size": 1, "ports": [{"name": "x", "port": 1}]})).await;
    assert_eq!(first.code, 201, "{}", first.text);
    let second = apply("two", json!({"size": 1, "ports": [{"name": "y", "port": 2}]})).await;
    assert_eq!(second.body["spec"]["ports"].to_string(), r#"[{"name":"x","port":1},{"name":"y","port":2}]"#);
    let third = apply("two", json!({"size": 2})).await;
    expect![[r#"409 Conflict Apply failed with 1 conflict: conflict with "one": .spec.size"#]]
        .assert_eq(&shown(&third));
    let owned: Vec<String> =
        second.body.array_at(&["metadata", "managedFields"]).iter().map(|m| m["fieldsV1"].to_string()).collect();
    assert_eq!(
        owned[0],
        r#"{"f:spec":{"f:ports":{"k:{\"name\":\"x\"}":{".":{},"f:name":{},"f:port":{}}},"f:size":{}}}"#
    );
    let unknown = apply("one", json!({"size": 1, "extra": 1})).await;
    expect![[r#"500 - failed to create typed patch object (default/a; example.com/v1, Kind=Widget): .spec.extra: field not declared in schema"#]]
        .assert_eq(&shown(&unknown));
}

#[tokio::test]
async fn documents_name_custom_resources() {
    let cluster = Cluster::start().await;
    cluster.define(definition("widgets", "Widget")).await;
    let list = cluster.get("/apis/example.com/v1").await;
    let names: Vec<&str> = list.array_at(&["resources"]).iter().filter_map(|r| r["name"].as_str()).collect();
    assert_eq!(names, ["widgets", "widgets/scale", "widgets/status"]);
    assert_eq!(list["resources"][0]["shortNames"].to_string(), r#"["wi"]"#);
    let groups =
        cluster.accepting("/apis", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList").await;
    assert!(groups.text.contains(r#""name":"example.com""#));
    let index = cluster.get("/openapi/v3").await;
    assert!(index["paths"].get("apis/example.com/v1").is_some());
    let document = cluster.get("/openapi/v3/apis/example.com/v1").await;
    let kind = &document["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!(kind["properties"]["spec"]["properties"]["size"]["maximum"], 10.into());
    assert!(document["components"]["schemas"].get("com.example.v1.WidgetList").is_some());
    let path = &document["paths"]["/apis/example.com/v1/namespaces/{namespace}/widgets/{name}"]["patch"];
    assert_eq!(path["requestBody"]["content"].as_object().expect("types").len(), 3);
    assert!(document["components"]["schemas"].get("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").is_some());
    let v2 = cluster.get("/openapi/v2").await;
    assert_eq!(
        v2["definitions"]["com.example.v1.Widget"]["x-kubernetes-group-version-kind"][0]["kind"].as_str(),
        Some("Widget")
    );
}

/// A definition with versions v1 (stored) and v2, whose field is called otherwise.
fn two_versions(conversion: Value) -> Value {
    let mut definition = definition("widgets", "Widget");
    let version = |name: &str, storage: bool, field: &str| {
        let mut version = json!({"name": name, "served": true, "storage": storage});
        version
            .set(&["schema", "openAPIV3Schema"], json!({"type": "object", "properties": {field: {"type": "string"}}}));
        version
    };
    definition.set(&["spec", "versions"], vec![version("v1", true, "old"), version("v2", false, "new")]);
    definition.set(&["spec", "conversion"], conversion);
    definition
}

#[tokio::test]
async fn versions_without_conversion_differ_by_name() {
    let cluster = Cluster::start().await;
    let mut definition = two_versions(json!({"strategy": "None"}));
    definition.get_mut("spec").and_then(|s| s.get_mut("versions")).and_then(|v| v.as_array_mut()).expect("versions")[1]
        .set(&["schema", "openAPIV3Schema", "properties", "old"], json!({"type": "string", "default": "d"}));
    cluster.define(definition).await;
    let v2 = "/apis/example.com/v2/namespaces/default/widgets";
    cluster.ok(Method::POST, v2, json!({"metadata": {"name": "a"}, "old": "x", "new": "y"})).await;
    let old = cluster.get(&format!("{WIDGETS}/a")).await;
    assert_eq!(
        (old["apiVersion"].as_str(), old["old"].as_str(), old.get("new")),
        (Some("example.com/v1"), Some("x"), None)
    );
    cluster.ok(Method::POST, WIDGETS, json!({"metadata": {"name": "b"}})).await;
    let list = cluster.get(v2).await;
    let items: Vec<String> =
        list.array_at(&["items"]).iter().map(|i| format!("{} {}", i["apiVersion"], i["old"])).collect();
    assert_eq!(items, [r#""example.com/v2" "x""#, r#""example.com/v2" "d""#]);
}

/// A conversion webhook that renames `old` to `new` and back, or says no to objects named so.
async fn converter() -> (String, String) {
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
            let tls = tls.clone();
            tokio::spawn(async move {
                let Ok(stream) = tls.accept(tcp).await else { return };
                let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                    let body = request.into_body().collect().await.expect("a body").to_bytes();
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

#[tokio::test]
async fn a_webhook_converts() {
    let cluster = Cluster::start().await;
    let (url, bundle) = converter().await;
    let mut conversion = json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"]}});
    conversion.set(&["webhook", "clientConfig"], json!({"url": url, "caBundle": bundle}));
    cluster.define(two_versions(conversion)).await;
    let v2 = "/apis/example.com/v2/namespaces/default/widgets";
    let made = cluster.ok(Method::POST, v2, json!({"metadata": {"name": "a"}, "new": "x"})).await;
    assert_eq!(made["new"].as_str(), Some("x"));
    let old = cluster.get(&format!("{WIDGETS}/a")).await;
    assert_eq!((old["old"].as_str(), old.get("new")), (Some("x"), None));
    let patched = cluster.ok(Method::PATCH, &format!("{v2}/a"), json!({"new": "y"})).await;
    assert_eq!(patched["new"].as_str(), Some("y"));
    let mut lines = Lines::new(cluster.send(cluster.request(Method::GET, &format!("{v2}?watch=true"), "", "")).await);
    assert_eq!(lines.next().await.expect("an event")["object"]["new"].as_str(), Some("y"));
    cluster.ok(Method::POST, WIDGETS, json!({"metadata": {"name": "b"}, "old": "z"})).await;
    assert_eq!(lines.next().await.expect("an event")["object"]["new"].as_str(), Some("z"));
    let answer = cluster.call(Method::POST, v2, json!({"metadata": {"name": "no"}, "new": "x"})).await;
    expect!["500 - conversion webhook for example.com/v2, Kind=Widget failed: not this one"].assert_eq(&shown(&answer));
}

#[tokio::test]
async fn servers_on_one_store_agree() {
    let cluster = Cluster::start().await;
    let server = Server::start(Config::new(cluster.store.clone() as Arc<dyn Store>)).await.expect("a second server");
    let local = server.local(User::new("test", ["system:masters"]));
    let second = Cluster { server, store: cluster.store.clone(), local };
    cluster.define(definition("widgets", "Widget")).await;
    second.ok(Method::POST, WIDGETS, widget("a", json!({"size": 1}))).await;
    assert_eq!(cluster.get(&format!("{WIDGETS}/a")).await["spec"]["color"].as_str(), Some("red"));
    let name = "widgets.example.com";
    cluster.ok(Method::DELETE, &format!("{DEFINITIONS}/{name}"), Value::Null).await;
    second.until(name, |d| d.is_none()).await;
    assert_eq!(second.call(Method::GET, WIDGETS, Value::Null).await.code, 404);
}

#[tokio::test]
async fn a_changed_schema_shows_in_what_is_stored() {
    let cluster = Cluster::start().await;
    cluster.define(definition("widgets", "Widget")).await;
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
