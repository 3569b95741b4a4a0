//! Admission plugins that set, refuse and warn, and what the server tells of itself.

use http::Method;

use super::{Cluster, pod};

const CSR: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIaE1JR0hBZ0VBTUNVeEZ6QVZCZ05WQkFvTURuTjVjM1JsYlRwdFlYTjBaWEp6TVFvd0NBWURWUVFEREFGNApNRmt3RXdZSEtvWkl6ajBDQVFZSUtvWkl6ajBEQVFjRFFnQUVEN1FPZUdzWmMrTlpRR3JVNmNBS1IrcVM0N21HCnlmUTkvN1ZIMm1HcG0zZFRZMS9SUlphcWZ2ZWRzRU5lU3pEQm5lM0Y0dUdteW8wZDRyMlpvdEJuKzZBQU1Bb0cKQ0NxR1NNNDlCQU1DQTBrQU1FWUNJUUNxTy96dEV3M094MGorQTJmU0RkQTZ2bFYrTWpEc0pQV2ZmVktULzhOSgpNUUloQU0xbjZZWFJSUVpOYlB4blNXSHk4MWlCRlJoWXZDZGVlN2lRZlJuZUZjRnMKLS0tLS1FTkQgQ0VSVElGSUNBVEUgUkVRVUVTVC0tLS0tCg==";
const PLAIN: &str = r#"allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#;

/// Requests, each with the member to show; then the code, the message or the member, and the warnings.
const STEPS: &str = r#"
POST NS | {"metadata": {"name": "r", "labels": {"pod-security.kubernetes.io/warn": "restricted"}}} |
  201 null
POST NS/r/serviceaccounts | {"metadata": {"name": "default"}} |
  201 null
POST NS/r/pods | POD |
  201 null
  would violate PodSecurity "restricted:latest": PLAIN
POST /apis/batch/v1/namespaces/r/cronjobs | {"metadata": {"name": "j"}, "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}}} |
  201 null
  would violate PodSecurity "restricted:latest": PLAIN
POST NS/default/pods | POD |
  201 null
PATCH NS/default | {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "strict"}}} |
  422 Namespace "default" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "strict": must be one of privileged, baseline, restricted
PATCH NS/default | {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}} |
  200 null
  existing pods in namespace "default" violate the new PodSecurity enforce level "restricted:latest"
  p: allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != true, seccompProfile
POST NS/default/pods | POD |
  403 pods "p" is forbidden: violates PodSecurity "restricted:latest": PLAIN
PATCH NS/default/pods/p | {"metadata": {"labels": {"x": "y"}}} | metadata labels
  200 {"x":"y"}
PATCH NS/default/pods/p/ephemeralcontainers | {"spec": {"ephemeralContainers": [{"name": "e", "image": "i", "securityContext": {"privileged": true}}]}} |
  403 pods "p" is forbidden: violates PodSecurity "restricted:latest": privileged (container "e" must not set securityContext.privileged=true), allowPrivilegeEscalation != false (containers "c", "e" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (containers "c", "e" must set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or containers "c", "e" must set securityContext.runAsNonRoot=true), seccompProfile (pod or containers "c", "e" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")
PATCH NS/default | {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": null}}} |
  200 null
POST NS/default/persistentvolumeclaims | {"metadata": {"name": "early"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}} | spec storageClassName
  201 null
POST /apis/storage.k8s.io/v1/storageclasses | {"metadata": {"name": "fast", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "x"} |
  201 null
POST NS/default/persistentvolumeclaims | {"metadata": {"name": "late"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}} | spec storageClassName
  201 "fast"
PATCH NS/default/persistentvolumeclaims/late/status | {"status": {"phase": "Bound"}} |
  200 null
PATCH NS/default/persistentvolumeclaims/late | {"spec": {"resources": {"requests": {"storage": "2Gi"}}}} |
  403 persistentvolumeclaims "late" is forbidden: only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize
PATCH /apis/storage.k8s.io/v1/storageclasses/fast | {"allowVolumeExpansion": true} |
  200 null
PATCH NS/default/persistentvolumeclaims/late | {"spec": {"resources": {"requests": {"storage": "2Gi"}}}} | spec resources requests
  200 {"storage":"2Gi"}
POST /apis/networking.k8s.io/v1/ingressclasses | {"metadata": {"name": "web", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}}, "spec": {"controller": "x.y/z"}} |
  201 null
POST /apis/networking.k8s.io/v1/namespaces/default/ingresses | {"metadata": {"name": "i"}, "spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}} | spec ingressClassName
  201 "web"
POST /api/v1/nodes | {"metadata": {"name": "n", "labels": {"topology.kubernetes.io/zone": "z"}}, "status": {"allocatable": {"cpu": "1"}}} | spec taints
  201 [{"effect":"NoSchedule","key":"node.kubernetes.io/not-ready"}]
POST NS/default/pods/p/binding | {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}} |
  201 null
GET NS/default/pods/p | null | metadata labels
  200 {"topology.kubernetes.io/zone":"z","x":"y"}
PATCH NS/default/pods/p/resize | {"spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "3"}}}]}} |
  403 pods "p" is forbidden: node didn't have enough allocatable resources: cpu, requested: 3000, allocatable: 1000
POST /apis/certificates.k8s.io/v1/certificatesigningrequests | {"metadata": {"name": "c"}, "spec": {"request": "CSR", "usages": ["client auth"], "signerName": "kubernetes.io/kube-apiserver-client"}} |
  403 certificatesigningrequests.certificates.k8s.io "c" is forbidden: use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed
"#;

#[tokio::test]
async fn what_plugins_do() {
    let cluster = Cluster::start().await;
    let steps = STEPS.replace("CSR", CSR).replace("PLAIN", PLAIN).replace("POD", &pod("p").to_string());
    let mut steps = steps.replace("NS/", "/api/v1/namespaces/");
    steps = steps.replace("POST NS ", "POST /api/v1/namespaces ");
    let mut lines = steps.lines().skip(1).peekable();
    while let Some(step) = lines.next() {
        let mut want = Vec::new();
        while let Some(line) = lines.next_if(|line| line.starts_with("  ")) {
            want.push(line.trim_start().to_string());
        }
        let [request, body, member] = step.splitn(3, " |").collect::<Vec<_>>()[..] else { panic!("{step}") };
        let (method, path) = request.split_once(' ').expect("a method and a path");
        let body = meta::parse(body.trim().as_bytes()).expect("JSON");
        let answer = cluster.call(method.parse().expect("a method"), path, body).await;
        let member: Vec<&str> = member.split_whitespace().collect();
        let shown = || answer.body.at(&member).filter(|_| !member.is_empty()).cloned().unwrap_or_default().to_string();
        let message = answer.body.str_at(&["message"]).map_or_else(shown, str::to_string);
        let warnings = answer.headers.get_all("warning").iter().map(|w| w.to_str().expect("text").replace('\\', ""));
        let warnings = warnings.filter_map(|w| Some(w.strip_prefix("299 - \"")?.strip_suffix('"')?.to_string()));
        let warnings = warnings.filter(|w| !w.starts_with("knarr stores"));
        let got: Vec<String> = [format!("{} {message}", answer.code)].into_iter().chain(warnings).collect();
        assert_eq!(got, want, "{step}");
    }
}

#[tokio::test]
async fn health_and_metrics() {
    let cluster = Cluster::start().await;
    let text = async |path: &str| {
        let answer = cluster.raw(Method::GET, path, "", "").await;
        format!("{} {}", answer.code, answer.text)
    };
    let page = text("/readyz?verbose").await;
    assert!(page.starts_with("200 [+]ping ok\n[+]log ok\n[+]etcd ok\n"), "{page}");
    assert!(page.ends_with("[+]informer-sync ok\n[+]shutdown ok\nreadyz check passed\n"), "{page}");
    for (path, want) in [
        ("/livez", "200 ok"),
        ("/livez/ping", "200 ok"),
        ("/readyz/poststarthook/bootstrap-controller", "200 ok"),
        ("/livez/none", "404 404 page not found\n"),
    ] {
        assert_eq!(text(path).await, want);
    }
    cluster.server.shared.shutdown.cancel();
    let page = text("/readyz?exclude=etcd&exclude=x").await;
    assert!(page.contains("[+]etcd excluded: ok\n") && page.starts_with("500 "), "{page}");
    assert!(page.ends_with("[-]shutdown failed: reason withheld\nwarn: some health checks cannot be excluded: no matches for \"x\"\nreadyz check failed\n"), "{page}");
    assert_eq!(text("/livez").await, "200 ok");
    assert_eq!(text("/readyz/shutdown").await, "500 internal server error: process is shutting down\n");
    let (metrics, slis) = (text("/metrics").await, text("/metrics/slis").await);
    for line in [
        "etcd_request_duration_seconds_count{group=\"\",operation=\"create\",resource=\"namespaces\"} 4",
        "apiserver_admission_controller_admission_duration_seconds_count{name=\"PodSecurity\",operation=\"CREATE\",rejected=\"false\",type=\"validate\"}",
        "apiserver_storage_objects{resource=\"priorityclasses.scheduling.k8s.io\"} 2",
        "\nprocess_resident_memory_bytes ",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    for line in [
        "kubernetes_healthcheck{name=\"ping\",type=\"livez\"} 1",
        "kubernetes_healthcheck{name=\"shutdown\",type=\"readyz\"} 0",
        "kubernetes_healthchecks_total{name=\"shutdown\",status=\"error\",type=\"readyz\"} 2",
    ] {
        assert!(slis.contains(line), "{line} in {slis}");
    }
}
