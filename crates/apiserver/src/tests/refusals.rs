//! Bad requests and their answers: code, reason and message as upstream gives them.

use http::Method;
use meta::json;

use super::{Cluster, pod};

/// method, path, content type, body, what is answered
type Row<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str);

const ROWS: &[Row<'static>] = &[
    ("GET", "/api/v1/namespaces/default/pods/none", "", "", r#"404 NotFound pods "none" not found"#),
    ("GET", "/api/v1/none", "", "", "404 NotFound the server could not find the requested resource"),
    (
        "GET",
        "/api/v1/namespaces/default/pods/p/none",
        "",
        "",
        "404 NotFound the server could not find the requested resource",
    ),
    ("GET", "/apis/none/v1/none", "", "", "404  404 page not found\n"),
    ("GET", "/none", "", "", "404  404 page not found\n"),
    (
        "POST",
        "/api/v1/namespaces/default/pods/p",
        "application/json",
        "{}",
        "405 MethodNotAllowed the server does not allow this method on the requested resource",
    ),
    (
        "PUT",
        "/api/v1/namespaces/default/pods",
        "application/json",
        "{}",
        "405 MethodNotAllowed the server does not allow this method on the requested resource",
    ),
    (
        "DELETE",
        "/api/v1/namespaces",
        "",
        "",
        "405 MethodNotAllowed the server does not allow this method on the requested resource",
    ),
    (
        "POST",
        "/api/v1/namespaces/default/configmaps",
        "application/json",
        "{",
        "400 BadRequest the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: *",
    ),
    (
        "POST",
        "/api/v1/namespaces/default/configmaps",
        "application/json",
        "[]",
        "400 BadRequest the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type struct *",
    ),
    (
        "POST",
        "/api/v1/namespaces/default/configmaps",
        "text/plain",
        "{}",
        "415 UnsupportedMediaType the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf",
    ),
    (
        "POST",
        "/api/v1/namespaces/default/configmaps",
        "application/json",
        r#"{"kind":"Secret","apiVersion":"v1"}"#,
        r#"400 BadRequest Secret in version "v1" cannot be handled as a ConfigMap: *"#,
    ),
    (
        "POST",
        "/api/v1/namespaces/default/configmaps",
        "application/json",
        r#"{"kind":"ConfigMap","apiVersion":"apps/v1"}"#,
        r#"400 BadRequest ConfigMap in version "v1" cannot be handled as a ConfigMap: no kind "ConfigMap" is registered for version "apps/v1" in scheme "pkg/api/legacyscheme/scheme.go:30""#,
    ),
    (
        "POST",
        "/api/v1/namespaces/default/configmaps",
        "application/json",
        r#"{"metadata":{"name":5}}"#,
        r#"400 BadRequest ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ObjectMeta.metadata.name of type string"#,
    ),
    (
        "POST",
        "/api/v1/namespaces/default/configmaps?fieldValidation=Strict",
        "application/json",
        r#"{"metadata":{"name":"a"},"dat":{}}"#,
        r#"400 BadRequest ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "dat""#,
    ),
    (
        "POST",
        "/api/v1/namespaces/default/configmaps?fieldValidation=x",
        "application/json",
        "{}",
        r#"422 Invalid CreateOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupported value: "x": supported values: "", "Ignore", "Strict", "Warn""#,
    ),
    (
        "POST",
        "/api/v1/namespaces/default/configmaps?dryRun=x",
        "application/json",
        "{}",
        r#"422 Invalid CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: "x": supported values: "All""#,
    ),
    (
        "POST",
        "/api/v1/namespaces/default/configmaps",
        "application/json",
        r#"{"metadata":{"name":"A"}}"#,
        r#"422 Invalid ConfigMap "A" is invalid: metadata.name: Invalid value: "A": a lowercase RFC 1123 subdomain *"#,
    ),
    (
        "POST",
        "/api/v1/namespaces/default/configmaps",
        "application/json",
        "{}",
        r#"422 Invalid ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required"#,
    ),
    (
        "POST",
        "/api/v1/namespaces/default/configmaps",
        "application/json",
        r#"{"metadata":{"name":"a","namespace":"b"}}"#,
        "400 BadRequest the namespace of the provided object does not match the namespace sent on the request",
    ),
    (
        "POST",
        "/api/v1/namespaces/none/configmaps",
        "application/json",
        r#"{"metadata":{"name":"a"}}"#,
        r#"404 NotFound namespaces "none" not found"#,
    ),
    (
        "POST",
        "/api/v1/namespaces/default/configmaps",
        "application/json",
        r#"{"metadata":{"name":"there"}}"#,
        r#"409 AlreadyExists configmaps "there" already exists"#,
    ),
    (
        "PUT",
        "/api/v1/namespaces/default/configmaps/there",
        "application/json",
        r#"{"metadata":{"name":"other"}}"#,
        "400 BadRequest the name of the object (other) does not match the name on the URL (there)",
    ),
    (
        "PUT",
        "/api/v1/namespaces/default/configmaps/there",
        "application/json",
        r#"{"metadata":{"name":"there","resourceVersion":"1"}}"#,
        r#"409 Conflict Operation cannot be fulfilled on configmaps "there": the object has been modified; please apply your changes to the latest version and try again"#,
    ),
    (
        "PUT",
        "/api/v1/namespaces/default/configmaps/there",
        "application/json",
        r#"{"metadata":{"name":"there","uid":"x"}}"#,
        r#"409 Conflict Operation cannot be fulfilled on configmaps "there": StorageError: invalid object, Code: 4, Key: /registry/configmaps/default/there, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: x, UID in object meta: *"#,
    ),
    (
        "PUT",
        "/api/v1/namespaces/default/configmaps/none",
        "application/json",
        r#"{"metadata":{"name":"none"}}"#,
        r#"404 NotFound configmaps "none" not found"#,
    ),
    (
        "PATCH",
        "/api/v1/namespaces/default/configmaps/there",
        "application/json",
        "{}",
        "415 UnsupportedMediaType the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml",
    ),
    (
        "PATCH",
        "/api/v1/namespaces/default/configmaps/there",
        "application/json-patch+json",
        r#"[{"op":"test","path":"/data/x","value":"1"}]"#,
        "422 Invalid the server rejected our request due to an error in our request",
    ),
    (
        "PATCH",
        "/api/v1/namespaces/default/configmaps/there",
        "application/merge-patch+json",
        r#"{"metadata":{"labels":{"a":"b c"}}}"#,
        r#"422 Invalid ConfigMap "there" is invalid: metadata.labels: Invalid value: "b c": a valid label *"#,
    ),
    (
        "PATCH",
        "/api/v1/namespaces/default/configmaps/there",
        "application/apply-patch+yaml",
        "apiVersion: v1\nkind: ConfigMap\n",
        r#"422 Invalid PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch"#,
    ),
    (
        "DELETE",
        "/api/v1/namespaces/default/configmaps/there",
        "application/json",
        r#"{"preconditions":{"uid":"x"}}"#,
        r#"409 Conflict Operation cannot be fulfilled on ConfigMap "there": the UID in the precondition (x) does not match the UID in record *"#,
    ),
    (
        "DELETE",
        "/api/v1/namespaces/default",
        "",
        "",
        r#"403 Forbidden namespaces "default" is forbidden: this namespace may not be deleted"#,
    ),
    ("GET", "/api/v1/pods?labelSelector=a%3D%3D%3Db", "", "", "400 BadRequest unable to parse requirement: *"),
    (
        "GET",
        "/api/v1/configmaps?fieldSelector=spec.x%3Db",
        "",
        "",
        r#"400 BadRequest "spec.x" is not a known field selector: only "metadata.name", "metadata.namespace""#,
    ),
    ("GET", "/api/v1/pods?limit=x", "", "", r#"400 BadRequest strconv.ParseInt: parsing "x": invalid syntax"#),
    ("GET", "/api/v1/pods?continue=x", "", "", "400 BadRequest invalid continue token: continue key is not valid: *"),
    (
        "GET",
        "/api/v1/pods?resourceVersion=1000000",
        "",
        "",
        "504 Timeout Too large resource version: 1000000, current: *",
    ),
    (
        "GET",
        "/api/v1/pods?resourceVersion=x",
        "",
        "",
        r#"422 Invalid ListOptions.meta.k8s.io "" is invalid: resourceVersion: *"#,
    ),
];

#[tokio::test]
async fn bad_requests_get_upstreams_answers() {
    let cluster = Cluster::start_with(|c| c.limits.fresh = std::time::Duration::from_millis(1)).await;
    cluster.config_map("there", "1").await;
    let mut wrong = Vec::new();
    for (method, path, content_type, body, want) in ROWS {
        let method: Method = method.parse().expect("method");
        let answer = cluster.raw(method.clone(), path, content_type, *body).await;
        let reason = answer.body.str_at(&["reason"]).unwrap_or_default();
        let message = answer.body.str_at(&["message"]).unwrap_or(&answer.text);
        let got = format!("{} {reason} {message}", answer.code);
        let matches = match want.strip_suffix('*') {
            Some(start) => got.starts_with(start),
            None => got == *want,
        };
        if !matches {
            wrong.push(format!("{method} {path} {body}\n  want {want}\n  got  {got}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn large_bodies_are_refused_and_the_server_goes_on() {
    let cluster = Cluster::start().await;
    let large = format!(r#"{{"metadata":{{"name":"a"}},"data":{{"a":"{}"}}}}"#, "x".repeat(4 << 20));
    let answer = cluster.raw(Method::POST, "/api/v1/namespaces/default/configmaps", "application/json", large).await;
    assert_eq!(answer.code, 413);
    assert_eq!(answer.body.str_at(&["reason"]), Some("RequestEntityTooLarge"));
    assert_eq!(answer.body.str_at(&["message"]), Some("Request entity too large: limit is 3145728"));
    cluster.config_map("a", "1").await;
}

#[tokio::test]
async fn unknown_fields_are_warned_of() {
    let cluster = Cluster::start().await;
    let body = r#"{"metadata":{"name":"a"},"dat":1,"data":{"x":"1","x":"2"}}"#;
    let answer = cluster.raw(Method::POST, "/api/v1/namespaces/default/configmaps", "application/json", body).await;
    assert_eq!(answer.code, 201);
    let warnings: Vec<_> = answer.headers.get_all("warning").iter().filter_map(|v| v.to_str().ok()).collect();
    assert_eq!(warnings, [r#"299 - "unknown field \"dat\"""#, r#"299 - "duplicate field \"data.x\"""#]);
    assert_eq!(answer.body["data"], json!({"x": "2"}));
}

#[tokio::test]
async fn strangers_see_health_only() {
    use crate::tests::collect;
    use tower::Service;
    let cluster = Cluster::start().await;
    for (path, token, code) in [
        ("/healthz", "", 200),
        ("/livez/ping", "", 200),
        ("/version", "", 200),
        ("/api/v1/pods", "", 401),
        ("/api", "", 401),
        ("/metrics", "", 401),
        ("/api/v1/pods", "Bearer x.y.z", 401),
        ("/healthz", "Basic eDp5", 401),
    ] {
        let mut request = cluster.request(Method::GET, path, "", "");
        if !token.is_empty() {
            request.headers_mut().insert("authorization", token.parse().expect("header"));
        }
        let response = cluster.server.local_anonymous().call(request).await.unwrap_or_else(|e| match e {});
        let answer = collect(response).await;
        assert_eq!(answer.code, code, "{path} {token}");
        if code == 401 {
            assert_eq!(answer.body.str_at(&["message"]), Some("Unauthorized"));
        }
    }
}

#[tokio::test]
async fn pods_need_an_account_and_a_known_priority() {
    let cluster = Cluster::start().await;
    let path = "/api/v1/namespaces/default/pods";
    let mut asks = pod("p");
    asks.set(&["spec", "priorityClassName"], "none");
    let answer = cluster.call(Method::POST, path, asks).await;
    assert_eq!(
        answer.body.str_at(&["message"]),
        Some(r#"pods "p" is forbidden: no PriorityClass with name none was found"#)
    );
    let mut critical = pod("p");
    critical.set(&["spec", "priorityClassName"], "system-node-critical");
    let made = cluster.ok(Method::POST, path, critical).await;
    assert_eq!(made.int_at(&["spec", "priority"]), Some(2_000_001_000));
    let mut other = pod("q");
    other.set(&["spec", "serviceAccountName"], "none");
    let answer = cluster.call(Method::POST, path, other).await;
    assert_eq!(
        answer.body.str_at(&["message"]),
        Some(
            r#"pods "q" is forbidden: error looking up service account default/none: serviceaccount "none" not found"#
        )
    );
}

#[tokio::test]
async fn openapi_by_media_type() {
    let cluster = Cluster::start().await;
    for (path, accept, code) in [
        ("/openapi/v2", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf", 200),
        ("/openapi/v2", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf, application/json", 200),
        ("/openapi/v3/api/v1", "application/com.github.proto-openapi.spec.v3.v1.0+protobuf", 406),
        ("/openapi/v3", "*/*", 200),
    ] {
        assert_eq!(cluster.accepting(path, accept).await.code, code, "{path} {accept}");
    }
}
