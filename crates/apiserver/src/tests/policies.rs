//! Admission policies: what they refuse, in which words, with which parameters, and which policies are refused themselves.

use http::Method;
use meta::{Value, json};

use super::Cluster;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn at(plural: &str) -> String {
    format!("/apis/admissionregistration.k8s.io/v1/{plural}")
}

/// A policy `p` about config maps, and its binding `b`.
pub async fn bind(cluster: &Cluster, spec: Value, binding: Value) {
    let mut policy = json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": {"resourceRules": [
        {"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]}}});
    for (member, value) in spec.as_object().expect("an object").iter() {
        policy.set(&["spec", member], value);
    }
    let mut bound = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    for (member, value) in binding.as_object().expect("an object").iter() {
        bound.set(&["spec", member], value);
    }
    for (plural, body) in [("validatingadmissionpolicies", policy), ("validatingadmissionpolicybindings", bound)] {
        let answer = cluster.call(Method::POST, &at(plural), body).await;
        assert_eq!((answer.code, answer.headers.get("warning")), (201, None), "{}", answer.text);
        // A list is answered once the caches show what was written before.
        cluster.get(&at(plural)).await;
    }
}

fn config_map(name: &str, value: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"a": value}}, "data": {"v": value}})
}

async fn answers(cluster: &Cluster, name: &str, value: &str) -> String {
    let answer = cluster.call(Method::POST, CONFIG_MAPS, config_map(name, value)).await;
    let text = |member: &str| answer.body.str_at(&[member]).unwrap_or_default().to_string();
    format!("{} {} {}", answer.code, text("reason"), text("message"))
}

const DENIED: &str = "ValidatingAdmissionPolicy 'p' with binding 'b' denied request:";

#[tokio::test]
async fn violations_are_refused() {
    let cluster = Cluster::start().await;
    let spec = json!({
        "matchConditions": [{"name": "named", "expression": "request.name != 'free'"}],
        "variables": [{"name": "value", "expression": "object.data.v"}, {"name": "long", "expression": "variables.value.size() > 3"}],
        "validations": [
            {"expression": "!variables.long"},
            {"expression": "variables.value != 'b'", "message": "no b", "reason": "Forbidden"},
            {"expression": "variables.value != 'c'", "messageExpression": "'no ' + variables.value + ' in ' + namespaceObject.metadata.name"},
            {"expression": "variables.value != 'd' || object.none == 1"},
            {"expression": "authorizer.group('').resource('pods').namespace('default').check('get').allowed()"}]});
    bind(&cluster, spec, json!({})).await;
    for (name, value, want) in [
        ("fine", "a", "201  ".to_string()),
        ("free", "long", "201  ".to_string()),
        (
            "m",
            "long",
            format!("422 Invalid configmaps \"m\" is forbidden: {DENIED} failed expression: !variables.long"),
        ),
        ("m", "b", format!("403 Forbidden configmaps \"m\" is forbidden: {DENIED} no b")),
        ("m", "c", format!("422 Invalid configmaps \"m\" is forbidden: {DENIED} no c in default")),
        (
            "m",
            "d",
            format!(
                "422 Invalid configmaps \"m\" is forbidden: {DENIED} expression 'variables.value != 'd' || object.none == 1' \
                 resulted in error: no such key: none"
            ),
        ),
    ] {
        assert_eq!(answers(&cluster, name, value).await, want, "{value}");
    }
    // A change counts like a creation; what is configured is seen in its newest version.
    let path = at("validatingadmissionpolicies/p");
    cluster.ok(Method::PATCH, &path, json!({"spec": {"failurePolicy": "Ignore", "matchConditions": null}})).await;
    cluster.get(&at("validatingadmissionpolicies")).await;
    assert_eq!(answers(&cluster, "ignored", "d").await, "201  ");
    let patch = json!({"data": {"v": "b"}});
    assert_eq!(cluster.call(Method::PATCH, &format!("{CONFIG_MAPS}/fine"), patch).await.code, 403);
    cluster.ok(Method::DELETE, &at("validatingadmissionpolicybindings/b"), Value::Null).await;
    cluster.get(&at("validatingadmissionpolicybindings")).await;
    assert_eq!(answers(&cluster, "m", "b").await, "201  ");
}

#[tokio::test]
async fn bindings_choose_parameters_and_actions() {
    let cluster = Cluster::start().await;
    for (name, value) in [("limit-1", "1"), ("limit-2", "2")] {
        cluster.ok(Method::POST, CONFIG_MAPS, config_map(name, value)).await;
    }
    let spec = json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "validations": [{"expression": "object.data.v != params.data.v", "messageExpression": "'not ' + params.data.v"}]});
    let reference = json!({"selector": {"matchLabels": {}}, "parameterNotFoundAction": "Deny"});
    bind(&cluster, spec, json!({"paramRef": reference})).await;
    assert_eq!(answers(&cluster, "m", "2").await, format!("422 Invalid configmaps \"m\" is forbidden: {DENIED} not 2"));
    let path = at("validatingadmissionpolicybindings/b");
    let reference = json!({"name": "none", "selector": null, "parameterNotFoundAction": "Deny"});
    cluster.ok(Method::PATCH, &path, json!({"spec": {"paramRef": reference}})).await;
    cluster.get(&at("validatingadmissionpolicybindings")).await;
    assert_eq!(
        answers(&cluster, "m", "9").await,
        format!(
            "422 Invalid configmaps \"m\" is forbidden: {DENIED} failed to configure binding: no params found for policy \
             binding with `Deny` parameterNotFoundAction"
        )
    );
    let spec = json!({"paramRef": {"name": "limit-1"}, "validationActions": ["Warn", "Audit"]});
    cluster.ok(Method::PATCH, &path, json!({"spec": spec})).await;
    cluster.get(&at("validatingadmissionpolicybindings")).await;
    let answer = cluster.call(Method::POST, CONFIG_MAPS, config_map("m", "1")).await;
    assert_eq!(
        (answer.code, answer.headers["warning"].to_str().expect("text")),
        (201, "299 - \"Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': not 1\"")
    );
}

#[tokio::test]
async fn faulty_policies_are_refused() {
    let cluster = Cluster::start().await;
    let rules =
        json!({"resourceRules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]});
    let validation = |expression: &str| json!([{"expression": expression}]);
    for (validations, want) in [
        (validation("object.x"), "spec.validations[0].expression: Invalid value: \"object.x\": must evaluate to bool"),
        (
            validation("params.x == 1"),
            "spec.validations[0].expression: Invalid value: \"params.x == 1\": compilation failed: ERROR: <input>:1:1: \
             undeclared reference to 'params' (in container '')\n | params.x == 1\n | ^",
        ),
        (
            json!([{"expression": "true", "messageExpression": "1"}]),
            "spec.validations[0].messageExpression: Invalid value: \"1\": must evaluate to string",
        ),
    ] {
        let mut policy = json!({"metadata": {"name": "p"}, "spec": {}});
        policy.set(&["spec", "matchConstraints"], &rules);
        policy.set(&["spec", "validations"], validations);
        let answer = cluster.call(Method::POST, &at("validatingadmissionpolicies"), policy).await;
        let message = answer.body.str_at(&["message"]).unwrap_or_default();
        let kind = "ValidatingAdmissionPolicy.admissionregistration.k8s.io";
        assert_eq!(message, format!("{kind} \"p\" is invalid: {want}"));
    }
}

#[tokio::test]
async fn mutations_are_applied_in_their_order() {
    let cluster = Cluster::start().await;
    let policy = json!({"metadata": {"name": "p"}, "spec": {"reinvocationPolicy": "Never",
        "variables": [{"name": "value", "expression": "object.data.v + '!'"}],
        "matchConstraints": {"resourceRules": [
            {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]},
        "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
                "Object{metadata: Object.metadata{labels: {'b': 'c'}}, data: {'w': variables.value}}"}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression":
                "[JSONPatch{op: 'add', path: '/data/x', value: object.data.w}]"}}]}});
    let binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p"}});
    for (plural, body) in [("mutatingadmissionpolicies", policy), ("mutatingadmissionpolicybindings", binding)] {
        let answer = cluster.call(Method::POST, &at(plural), body).await;
        assert_eq!((answer.code, answer.headers.get("warning")), (201, None), "{}", answer.text);
        cluster.get(&at(plural)).await;
    }
    let made = cluster.ok(Method::POST, CONFIG_MAPS, config_map("m", "a")).await;
    assert_eq!(made["data"], json!({"v": "a", "w": "a!", "x": "a!"}));
    assert_eq!(made["metadata"]["labels"], json!({"a": "a", "b": "c"}));
    assert_eq!(made.array_at(&["metadata", "managedFields"]).len(), 1);
    let refused = cluster.call(Method::POST, CONFIG_MAPS, json!({"metadata": {"name": "n"}})).await;
    assert_eq!(
        refused.body.str_at(&["message"]),
        Some(
            "configmaps \"n\" is forbidden: admission request denied by policy: policy 'p' with binding 'b' denied request: \
             expression 'Object{metadata: Object.metadata{labels: {'b': 'c'}}, data: {'w': variables.value}}' resulted in \
             error: no such key: data"
        )
    );
}
