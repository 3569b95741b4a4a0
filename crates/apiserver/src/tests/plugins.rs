//! Admission plugins that are configured, or off unless they are asked for. The answers are kube-apiserver v1.37.1's.

use http::Method;
use meta::{Value, json};

use super::{Cluster, pod};
use crate::AdmissionSettings;

const CONFIGURATION: &str = r#"
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: PodSecurity
  configuration:
    apiVersion: pod-security.admission.config.k8s.io/v1
    kind: PodSecurityConfiguration
    defaults: {enforce: "baseline", enforce-version: "latest", warn: "restricted", audit: "restricted"}
    exemptions: {usernames: ["x"], runtimeClasses: ["rc"], namespaces: ["ex"]}
- name: ResourceQuota
  path: quota.yaml
"#;
const QUOTA: &str = r#"
apiVersion: apiserver.config.k8s.io/v1
kind: ResourceQuotaConfiguration
limitedResources:
- resource: persistentvolumeclaims
  matchContains: [".storageclass.storage.k8s.io/requests.storage"]
- resource: pods
  matchScopes: [{scopeName: PriorityClass, operator: In, values: ["high"]}]
"#;
const ON: [&str; 7] = [
    "AlwaysPullImages", "DenyServiceExternalIPs", "ExtendedResourceToleration", "LimitPodHardAntiAffinityTopology",
    "NamespaceAutoProvision", "NamespaceExists", "PodNodeSelector",
];

async fn cluster() -> Cluster {
    let cluster = Cluster::start_with(|config| {
        let mut settings = AdmissionSettings::default();
        settings.switch(&ON.map(String::from), &["ServiceAccount".to_string()]).expect("plugins");
        let read = |path: &str| (path == "quota.yaml").then(|| QUOTA.to_string()).ok_or_else(|| path.to_string());
        settings.configure(CONFIGURATION, read).expect("a configuration");
        config.admission = settings;
    });
    cluster.await
}

fn with(spec: Value) -> Value {
    let mut made = pod("p");
    for (member, value) in spec.as_object().expect("an object").iter() {
        made.set(&["spec", member], value);
    }
    made
}

#[tokio::test]
async fn plugins_that_are_asked_for() {
    let cluster = cluster().await;
    // The namespace comes into being; what the pod is, is as the plugins want it.
    let gpu =
        json!([{"name": "c", "image": "i", "imagePullPolicy": "Never", "resources": {"limits": {"x.com/gpu": 1}}}]);
    let made = cluster.ok(Method::POST, "/api/v1/namespaces/auto/pods", with(json!({"containers": gpu}))).await;
    assert_eq!(
        made["spec"]["containers"].as_array().expect("containers")[0]["imagePullPolicy"].as_str(),
        Some("Always")
    );
    let added = made.array_at(&["spec", "tolerations"]).last();
    assert_eq!(added, Some(&json!({"key": "x.com/gpu", "operator": "Exists", "effect": "NoSchedule"})));
    let annotated =
        json!({"metadata": {"annotations": {"scheduler.alpha.kubernetes.io/node-selector": "env=prod,x=y"}}});
    cluster.ok(Method::PATCH, "/api/v1/namespaces/default", annotated).await;
    let made =
        cluster.ok(Method::POST, "/api/v1/namespaces/default/pods", with(json!({"nodeSelector": {"z": "z"}}))).await;
    assert_eq!(made["spec"]["nodeSelector"], json!({"env": "prod", "x": "y", "z": "z"}));
    cluster.ok(Method::POST, "/api/v1/namespaces", json!({"metadata": {"name": "ex"}})).await;
    cluster
        .ok(
            Method::POST,
            "/apis/scheduling.k8s.io/v1/priorityclasses",
            json!({"metadata": {"name": "high"}, "value": 5}),
        )
        .await;
    let far = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "zone", "labelSelector": {}}]}}});
    let claim = json!({"metadata": {"name": "a"}, "spec": {"storageClassName": "gold", "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    let service = json!({"metadata": {"name": "s"}, "spec": {"externalIPs": ["1.2.3.4"], "ports": [{"port": 1}]}});
    let host = || with(json!({"hostNetwork": true}));
    for (path, body, want) in [
        (
            "namespaces/nsx/configmaps?dryRun=All",
            json!({"metadata": {"name": "x"}}),
            "404 namespaces \"nsx\" not found",
        ),
        (
            "namespaces/default/pods",
            with(json!({"nodeSelector": {"env": "test"}})),
            "403 pods \"p\" is forbidden: pod node label selector conflicts with its namespace node label selector",
        ),
        (
            "namespaces/auto/pods",
            with(far),
            "403 pods \"p\" is forbidden: affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey zone but only key kubernetes.io/hostname is allowed",
        ),
        (
            "namespaces/auto/services",
            service,
            "403 services \"s\" is forbidden: Use of external IPs is denied by admission control",
        ),
        (
            "namespaces/auto/persistentvolumeclaims",
            claim,
            "403 persistentvolumeclaims \"a\" is forbidden: insufficient quota to consume: gold.storageclass.storage.k8s.io/requests.storage",
        ),
        (
            "namespaces/auto/pods",
            with(json!({"priorityClassName": "high"})),
            "500 insufficient quota to match these scopes: [{PriorityClass In [high]}]",
        ),
        (
            "namespaces/auto/pods",
            host(),
            "403 pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)",
        ),
        ("namespaces/ex/pods", host(), "201 "),
    ] {
        let answer = cluster.call(Method::POST, &format!("/api/v1/{path}"), body).await;
        assert_eq!(format!("{} {}", answer.code, answer.body.str_at(&["message"]).unwrap_or_default()), want);
    }
    // With a quota the same may be had.
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [
        {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}}});
    cluster.ok(Method::POST, "/api/v1/namespaces/ex/resourcequotas", quota).await;
    let counted = json!({"status": {"hard": {"pods": "1"}, "used": {"pods": "0"}}});
    cluster.ok(Method::PATCH, "/api/v1/namespaces/ex/resourcequotas/q/status", counted).await;
    let mut high = with(json!({"priorityClassName": "high"}));
    high.set(&["metadata", "name"], "high");
    cluster.ok(Method::POST, "/api/v1/namespaces/ex/pods", high).await;
    // Labels of an exempt namespace do nothing, and that is said.
    let labels =
        json!({"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn-version": "v1.20"});
    let mut patch = json!({});
    patch.set(&["metadata", "labels"], labels);
    let answer = cluster.call(Method::PATCH, "/api/v1/namespaces/ex", patch).await;
    let warned = answer.headers.get("warning").and_then(|w| w.to_str().ok());
    let want = "299 - \"namespace \\\"ex\\\" is exempt from Pod Security, and the policy (enforce=restricted:latest, warn=restricted:v1.20) will be ignored\"";
    assert_eq!(warned, Some(want));
}
