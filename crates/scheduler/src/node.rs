//! A node as the scheduler sees it: what it offers, what is taken, and which pods are on it.
//! Reads the typed Node. Invariant: `requested`, `non_zero_*` and `ports` are always the sums over `pods`.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;

use crate::pod::{HostPort, PodInfo, Toleration, normalized_image};
use crate::resource::Resources;
use crate::selector::Labels;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    pub key: Box<str>,
    pub value: Box<str>,
    pub effect: Effect,
}

impl Taint {
    fn of(taint: &core::Taint) -> Option<Self> {
        let effect = match taint.effect.as_str() {
            "NoSchedule" => Effect::NoSchedule,
            "PreferNoSchedule" => Effect::PreferNoSchedule,
            "NoExecute" => Effect::NoExecute,
            _ => return None,
        };
        Some(Self { key: taint.key.as_str().into(), value: taint.value.as_deref().unwrap_or_default().into(), effect })
    }

    pub fn tolerated_by(&self, tolerations: &[Toleration]) -> bool {
        tolerations.iter().any(|t| self.matches(t))
    }

    fn matches(&self, t: &Toleration) -> bool {
        let effect = match self.effect {
            Effect::NoSchedule => "NoSchedule",
            Effect::PreferNoSchedule => "PreferNoSchedule",
            Effect::NoExecute => "NoExecute",
        };
        if !t.effect.is_empty() && &*t.effect != effect || !t.key.is_empty() && t.key != self.key {
            return false;
        }
        let number = |s: &str| s.parse::<i64>().ok();
        match &*t.operator {
            "" | "Equal" => t.value == self.value,
            "Exists" => true,
            "Gt" => number(&self.value).zip(number(&t.value)).is_some_and(|(have, bound)| have > bound),
            "Lt" => number(&self.value).zip(number(&t.value)).is_some_and(|(have, bound)| have < bound),
            _ => false,
        }
    }
}

/// What the Node object itself says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSpec {
    pub labels: Labels,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Resources,
    /// Image name to size in bytes.
    pub images: HashMap<Box<str>, i64>,
    pub zone: Box<str>,
}

impl NodeSpec {
    pub fn of(node: &core::Node) -> Self {
        let labels = Labels::new(node.metadata.labels.as_ref());
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        let images = status
            .and_then(|s| s.images.as_deref())
            .unwrap_or_default()
            .iter()
            .flat_map(|i| i.names.iter().flatten().map(move |n| (normalized_image(n), i.size_bytes.unwrap_or(0))))
            .collect();
        let zone = match (labels.get("topology.kubernetes.io/region"), labels.get("topology.kubernetes.io/zone")) {
            (None, None) => "".into(),
            (region, zone) => format!("{}:{}", region.unwrap_or_default(), zone.unwrap_or_default()).into(),
        };
        Self {
            taints: spec.and_then(|s| s.taints.as_deref()).unwrap_or_default().iter().filter_map(Taint::of).collect(),
            unschedulable: spec.and_then(|s| s.unschedulable).unwrap_or(false),
            allocatable: Resources::from_list(status.and_then(|s| s.allocatable.as_ref())),
            images,
            zone,
            labels,
        }
    }
}

/// A node with the pods on it. Cloned only to try out a preemption or a nominated pod.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    /// Its place in the cache.
    pub id: usize,
    pub name: Arc<str>,
    pub spec: NodeSpec,
    /// False while only pods are known that claim to be on it.
    pub present: bool,
    pub requested: Resources,
    pub non_zero_cpu_milli: i64,
    pub non_zero_memory_bytes: i64,
    pub ports: Vec<HostPort>,
    pub pods: Vec<Arc<PodInfo>>,
}

impl NodeInfo {
    pub fn new(id: usize, name: &str) -> Self {
        Self {
            id,
            name: name.into(),
            spec: NodeSpec::default(),
            present: false,
            requested: Resources::default(),
            non_zero_cpu_milli: 0,
            non_zero_memory_bytes: 0,
            ports: Vec::new(),
            pods: Vec::new(),
        }
    }

    pub fn add_pod(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.non_zero_cpu_milli += pod.non_zero_cpu_milli;
        self.non_zero_memory_bytes += pod.non_zero_memory_bytes;
        self.ports.extend(pod.ports.iter().cloned());
        self.pods.push(pod);
    }

    /// Takes the pod off; false if it was not here.
    pub fn remove_pod(&mut self, uid: &str) -> bool {
        let Some(at) = self.pods.iter().position(|p| &*p.uid == uid) else { return false };
        let pod = self.pods.swap_remove(at);
        self.requested.sub(&pod.requests);
        self.non_zero_cpu_milli -= pod.non_zero_cpu_milli;
        self.non_zero_memory_bytes -= pod.non_zero_memory_bytes;
        for port in &pod.ports {
            if let Some(i) = self.ports.iter().position(|p| p == port) {
                self.ports.swap_remove(i);
            }
        }
        true
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.spec.labels.get(key)
    }
}
