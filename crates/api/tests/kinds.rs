//! What holds for every kind: rows fit columns, defaults are idempotent, ordinary manifests are accepted.

use api::kinds;
use meta::{Value, json, time};

fn now() -> time::Timestamp {
    time::parse("2026-01-01T00:00:00Z").expect("a time")
}

#[test]
fn rows_fit_columns_and_defaults_are_idempotent() {
    for resource in api::resource::all_with_previews() {
        let kind = kinds::of(&resource.group, &resource.kind);
        let name = format!("{}/{} {}", resource.group, resource.version, resource.kind);
        let mut object = json!({"metadata": {"name": "x", "namespace": "n"}});
        assert_eq!((kind.row)(&object, now()).len(), kind.columns.len(), "{name}");
        (kind.defaults)(&mut object);
        let once = object.clone();
        (kind.defaults)(&mut object);
        assert_eq!(object, once, "{name}");
        (kind.prepare_create)(&mut object);
        let old = object.clone();
        (kind.prepare_update)(&mut object, &old);
        assert_eq!(object, old, "{name}: an update that changes nothing");
        (kind.prepare_status_update)(&mut object, &old);
        assert_eq!(object, old, "{name}: a status update that changes nothing");
        let names: Vec<&str> = (kind.selectable)(&object).iter().map(|(n, _)| *n).collect();
        assert!(kind.selectable_names.iter().all(|n| names.contains(n)), "{name}: {names:?}");
        // Whatever is missing, validation answers instead of panicking.
        kinds::check_create(kind, &object, true);
        kinds::check_update(kind, &object, &old);
    }
}

fn accepted(group: &str, manifest: Value) -> Value {
    let api_version = manifest.str_at(&["apiVersion"]).expect("a version").to_string();
    let kind_name = manifest.str_at(&["kind"]).expect("a kind").to_string();
    let version = api_version.rsplit('/').next().expect("a version");
    let resource = api::resource::all()
        .iter()
        .find(|r| r.group == group && r.version == version && r.kind == kind_name)
        .unwrap_or_else(|| panic!("{api_version} {kind_name} is served"));
    let kind = kinds::of(group, &kind_name);
    let mut object = manifest;
    object.set(&["metadata", "name"], if kind_name == "APIService" { "v1.x.io" } else { "web" });
    object.set(&["metadata", "uid"], "6f1c4e1e-0000-4000-8000-000000000001");
    if resource.namespaced {
        object.set(&["metadata", "namespace"], "default");
    }
    let unknown = resource.root_type().expect("a type").prune(&mut object).expect("decodes");
    assert_eq!(unknown, Vec::<String>::new(), "{kind_name}");
    (kind.defaults)(&mut object);
    (kind.prepare_create)(&mut object);
    let errors = kinds::check_create(kind, &object, resource.namespaced);
    assert!(errors.is_empty(), "{kind_name}: {}", meta::field::summary(&errors));
    let mut same = object.clone();
    same.set(&["metadata", "resourceVersion"], "1");
    (kind.prepare_update)(&mut same, &object);
    let errors = kinds::check_update(kind, &same, &object);
    assert!(errors.is_empty(), "update of {kind_name}: {}", meta::field::summary(&errors));
    object
}

fn template(spec: Value) -> meta::serde_json::Value {
    let text = format!(r#"{{"metadata":{{"labels":{{"app":"web"}}}},"spec":{spec}}}"#);
    meta::serde_json::from_str(&text).expect("JSON")
}

fn busy_spec() -> Value {
    json!({
        "serviceAccountName": "web", "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet", "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"operator": "Exists"}, {"key": "a", "value": "b", "effect": "NoSchedule"}],
        "securityContext": {"runAsUser": 1000, "fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 100, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}}]},
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "x", "operator": "In", "values": ["y"]}]}]}}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": {"app": "web"}}}],
        "initContainers": [{"name": "init", "image": "busybox:1.35", "command": ["true"]},
            {"name": "side", "image": "busybox:1.35", "restartPolicy": "Always", "readinessProbe": {"exec": {"command": ["true"]}}}],
        "containers": [{"name": "web", "image": "registry.local:5000/web:1", "args": ["-p", "80"],
            "ports": [{"name": "http", "containerPort": 8080}, {"name": "metrics", "containerPort": 9090, "protocol": "TCP"}],
            "env": [{"name": "A", "value": "b"}, {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": true}}},
                {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}],
            "envFrom": [{"configMapRef": {"name": "c"}}],
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "0.5", "memory": "128Mi"}},
            "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "initialDelaySeconds": 5},
            "readinessProbe": {"tcpSocket": {"port": 8080}, "successThreshold": 2},
            "startupProbe": {"grpc": {"port": 9090}},
            "lifecycle": {"preStop": {"sleep": {"seconds": 5}}, "postStart": {"exec": {"command": ["true"]}}},
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "conf", "mountPath": "/etc/conf", "subPath": "a", "readOnly": true},
                {"name": "all", "mountPath": "/all"}]}],
        "volumes": [{"name": "data", "emptyDir": {"sizeLimit": "1Gi"}}, {"name": "conf", "configMap": {"name": "c", "items": [{"key": "a", "path": "a"}]}},
            {"name": "all", "projected": {"sources": [{"secret": {"name": "s"}}, {"serviceAccountToken": {"path": "token"}},
                {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}},
            {"name": "host", "hostPath": {"path": "/var/log", "type": "Directory"}}]
    })
}

#[test]
fn ordinary_workloads_are_accepted() {
    let busy = || template(busy_spec());
    let job = || template(json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "i"}]}));
    let selector = || meta::serde_json::json!({"matchLabels": {"app": "web"}});
    for (group, manifest) in [
        ("", json!({"apiVersion": "v1", "kind": "Pod", "spec": busy()["spec"]})),
        (
            "apps",
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 3, "selector": selector(), "template": busy(),
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}}),
        ),
        (
            "apps",
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"selector": selector(), "template": busy(), "strategy": {"type": "Recreate"}}}),
        ),
        (
            "apps",
            json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "spec": {"replicas": 0, "selector": selector(), "template": busy()}}),
        ),
        (
            "apps",
            json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "spec": {"selector": selector(), "template": busy()}}),
        ),
        (
            "apps",
            json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "spec": {"serviceName": "web", "selector": selector(), "template": busy(),
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}}),
        ),
        ("batch", json!({"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": job()}})),
        (
            "batch",
            json!({"apiVersion": "batch/v1", "kind": "Job", "spec": {"completionMode": "Indexed", "completions": 3, "parallelism": 2, "backoffLimitPerIndex": 1, "template": job()}}),
        ),
        (
            "batch",
            json!({"apiVersion": "batch/v1", "kind": "CronJob", "spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": job()}}}}),
        ),
        ("", json!({"apiVersion": "v1", "kind": "ReplicationController", "spec": {"template": busy()}})),
        ("", json!({"apiVersion": "v1", "kind": "PodTemplate", "template": busy()})),
    ] {
        accepted(group, manifest);
    }
}

#[test]
fn other_ordinary_objects_are_accepted() {
    for (group, manifest) in [
        (
            "",
            json!({"apiVersion": "v1", "kind": "Service", "spec": {"selector": {"a": "b"}, "type": "NodePort", "ports": [{"port": 80, "targetPort": "http", "nodePort": 30080}]}}),
        ),
        (
            "",
            json!({"apiVersion": "v1", "kind": "Service", "spec": {"clusterIP": "None", "selector": {"a": "b"}, "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 80, "protocol": "UDP"}]}}),
        ),
        (
            "",
            json!({"apiVersion": "v1", "kind": "Service", "spec": {"type": "ExternalName", "externalName": "example.com"}}),
        ),
        ("", json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a.b-c_d": "x"}, "binaryData": {"b": "AA=="}})),
        (
            "",
            json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"tls.crt": "x", "tls.key": "y"}, "type": "kubernetes.io/tls"}),
        ),
        ("", json!({"apiVersion": "v1", "kind": "Namespace"})),
        (
            "",
            json!({"apiVersion": "v1", "kind": "Node", "spec": {"taints": [{"key": "a/b", "effect": "NoSchedule"}]}, "status": {"capacity": {"cpu": "2"}}}),
        ),
        ("", json!({"apiVersion": "v1", "kind": "ServiceAccount"})),
        (
            "",
            json!({"apiVersion": "v1", "kind": "Event", "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}, "reason": "R", "type": "Normal"}),
        ),
        (
            "",
            json!({"apiVersion": "v1", "kind": "Endpoints", "subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]}),
        ),
        (
            "",
            json!({"apiVersion": "v1", "kind": "PersistentVolume", "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}}),
        ),
        (
            "",
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
        ),
        (
            "",
            json!({"apiVersion": "v1", "kind": "LimitRange", "spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "100m"}}]}}),
        ),
        (
            "",
            json!({"apiVersion": "v1", "kind": "ResourceQuota", "spec": {"hard": {"pods": "10", "requests.cpu": "4"}}}),
        ),
        (
            "coordination.k8s.io",
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {"holderIdentity": "n", "leaseDurationSeconds": 40}}),
        ),
        (
            "discovery.k8s.io",
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"name": "", "port": 80}]}),
        ),
        (
            "networking.k8s.io",
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "spec": {"rules": [{"host": "*.example.com", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}}]}}),
        ),
        (
            "networking.k8s.io",
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": {"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"a": "b"}}}], "ports": [{"port": 80}]}]}}),
        ),
        (
            "policy",
            json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "spec": {"minAvailable": "50%", "selector": {"matchLabels": {"a": "b"}}}}),
        ),
        (
            "autoscaling",
            json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "spec": {"maxReplicas": 5, "scaleTargetRef": {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"}}}),
        ),
        (
            "rbac.authorization.k8s.io",
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
        ),
        (
            "rbac.authorization.k8s.io",
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "rules": [{"nonResourceURLs": ["/healthz"], "verbs": ["get"]}]}),
        ),
        (
            "rbac.authorization.k8s.io",
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "roleRef": {"kind": "ClusterRole", "name": "x"}, "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "n"}]}),
        ),
        ("storage.k8s.io", json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "x.io/y"})),
        ("scheduling.k8s.io", json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 1000})),
        ("node.k8s.io", json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "handler": "runc"})),
        (
            "apiregistration.k8s.io",
            json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "spec": {"group": "x.io", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10}}),
        ),
    ] {
        accepted(group, manifest);
    }
}
