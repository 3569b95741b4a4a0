//! Reading a pod's spec: its containers in start order, restart rules, grace periods, quality of service.
//!
//! Reads typed pods only, does no I/O. Invariant: the order of [`containers`] is upstream's: init containers (sidecars
//! among them) as listed, then regular, then ephemeral ones.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use meta::quantity::Quantity;

/// What a container is to its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Runs to its end before the next starts.
    Init,
    /// An init container with `restartPolicy: Always`: starts in order, then keeps running beside the others.
    Sidecar,
    /// One of `spec.containers`.
    Regular,
    /// Added to a running pod to debug it, never restarted.
    Ephemeral,
}

/// One container of a pod's spec.
#[derive(Debug, Clone)]
pub struct Slot<'a> {
    pub kind: Kind,
    /// Its place in its own list.
    pub index: usize,
    /// Its spec; an ephemeral container's is converted.
    pub container: Cow<'a, Container>,
    /// The container whose process namespace an ephemeral container joins.
    pub target: Option<&'a str>,
}

impl Slot<'_> {
    pub fn name(&self) -> &str {
        &self.container.name
    }

    /// The field path events about it carry, such as `spec.containers{web}`.
    pub fn field_path(&self) -> String {
        let list = match self.kind {
            Kind::Init | Kind::Sidecar => "initContainers",
            Kind::Regular => "containers",
            Kind::Ephemeral => "ephemeralContainers",
        };
        format!("spec.{list}{{{}}}", self.container.name)
    }
}

/// The pod's spec; an absent one reads as empty, which no stored pod has.
pub fn spec(pod: &Pod) -> Cow<'_, PodSpec> {
    pod.spec.as_ref().map_or_else(|| Cow::Owned(PodSpec::default()), Cow::Borrowed)
}

/// Every container of the pod, in start order.
pub fn containers(pod: &Pod) -> Vec<Slot<'_>> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let mut slots = Vec::new();
    for (index, container) in spec.init_containers.iter().flatten().enumerate() {
        let kind = if container.restart_policy.as_deref() == Some("Always") { Kind::Sidecar } else { Kind::Init };
        slots.push(Slot { kind, index, container: Cow::Borrowed(container), target: None });
    }
    for (index, container) in spec.containers.iter().enumerate() {
        slots.push(Slot { kind: Kind::Regular, index, container: Cow::Borrowed(container), target: None });
    }
    for (index, container) in spec.ephemeral_containers.iter().flatten().enumerate() {
        let target = container.target_container_name.as_deref().filter(|name| !name.is_empty());
        slots.push(Slot { kind: Kind::Ephemeral, index, container: Cow::Owned(plain(container)), target });
    }
    slots
}

/// The container of that name.
pub fn find<'a>(pod: &'a Pod, name: &str) -> Option<Slot<'a>> {
    containers(pod).into_iter().find(|slot| slot.name() == name)
}

/// An ephemeral container as a plain one: all its fields but the target are a container's too.
fn plain(from: &EphemeralContainer) -> Container {
    serde_json::to_value(from).and_then(serde_json::from_value).unwrap_or_default()
}

/// Whether a container that ended with `exit_code` runs again.
pub fn restarts(pod: &Pod, slot: &Slot<'_>, exit_code: i32) -> bool {
    match slot.kind {
        Kind::Sidecar => return true,
        Kind::Ephemeral => return false,
        Kind::Init | Kind::Regular => {}
    }
    for rule in slot.container.restart_policy_rules.iter().flatten() {
        let Some(codes) = &rule.exit_codes else { continue };
        let listed = codes.values.iter().flatten().any(|code| *code == exit_code);
        let matches = match codes.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        // RestartAllContainers restarts this one too
        if matches && rule.action.starts_with("Restart") {
            return true;
        }
    }
    let pod_policy = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    let policy = slot.container.restart_policy.as_deref().or(pod_policy);
    match (policy.unwrap_or("Always"), slot.kind) {
        ("Never", _) => false,
        // an init container that succeeded is done whatever the policy
        ("Always", Kind::Regular) => true,
        _ => exit_code != 0,
    }
}

/// A short name for what the container was made from. Only name and image: other fields that may change on a
/// running pod do not restart its containers.
pub fn hash(container: &Container) -> String {
    let mut hasher = DefaultHasher::new();
    container.name.hash(&mut hasher);
    container.image.hash(&mut hasher);
    format!("{:x}", hasher.finish() & 0xffff_ffff)
}

/// The pod's uid; empty only for pods no API server has seen.
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// `NAME_NAMESPACE(UID)`, as upstream names pods in messages.
pub fn described(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

/// The pod uses its node's network.
pub fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false)
}

pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// The pod has reached its end: it will never run again.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Seconds the pod's containers get between the stop signal and the kill.
pub fn grace_seconds(pod: &Pod) -> i64 {
    let deletion = pod.metadata.deletion_grace_period_seconds;
    let own = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
    // Compat: upstream never kills with less than a second, so that the runtime sends the stop signal at all
    deletion.unwrap_or(own).max(1)
}

/// When the pod must have ended, from `activeDeadlineSeconds`.
pub fn deadline(pod: &Pod, start: Option<Timestamp>) -> Option<Timestamp> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    start?.checked_add(jiff::SignedDuration::from_secs(seconds)).ok()
}

/// A resource amount in thousandths.
pub fn milli(quantity: &ApiQuantity) -> i64 {
    Quantity::parse(&quantity.0).map(|parsed| parsed.milli_value()).unwrap_or(0)
}

/// A resource amount, rounded up.
pub fn whole(quantity: &ApiQuantity) -> i64 {
    Quantity::parse(&quantity.0).map(|parsed| parsed.value()).unwrap_or(0)
}

/// The pod's quality of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qos {
    /// Every container's limits equal its requests, for CPU and memory.
    Guaranteed,
    /// Some request or limit.
    Burstable,
    /// No request, no limit.
    BestEffort,
}

impl Qos {
    /// As in `status.qosClass`.
    pub fn as_str(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }
}

/// The pod's quality of service: as stored once set, since it never changes; else computed.
pub fn qos(pod: &Pod) -> Qos {
    match pod.status.as_ref().and_then(|status| status.qos_class.as_deref()) {
        Some("Guaranteed") => return Qos::Guaranteed,
        Some("Burstable") => return Qos::Burstable,
        Some("BestEffort") => return Qos::BestEffort,
        _ => {}
    }
    let Some(spec) = &pod.spec else { return Qos::BestEffort };
    let pod_level = spec.resources.as_ref().filter(|own| own.limits.is_some() || own.requests.is_some());
    let all: Vec<_> = match pod_level {
        Some(own) => vec![Some(own)],
        None => spec
            .init_containers
            .iter()
            .flatten()
            .chain(&spec.containers)
            .map(|container| container.resources.as_ref())
            .collect(),
    };
    let of = |list: Option<&BTreeMap<String, ApiQuantity>>, name: &str| {
        list.and_then(|list| list.get(name)).map(milli).filter(|amount| *amount > 0)
    };
    let (mut any, mut guaranteed) = (false, true);
    for resources in all {
        for name in ["cpu", "memory"] {
            let request = resources.and_then(|own| of(own.requests.as_ref(), name));
            let limit = resources.and_then(|own| of(own.limits.as_ref(), name));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"}, "spec": spec})).expect("pod")
    }

    #[test]
    fn containers_come_in_start_order() {
        let pod = pod(json!({
            "containers": [{"name": "a"}, {"name": "b"}],
            "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
            "ephemeralContainers": [{"name": "e", "targetContainerName": "a"}],
        }));
        let seen: Vec<_> = containers(&pod).iter().map(|slot| (slot.kind, slot.field_path())).collect();
        assert_eq!(
            seen,
            [
                (Kind::Init, "spec.initContainers{i}".to_string()),
                (Kind::Sidecar, "spec.initContainers{s}".to_string()),
                (Kind::Regular, "spec.containers{a}".to_string()),
                (Kind::Regular, "spec.containers{b}".to_string()),
                (Kind::Ephemeral, "spec.ephemeralContainers{e}".to_string()),
            ]
        );
    }

    #[test]
    fn restart_rules() {
        for (policy, kind, code, want) in [
            ("Always", "containers", 0, true),
            ("OnFailure", "containers", 0, false),
            ("OnFailure", "containers", 1, true),
            ("Never", "containers", 1, false),
            ("Always", "initContainers", 0, false),
            ("Always", "initContainers", 1, true),
            ("Never", "initContainers", 1, false),
        ] {
            let pod = pod(json!({"restartPolicy": policy, "containers": [{"name": "c"}], kind: [{"name": "x"}]}));
            let slot = find(&pod, "x").expect("slot");
            assert_eq!(restarts(&pod, &slot, code), want, "{policy} {kind} {code}");
        }
        let pod = pod(json!({"restartPolicy": "Never", "containers": [{"name": "c", "restartPolicy": "Never",
            "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]}]}));
        let slot = find(&pod, "c").expect("slot");
        assert!(restarts(&pod, &slot, 42));
        assert!(!restarts(&pod, &slot, 1));
    }

    #[test]
    fn quality_of_service() {
        for (resources, want) in [
            (json!({}), Qos::BestEffort),
            (json!({"requests": {"cpu": "1"}}), Qos::Burstable),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), Qos::Guaranteed),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Gi"}}),
                Qos::Guaranteed,
            ),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}), Qos::Burstable),
        ] {
            assert_eq!(qos(&pod(json!({"containers": [{"name": "c", "resources": resources}]}))), want, "{resources}");
        }
    }
}
