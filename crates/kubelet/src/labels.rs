//! The labels and annotations the kubelet puts on sandboxes and containers, so that a restarted kubelet finds its way.
//!
//! Invariant: the keys are upstream's, so that crictl and log shippers read them; `OWNER` is ours and keeps two
//! kubelets apart that share a runtime.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::spec;

pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
pub const HASH: &str = "io.kubernetes.container.hash";
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub const TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub const TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub const PRE_STOP: &str = "io.kubernetes.container.preStopHandler";
pub const POD_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
pub const PORTS: &str = "io.kubernetes.container.ports";
pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
pub const CONFIG_SEEN: &str = "kubernetes.io/config.seen";
/// The kubelet this belongs to.
pub const OWNER: &str = "knarr.io/owner";

/// What a sandbox of the pod is labelled with: the pod's own labels and ours.
pub fn for_sandbox(pod: &Pod, owner: &str) -> BTreeMap<String, String> {
    let mut labels = pod.metadata.labels.clone().unwrap_or_default();
    labels.extend(of_pod(pod, owner));
    labels
}

/// What a container of the pod is labelled with.
pub fn for_container(pod: &Pod, container: &str, owner: &str) -> BTreeMap<String, String> {
    let mut labels = of_pod(pod, owner);
    labels.insert(CONTAINER_NAME.to_string(), container.to_string());
    labels
}

fn of_pod(pod: &Pod, owner: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (POD_NAME.to_string(), spec::name(pod).to_string()),
        (POD_NAMESPACE.to_string(), spec::namespace(pod).to_string()),
        (POD_UID.to_string(), spec::uid(pod).to_string()),
        (OWNER.to_string(), owner.to_string()),
    ])
}

/// What a container of the pod is annotated with.
pub fn container_annotations(pod: &Pod, container: &Container, attempt: u32) -> BTreeMap<String, String> {
    let path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    let policy = container.termination_message_policy.as_deref().unwrap_or("File");
    let mut annotations = BTreeMap::from([
        (HASH.to_string(), spec::hash(container)),
        (RESTART_COUNT.to_string(), attempt.to_string()),
        (TERMINATION_PATH.to_string(), path.to_string()),
        (TERMINATION_POLICY.to_string(), policy.to_string()),
    ]);
    if let Some(grace) = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds) {
        annotations.insert(POD_GRACE.to_string(), grace.to_string());
    }
    let pre_stop = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    if let Some(text) = pre_stop.and_then(|hook| serde_json::to_string(hook).ok()) {
        annotations.insert(PRE_STOP.to_string(), text);
    }
    if let Some(text) = container.ports.as_ref().and_then(|ports| serde_json::to_string(ports).ok()) {
        annotations.insert(PORTS.to_string(), text);
    }
    annotations
}

/// Selects everything of this kubelet.
pub fn owner_selector(owner: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(OWNER.to_string(), owner.to_string())])
}

/// Selects everything of one pod of this kubelet.
pub fn pod_selector(owner: &str, uid: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(OWNER.to_string(), owner.to_string()), (POD_UID.to_string(), uid.to_string())])
}
