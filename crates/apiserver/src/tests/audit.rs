//! The audit log, from requests to lines.

use std::path::Path;
use std::sync::Arc;

use http::Method;
use meta::{Value, json};

use super::{Cluster, Lines};
use crate::audit::{Auditor, Log, Policy, Settings};

const POLICY: &str = "{apiVersion: audit.k8s.io/v1, kind: Policy, omitManagedFields: true, rules: [
    {level: RequestResponse, resources: [{resources: [configmaps]}], verbs: [create, patch], omitStages: [RequestReceived]},
    {level: Metadata, resources: [{resources: [configmaps]}]},
    {level: Metadata, nonResourceURLs: [/version]}]}";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn cluster(log: &Path) -> Cluster {
    let settings = Settings { path: log.into(), max_size_mib: 100, max_backups: 0, max_age_days: 0 };
    let auditor = Auditor::new(Policy::parse(POLICY).expect("a policy"), Log::open(settings).expect("opened"));
    Cluster::start_with(|config| config.audit = Some(Arc::new(auditor))).await
}

/// A policy `p` about config maps, and its binding `b`.
async fn bind(cluster: &Cluster, spec: Value, binding: Value) {
    let mut policy = json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": {"resourceRules": [
        {"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]}}});
    for (member, value) in spec.as_object().expect("an object").iter() {
        policy.set(&["spec", member], value);
    }
    let mut bound = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    for (member, value) in binding.as_object().expect("an object").iter() {
        bound.set(&["spec", member], value);
    }
    let at = |plural: &str| format!("/apis/admissionregistration.k8s.io/v1/{plural}");
    for (plural, body) in [("validatingadmissionpolicies", policy), ("validatingadmissionpolicybindings", bound)] {
        let answer = cluster.call(Method::POST, &at(plural), body).await;
        assert_eq!((answer.code, answer.headers.get("warning")), (201, None), "{}", answer.text);
        // A list is answered once the caches show what was written before.
        cluster.get(&at(plural)).await;
    }
}

/// The events since `from`, without what differs from run to run.
fn events(log: &Path, from: &mut usize) -> Vec<Value> {
    let text = std::fs::read_to_string(log).expect("the log");
    let new = text.lines().skip(*from).map(|line| meta::parse(line.as_bytes()).expect("JSON")).collect::<Vec<_>>();
    *from += new.len();
    let trim = |mut event: Value| {
        for member in ["auditID", "requestReceivedTimestamp", "stageTimestamp"] {
            assert!(event.remove(&[member]).is_some(), "{member} in {event}");
        }
        for member in ["user", "sourceIPs", "kind", "apiVersion"] {
            event.remove(&[member]);
        }
        event
    };
    new.into_iter().map(trim).collect()
}

#[tokio::test]
async fn requests_are_written_down() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("audit.log");
    let cluster = cluster(&log).await;
    // What only audits refuses nothing.
    let spec = json!({"validations": [{"expression": "object.data.v != 'odd'", "message": "odd"}],
        "auditAnnotations": [{"key": "v", "valueExpression": "'is ' + object.data.v"}]});
    bind(&cluster, spec, json!({"validationActions": ["Audit"]})).await;
    let mut from = events(&log, &mut 0).len();

    let object = json!({"metadata": {"name": "a"}, "data": {"v": "odd"}});
    let answer = cluster.call(Method::POST, CONFIG_MAPS, object).await;
    assert_eq!(answer.code, 201, "{}", answer.text);
    let id = answer.headers.get("audit-id").and_then(|v| v.to_str().ok()).expect("an audit ID").to_string();
    assert!(std::fs::read_to_string(&log).expect("the log").contains(&format!("\"auditID\":\"{id}\"")));
    let all = events(&log, &mut from);
    let [event] = &all[..] else { panic!("{all:?}") };
    let mut shown = answer.body.clone();
    shown.remove(&["metadata", "managedFields"]);
    assert_eq!(event["responseObject"], shown);
    assert_eq!(event.str_at(&["requestObject", "data", "v"]), Some("odd"));
    let reference = json!({"resource": "configmaps", "apiVersion": "v1", "namespace": "default", "name": "a"});
    assert_eq!(event["objectRef"], reference);
    let note = r#"[{"binding":"b","expressionIndex":0,"message":"odd","policy":"p","validationActions":["Audit"]}]"#;
    let want = json!({"p/v": "is odd", "validation.policy.admission.k8s.io/validation_failure": note});
    assert_eq!(event["annotations"], want);

    cluster.call(Method::GET, &format!("{CONFIG_MAPS}/none"), Value::Null).await;
    cluster.call(Method::GET, "/version", Value::Null).await;
    cluster.call(Method::GET, "/healthz", Value::Null).await;
    let summary = |event: &Value| {
        let text = |path: &[&str]| event.str_at(path).unwrap_or("-").to_string();
        let code = event.int_at(&["responseStatus", "code"]).map_or("-".into(), |code| code.to_string());
        let (stage, verb, uri) = (text(&["stage"]), text(&["verb"]), text(&["requestURI"]));
        format!("{stage} {verb} {uri} {code} {}", text(&["responseStatus", "message"]))
    };
    let said: Vec<String> = events(&log, &mut from).iter().map(summary).collect();
    let get = format!("get {CONFIG_MAPS}/none");
    assert_eq!(
        said,
        [
            format!("RequestReceived {get} - -"),
            format!("ResponseComplete {get} 404 configmaps \"none\" not found"),
            "RequestReceived get /version - -".into(),
            "ResponseComplete get /version 200 -".into(),
        ]
    );

    let watch = format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1&resourceVersion=1");
    let mut lines = Lines::new(cluster.send(cluster.request(Method::GET, &watch, "", "")).await);
    while lines.next().await.is_some() {}
    drop(lines);
    let stages: Vec<String> = events(&log, &mut from).iter().map(summary).collect();
    let want = ["RequestReceived", "ResponseStarted", "ResponseComplete"].iter().zip(["-", "200", "200"]);
    assert_eq!(stages, want.map(|(stage, code)| format!("{stage} watch {watch} {code} -")).collect::<Vec<_>>());
}
