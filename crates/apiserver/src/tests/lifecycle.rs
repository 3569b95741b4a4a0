//! What becomes of objects: creation, changes, subresources, deletion.

use http::Method;
use meta::{Value, json};

use super::{Cluster, pod, version};

#[tokio::test]
async fn names_are_made_up_and_changes_that_change_nothing_are_not_written() {
    let cluster = Cluster::start().await;
    let path = "/api/v1/namespaces/default/configmaps";
    let made = cluster.ok(Method::POST, path, json!({"metadata": {"generateName": "a-"}, "data": {"k": "v"}})).await;
    let name = made.str_at(&["metadata", "name"]).expect("a name");
    assert!(name.starts_with("a-") && name.len() == 7, "{name}");
    let again = cluster.ok(Method::PUT, &format!("{path}/{name}"), made.clone()).await;
    assert_eq!(version(&again), version(&made));
    let changed = cluster.ok(Method::PATCH, &format!("{path}/{name}"), json!({"data": {"k": "w"}})).await;
    assert_ne!(version(&changed), version(&made));
    assert_eq!(changed["metadata"]["uid"], made["metadata"]["uid"]);
}

#[tokio::test]
async fn dry_runs_leave_nothing() {
    let cluster = Cluster::start().await;
    let path = "/api/v1/namespaces/default/configmaps";
    let body = json!({"metadata": {"name": "a"}});
    let made = cluster.ok(Method::POST, &format!("{path}?dryRun=All"), body.clone()).await;
    assert!(made["metadata"]["resourceVersion"].is_null());
    assert_eq!(cluster.call(Method::GET, &format!("{path}/a"), Value::Null).await.code, 404);
    let made = cluster.ok(Method::POST, path, body).await;
    let patch = json!({"data": {"k": "v"}});
    let changed = cluster.ok(Method::PATCH, &format!("{path}/a?dryRun=All"), patch).await;
    assert_eq!(changed.str_at(&["data", "k"]), Some("v"));
    cluster.ok(Method::DELETE, &format!("{path}/a?dryRun=All"), Value::Null).await;
    assert_eq!(cluster.get(&format!("{path}/a")).await, made);
}

#[tokio::test]
async fn patches_of_all_kinds() {
    let cluster = Cluster::start().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
        "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    cluster.ok(Method::POST, path, deployment).await;
    let path = format!("{path}/d");
    for (kind, body, at, want) in [
        ("json-patch+json", r#"[{"op":"replace","path":"/spec/replicas","value":3}]"#, "replicas", "3"),
        ("merge-patch+json", r#"{"spec":{"replicas":4}}"#, "replicas", "4"),
        (
            "strategic-merge-patch+json",
            r#"{"spec":{"template":{"spec":{"containers":[{"name":"d","image":"j"}]}}}}"#,
            "template",
            r#""name":"d""#,
        ),
    ] {
        let answer = cluster.raw(Method::PATCH, &path, &format!("application/{kind}"), body).await;
        assert_eq!(answer.code, 200, "{}", answer.text);
        assert!(answer.body["spec"][at].to_string().contains(want), "{}", answer.text);
    }
    let live = cluster.get(&path).await;
    let images: Vec<_> = live
        .array_at(&["spec", "template", "spec", "containers"])
        .iter()
        .filter_map(|c| c.str_at(&["image"]))
        .collect();
    assert_eq!(images, ["j", "i"]);
}

#[tokio::test]
async fn apply_creates_owns_and_conflicts() {
    let cluster = Cluster::start().await;
    let path = "/api/v1/namespaces/default/configmaps/a";
    let apply = async |manager: &str, data: &str, more: &str| {
        let body = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata: {data}\n");
        let path = format!("{path}?fieldManager={manager}{more}");
        cluster.raw(Method::PATCH, &path, "application/apply-patch+yaml", body).await
    };
    assert_eq!(apply("one", "{k: v}", "").await.code, 201);
    let same = apply("one", "{k: v}", "").await;
    assert_eq!(same.code, 200);
    let refused = apply("two", "{k: w}", "").await;
    assert_eq!(refused.code, 409);
    assert_eq!(
        refused.body.str_at(&["message"]),
        Some(r#"Apply failed with 1 conflict: conflict with "one": .data.k"#)
    );
    assert_eq!(apply("two", "{k: w}", "&force=true").await.code, 200);
    let dropped = apply("two", "{l: x}", "").await;
    assert_eq!(dropped.body["data"], json!({"l": "x"}));
}

#[tokio::test]
async fn finalizers_hold_an_object() {
    let cluster = Cluster::start().await;
    let path = "/api/v1/namespaces/default/configmaps";
    cluster.ok(Method::POST, path, json!({"metadata": {"name": "a", "finalizers": ["a.b/c"]}})).await;
    let marked = cluster.ok(Method::DELETE, &format!("{path}/a"), Value::Null).await;
    assert!(marked.str_at(&["metadata", "deletionTimestamp"]).is_some());
    let more = json!({"metadata": {"finalizers": ["a.b/c", "a.b/d"]}});
    let refused = cluster.call(Method::PATCH, &format!("{path}/a"), more).await;
    assert_eq!(refused.code, 422, "{}", refused.text);
    cluster.ok(Method::PATCH, &format!("{path}/a"), json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(cluster.call(Method::GET, &format!("{path}/a"), Value::Null).await.code, 404);
}

#[tokio::test]
async fn a_running_pod_is_deleted_gracefully() {
    let cluster = Cluster::start().await;
    cluster.pod("p").await;
    let path = "/api/v1/namespaces/default/pods/p";
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    cluster.ok(Method::POST, &format!("{path}/binding"), binding.clone()).await;
    let again = cluster.call(Method::POST, &format!("{path}/binding"), binding).await;
    assert_eq!((again.code, again.body.str_at(&["reason"])), (409, Some("Conflict")));
    let going = cluster.ok(Method::DELETE, path, Value::Null).await;
    assert_eq!(going.int_at(&["metadata", "deletionGracePeriodSeconds"]), Some(30));
    let status = json!({"status": {"phase": "Running"}});
    let running = cluster.ok(Method::PATCH, &format!("{path}/status"), status).await;
    assert_eq!(running.str_at(&["status", "phase"]), Some("Running"));
    cluster.ok(Method::DELETE, path, json!({"gracePeriodSeconds": 0})).await;
    assert_eq!(cluster.call(Method::GET, path, Value::Null).await.code, 404);
}

#[tokio::test]
async fn an_unscheduled_pod_goes_at_once() {
    let cluster = Cluster::start().await;
    cluster.pod("p").await;
    let gone = cluster.ok(Method::DELETE, "/api/v1/namespaces/default/pods/p", Value::Null).await;
    assert_eq!(gone.str_at(&["kind"]), Some("Pod"));
    assert_eq!(cluster.call(Method::GET, "/api/v1/namespaces/default/pods/p", Value::Null).await.code, 404);
}

#[tokio::test]
async fn a_namespace_goes_when_it_is_finalized() {
    let cluster = Cluster::start().await;
    let made = cluster.ok(Method::POST, "/api/v1/namespaces", json!({"metadata": {"name": "x"}})).await;
    assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(made.str_at(&["status", "phase"]), Some("Active"));
    assert_eq!(made.str_at(&["metadata", "labels", "kubernetes.io/metadata.name"]), Some("x"));
    let mut going = cluster.ok(Method::DELETE, "/api/v1/namespaces/x", Value::Null).await;
    assert_eq!(going.str_at(&["status", "phase"]), Some("Terminating"));
    let refused =
        cluster.call(Method::POST, "/api/v1/namespaces/x/configmaps", json!({"metadata": {"name": "a"}})).await;
    assert_eq!(
        refused.body.str_at(&["message"]),
        Some(
            "configmaps \"a\" is forbidden: unable to create new content in namespace x because it is being terminated"
        )
    );
    going.set(&["spec"], json!({}));
    cluster.ok(Method::PUT, "/api/v1/namespaces/x/finalize", going).await;
    assert_eq!(cluster.call(Method::GET, "/api/v1/namespaces/x", Value::Null).await.code, 404);
}

#[tokio::test]
async fn scales() {
    let cluster = Cluster::start().await;
    let path = "/apis/apps/v1/namespaces/default/replicasets";
    let set = json!({"metadata": {"name": "r"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": {
        "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    cluster.ok(Method::POST, path, set).await;
    let scale = cluster.get(&format!("{path}/r/scale")).await;
    assert_eq!(scale["spec"], json!({"replicas": 1}));
    assert_eq!(scale.str_at(&["status", "selector"]), Some("a=b"));
    let scaled = cluster.ok(Method::PATCH, &format!("{path}/r/scale"), json!({"spec": {"replicas": 3}})).await;
    assert_eq!(scaled["spec"], json!({"replicas": 3}));
    let live = cluster.get(&format!("{path}/r")).await;
    assert_eq!((live.int_at(&["spec", "replicas"]), live.int_at(&["metadata", "generation"])), (Some(3), Some(2)));
    let stale = json!({"metadata": {"name": "r", "resourceVersion": version(&scale)}, "spec": {"replicas": 5}});
    assert_eq!(cluster.call(Method::PUT, &format!("{path}/r/scale"), stale).await.code, 409);
}

#[tokio::test]
async fn pods_get_their_account_and_tolerations() {
    let cluster = Cluster::start().await;
    let made = cluster.pod("p").await;
    assert_eq!(made.str_at(&["spec", "serviceAccountName"]), Some("default"));
    assert_eq!(made.array_at(&["spec", "tolerations"]).len(), 2);
    assert_eq!(made.str_at(&["status", "phase"]), Some("Pending"));
    let mount = &made["spec"]["containers"][0]["volumeMounts"][0];
    assert_eq!(mount.str_at(&["mountPath"]), Some("/var/run/secrets/kubernetes.io/serviceaccount"));
    assert_eq!(made["spec"]["volumes"][0]["name"], mount["name"]);
    let mut quiet = pod("q");
    quiet.set(&["spec", "automountServiceAccountToken"], false);
    let quiet = cluster.ok(Method::POST, "/api/v1/namespaces/default/pods", quiet).await;
    assert!(quiet["spec"]["volumes"].is_empty());
}

#[tokio::test]
async fn reviews_are_answered() {
    let cluster = Cluster::start().await;
    let who = cluster.ok(Method::POST, "/apis/authentication.k8s.io/v1/selfsubjectreviews", json!({})).await;
    assert_eq!(
        who["status"]["userInfo"],
        json!({"username": "test", "groups": ["system:masters", "system:authenticated"]})
    );
    let ask = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let may = cluster.ok(Method::POST, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", ask).await;
    assert_eq!(may.bool_at(&["status", "allowed"]), Some(true));
    let ask = json!({"spec": {"user": "x", "resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let may = cluster.ok(Method::POST, "/apis/authorization.k8s.io/v1/subjectaccessreviews", ask).await;
    assert_eq!(may.bool_at(&["status", "allowed"]), Some(false));
}

#[tokio::test]
async fn every_ga_resource_lists_and_watches_and_is_discovered() {
    let cluster = Cluster::start().await;
    for r in api::resource::all() {
        let base =
            if r.group.is_empty() { format!("/api/{}", r.version) } else { format!("/apis/{}/{}", r.group, r.version) };
        let listed = cluster.get(&base).await;
        let found = listed.array_at(&["resources"]).iter().any(|i| i.str_at(&["name"]) == Some(&r.plural));
        assert!(found, "{base} lacks {}", r.plural);
        if r.can("list") {
            let list = cluster.get(&format!("{base}/{}", r.plural)).await;
            assert_eq!(list.str_at(&["kind"]), Some(&*r.list_kind));
        }
    }
    for path in ["/api", "/apis", "/openapi/v2", "/openapi/v3", "/openapi/v3/apis/apps/v1", "/version", "/"] {
        assert!(!cluster.get(path).await.is_null(), "{path}");
    }
    let metrics = cluster.raw(Method::GET, "/metrics", "", "").await.text;
    assert!(metrics.contains("apiserver_request_total{code=\"200\""), "{metrics}");
}

/// `manager subresource fields` of each entry, sorted.
fn owners(object: &Value) -> Vec<String> {
    let entries = object.array_at(&["metadata", "managedFields"]).iter();
    let text = |entry: &Value, member: &str| entry.str_at(&[member]).unwrap_or_default().to_string();
    let mut all: Vec<String> = entries
        .map(|e| {
            let fields: Vec<&str> = e["fieldsV1"].as_object().expect("fields").keys().collect();
            format!("{} {} {}", text(e, "manager"), text(e, "subresource"), fields.join(","))
        })
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn nobody_owns_what_their_endpoint_does_not_write() {
    let cluster = Cluster::start().await;
    let all = "/api/v1/namespaces/default/services";
    let path = format!("{all}/s");
    let mut service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}});
    let made = cluster.ok(Method::POST, &format!("{all}?fieldManager=maker"), service.clone()).await;
    assert_eq!(owners(&made), ["maker  f:spec"]);
    service.set(&["metadata", "labels", "a"], "b");
    let changed = cluster.ok(Method::PUT, &format!("{path}?fieldManager=changer"), service.clone()).await;
    assert_eq!(owners(&changed), ["changer  f:metadata", "maker  f:spec"]);
    assert_eq!(changed["status"], made["status"]);
    service.set(&["spec", "type"], "NodePort");
    let status = cluster.ok(Method::PUT, &format!("{path}/status?fieldManager=keeper"), service).await;
    assert_eq!(owners(&status), ["changer  f:metadata", "keeper status f:status", "maker  f:spec"]);
    assert_eq!(status.str_at(&["spec", "type"]), Some("ClusterIP"));
    let applied = "{apiVersion: v1, kind: Service, metadata: {name: s, labels: {c: d}}, spec: {sessionAffinity: None}, \
                   status: {loadBalancer: {ingress: [{ip: 1.2.3.4}]}}}";
    let mut seen = Vec::new();
    for at in [format!("{path}?fieldManager=one"), format!("{path}/status?fieldManager=two")] {
        let answer = cluster.raw(Method::PATCH, &at, "application/apply-patch+yaml", applied).await;
        assert_eq!(answer.code, 200, "{}", answer.text);
        seen = owners(&answer.body);
    }
    let want = [
        "changer  f:metadata",
        "keeper status f:status",
        "maker  f:spec",
        "one  f:metadata,f:spec",
        "two status f:status",
    ];
    assert_eq!(seen, want);
}

#[tokio::test]
async fn kinds_that_nothing_acts_on_come_with_a_warning() {
    let cluster = Cluster::start().await;
    let warnings = |answer: &super::Answer| -> Vec<String> {
        answer.headers.get_all("warning").iter().map(|w| w.to_str().expect("text").to_string()).collect()
    };
    let class = json!({"metadata": {"name": "q"}, "spec": {}});
    let made = cluster.call(Method::POST, "/apis/resource.k8s.io/v1/deviceclasses", class).await;
    let want =
        ["299 - \"knarr stores DeviceClass objects but does not allocate devices yet; see docs/compatibility.md\""];
    assert_eq!(warnings(&made), want, "{}", made.text);
    let applied = "{apiVersion: resource.k8s.io/v1, kind: DeviceClass, metadata: {name: r}, spec: {}}";
    let path = "/apis/resource.k8s.io/v1/deviceclasses/r?fieldManager=m";
    for want in [&want[..], &[]] {
        let answer = cluster.raw(Method::PATCH, path, "application/apply-patch+yaml", applied).await;
        assert_eq!(warnings(&answer), want, "{}", answer.text);
    }
    let map =
        cluster.call(Method::POST, "/api/v1/namespaces/default/configmaps", json!({"metadata": {"name": "a"}})).await;
    assert_eq!(warnings(&map), Vec::<String>::new());
}
