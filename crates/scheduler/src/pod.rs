//! A pod as the scheduler sees it: everything the plugins ask about, parsed once when the informer delivers it.
//! Reads the typed Pod. Invariant: immutable; a changed pod is a new `PodInfo`.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;

use crate::resource::{self, Resources};
use crate::selector::{Labels, NodeTerm, Requirement, Selector};

/// A port on the host that a container claims.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// None stands for every address (`0.0.0.0` or nothing given).
    pub ip: Option<IpAddr>,
    pub protocol: Box<str>,
    pub port: i32,
}

impl HostPort {
    pub fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip.is_none() || other.ip.is_none() || self.ip == other.ip)
    }
}

#[derive(Clone, Debug)]
pub struct Toleration {
    pub key: Box<str>,
    pub operator: Box<str>,
    pub value: Box<str>,
    pub effect: Box<str>,
}

/// Required or preferred terms over other pods.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodTerm {
    pub namespaces: Vec<Box<str>>,
    pub namespace_selector: Selector,
    pub selector: Selector,
    pub topology_key: Box<str>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PodAffinity {
    pub required: Vec<PodTerm>,
    pub preferred: Vec<(i64, PodTerm)>,
    pub anti_required: Vec<PodTerm>,
    pub anti_preferred: Vec<(i64, PodTerm)>,
}

#[derive(Clone, Debug)]
pub struct SpreadConstraint {
    pub max_skew: i64,
    pub topology_key: Box<str>,
    pub hard: bool,
    pub selector: Selector,
    pub min_domains: i64,
    pub honor_affinity: bool,
    pub honor_taints: bool,
}

/// The scheduler's own picture of a pod.
#[derive(Clone, Debug)]
pub struct PodInfo {
    pub uid: Arc<str>,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub generation: Option<i64>,
    pub labels: Labels,
    pub scheduler_name: Box<str>,
    /// Empty until bound.
    pub node_name: Box<str>,
    pub nominated_node: Box<str>,
    /// Reason and message of the condition `PodScheduled=False`, as last written.
    pub not_scheduled: Option<(Box<str>, Box<str>)>,
    pub priority: i32,
    pub never_preempts: bool,
    pub terminating: bool,
    /// Succeeded or Failed: occupies nothing.
    pub finished: bool,
    /// Seconds since 1970; of `status.startTime`, else of creation.
    pub start_seconds: i64,
    pub gates: Vec<Box<str>>,
    pub requests: Resources,
    pub non_zero_cpu_milli: i64,
    pub non_zero_memory_bytes: i64,
    pub ports: Vec<HostPort>,
    pub node_selector: Labels,
    /// `requiredDuringScheduling...`: any of the terms must match.
    pub node_required: Option<Vec<NodeTerm>>,
    pub node_preferred: Vec<(i64, NodeTerm)>,
    pub tolerations: Vec<Toleration>,
    pub images: Vec<Box<str>>,
    pub container_count: usize,
    pub affinity: Option<Arc<PodAffinity>>,
    pub spread: Vec<SpreadConstraint>,
    /// Kind and name of the controlling owner, for the default spreading.
    pub controller: Option<(Box<str>, Box<str>)>,
}

impl PodInfo {
    pub fn of(pod: &core::Pod) -> Self {
        let empty = core::PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let meta = &pod.metadata;
        let status = pod.status.as_ref();
        let namespace: Arc<str> = meta.namespace.as_deref().unwrap_or_default().into();
        let labels = Labels::new(meta.labels.as_ref());
        let (non_zero_cpu_milli, non_zero_memory_bytes) = resource::pod_requests_non_zero(pod);
        let node_affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        Self {
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            name: meta.name.as_deref().unwrap_or_default().into(),
            generation: meta.generation,
            scheduler_name: spec.scheduler_name.as_deref().unwrap_or("default-scheduler").into(),
            node_name: spec.node_name.as_deref().unwrap_or_default().into(),
            nominated_node: status.and_then(|s| s.nominated_node_name.as_deref()).unwrap_or_default().into(),
            not_scheduled: status.and_then(|s| s.conditions.as_ref()).into_iter().flatten().find_map(|c| {
                (c.type_ == "PodScheduled" && c.status == "False").then(|| {
                    (c.reason.as_deref().unwrap_or_default().into(), c.message.as_deref().unwrap_or_default().into())
                })
            }),
            priority: spec.priority.unwrap_or(0),
            never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
            terminating: meta.deletion_timestamp.is_some(),
            finished: matches!(status.and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed")),
            start_seconds: status
                .and_then(|s| s.start_time.as_ref())
                .or(meta.creation_timestamp.as_ref())
                .map_or(0, |t| t.0.as_second()),
            gates: spec.scheduling_gates.iter().flatten().map(|g| g.name.as_str().into()).collect(),
            requests: resource::pod_requests(pod),
            non_zero_cpu_milli,
            non_zero_memory_bytes,
            ports: host_ports(spec),
            node_selector: Labels::new(spec.node_selector.as_ref()),
            node_required: node_affinity
                .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())
                .map(|s| s.node_selector_terms.iter().map(NodeTerm::of).collect()),
            node_preferred: node_affinity
                .and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref())
                .unwrap_or_default()
                .iter()
                .map(|p| (i64::from(p.weight), NodeTerm::of(&p.preference)))
                .collect(),
            tolerations: spec.tolerations.iter().flatten().map(toleration).collect(),
            images: images(spec),
            container_count: spec.containers.len() + spec.init_containers.as_ref().map_or(0, Vec::len),
            affinity: affinity(spec, &namespace, &labels).map(Arc::new),
            spread: spec.topology_spread_constraints.iter().flatten().map(|c| spread(c, &labels)).collect(),
            controller: meta
                .owner_references
                .iter()
                .flatten()
                .find(|o| o.controller == Some(true))
                .map(|o| (o.kind.as_str().into(), o.name.as_str().into())),
            namespace,
            labels,
        }
    }

    /// `namespace/name`
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    pub fn required_affinity(&self) -> &[PodTerm] {
        self.affinity.as_ref().map_or(&[], |a| &a.required)
    }

    pub fn required_anti_affinity(&self) -> &[PodTerm] {
        self.affinity.as_ref().map_or(&[], |a| &a.anti_required)
    }

    /// Whether two versions differ in nothing that decides where the pod may go.
    pub fn same_placement(&self, other: &Self) -> bool {
        self.labels == other.labels
            && self.requests == other.requests
            && self.tolerations.len() == other.tolerations.len()
            && self.gates == other.gates
            && self.node_selector == other.node_selector
            && self.node_required == other.node_required
            && self.terminating == other.terminating
    }
}

fn host_ports(spec: &core::PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let mut out = Vec::new();
    for port in spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten()) {
        let Some(number) = port.host_port.filter(|p| *p > 0) else { continue };
        out.push(HostPort {
            ip: port.host_ip.as_deref().and_then(|ip| ip.parse().ok()).filter(|ip: &IpAddr| !ip.is_unspecified()),
            protocol: port.protocol.as_deref().unwrap_or("TCP").into(),
            port: number,
        });
    }
    out
}

fn images(spec: &core::PodSpec) -> Vec<Box<str>> {
    let all = spec.init_containers.iter().flatten().chain(&spec.containers);
    all.filter_map(|c| c.image.as_deref()).map(normalized_image).collect()
}

/// `name` becomes `name:latest` unless it has a tag or a digest.
pub fn normalized_image(name: &str) -> Box<str> {
    let last_slash = name.rfind('/').map_or(0, |i| i + 1);
    if name[last_slash..].contains(':') { name.into() } else { format!("{name}:latest").into() }
}

fn toleration(t: &core::Toleration) -> Toleration {
    let text = |s: &Option<String>| s.as_deref().unwrap_or_default().into();
    Toleration { key: text(&t.key), operator: text(&t.operator), value: text(&t.value), effect: text(&t.effect) }
}

fn affinity(spec: &core::PodSpec, namespace: &str, labels: &Labels) -> Option<PodAffinity> {
    let source = spec.affinity.as_ref()?;
    let mut out = PodAffinity::default();
    let weighted = |list: &Option<Vec<core::WeightedPodAffinityTerm>>| -> Vec<(i64, PodTerm)> {
        list.iter()
            .flatten()
            .map(|w| (i64::from(w.weight), pod_term(&w.pod_affinity_term, namespace, labels)))
            .collect()
    };
    let plain = |list: &Option<Vec<core::PodAffinityTerm>>| -> Vec<PodTerm> {
        list.iter().flatten().map(|t| pod_term(t, namespace, labels)).collect()
    };
    if let Some(a) = &source.pod_affinity {
        out.required = plain(&a.required_during_scheduling_ignored_during_execution);
        out.preferred = weighted(&a.preferred_during_scheduling_ignored_during_execution);
    }
    if let Some(a) = &source.pod_anti_affinity {
        out.anti_required = plain(&a.required_during_scheduling_ignored_during_execution);
        out.anti_preferred = weighted(&a.preferred_during_scheduling_ignored_during_execution);
    }
    (out != PodAffinity::default()).then_some(out)
}

fn pod_term(term: &core::PodAffinityTerm, namespace: &str, labels: &Labels) -> PodTerm {
    let mut selector = Selector::of(term.label_selector.as_ref());
    // The API server merges these keys into the selector on create; doing it again changes nothing.
    for key in term.match_label_keys.iter().flatten() {
        if let Some(value) = labels.get(key) {
            selector.and(Requirement::equals(key, value));
        }
    }
    for key in term.mismatch_label_keys.iter().flatten() {
        if let Some(value) = labels.get(key) {
            selector.and(Requirement::differs(key, value));
        }
    }
    let mut namespaces: Vec<Box<str>> = term.namespaces.iter().flatten().map(|n| n.as_str().into()).collect();
    if namespaces.is_empty() && term.namespace_selector.is_none() {
        namespaces.push(namespace.into());
    }
    PodTerm {
        namespaces,
        namespace_selector: Selector::of(term.namespace_selector.as_ref()),
        selector,
        topology_key: term.topology_key.as_str().into(),
    }
}

fn spread(c: &core::TopologySpreadConstraint, labels: &Labels) -> SpreadConstraint {
    let mut selector = Selector::of(c.label_selector.as_ref());
    for key in c.match_label_keys.iter().flatten() {
        if let Some(value) = labels.get(key) {
            selector.and(Requirement::equals(key, value));
        }
    }
    SpreadConstraint {
        max_skew: i64::from(c.max_skew),
        topology_key: c.topology_key.as_str().into(),
        hard: c.when_unsatisfiable == "DoNotSchedule",
        selector,
        min_domains: i64::from(c.min_domains.unwrap_or(1)),
        honor_affinity: c.node_affinity_policy.as_deref() != Some("Ignore"),
        honor_taints: c.node_taints_policy.as_deref() == Some("Honor"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_names() {
        for (name, want) in [
            ("nginx", "nginx:latest"),
            ("nginx:1", "nginx:1"),
            ("localhost:5000/nginx", "localhost:5000/nginx:latest"),
            ("r/nginx@sha256:aa", "r/nginx@sha256:aa"),
        ] {
            assert_eq!(&*normalized_image(name), want);
        }
    }

    #[test]
    fn host_ports_conflict_by_address() {
        let port = |ip: &str, protocol: &str, port| HostPort { ip: ip.parse().ok(), protocol: protocol.into(), port };
        for (a, b, want) in [
            (port("", "TCP", 80), port("10.0.0.1", "TCP", 80), true),
            (port("10.0.0.2", "TCP", 80), port("10.0.0.1", "TCP", 80), false),
            (port("", "UDP", 80), port("", "TCP", 80), false),
            (port("", "TCP", 81), port("", "TCP", 80), false),
        ] {
            assert_eq!(a.conflicts(&b), want, "{a:?} {b:?}");
        }
    }
}
