//! The cluster as the scheduler believes it to be: nodes, the pods on them, pods assumed to be bound, nominations,
//! and the few other objects that plugins ask about.
//! Written by informer events and by the scheduling cycle; read by plugins. Invariant: every counted pod is on exactly
//! one node and in exactly one class; an assumed pod is replaced by the informer's version or forgotten.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::class::Classes;
use crate::node::{Effect, NodeInfo, NodeSpec};
use crate::pod::PodInfo;
use crate::selector::{Labels, Selector};
use crate::topology::{Topologies, Topology};

/// Index of a node in the cache; valid as long as the node is.
pub type NodeId = usize;

pub(crate) struct PodState {
    info: Arc<PodInfo>,
    node: NodeId,
    class: usize,
    /// Some for an assumed pod: the time after which it is forgotten, None while it is still being bound.
    assumed: Option<Option<Instant>>,
}

/// A PodDisruptionBudget, as preemption needs it.
#[derive(Clone, Debug)]
pub struct Budget {
    pub namespace: Box<str>,
    pub selector: Selector,
    pub disruptions_allowed: i32,
    /// Names of pods whose disruption is already counted.
    pub disrupted: Vec<Box<str>>,
}

/// Selectors by namespace and name, of Services or of one kind of controller.
pub type Selectors = HashMap<Box<str>, HashMap<Box<str>, Selector>>;

#[derive(Default)]
pub struct Cache {
    nodes: Vec<NodeInfo>,
    index: HashMap<Arc<str>, NodeId>,
    free: Vec<NodeId>,
    order: Vec<NodeId>,
    order_stale: bool,
    pub(crate) pods: HashMap<Arc<str>, PodState>,
    pub(crate) assumed: usize,
    pub classes: Classes,
    nominated: HashMap<Box<str>, Vec<Arc<PodInfo>>>,
    nominated_count: usize,
    /// On how many nodes an image is.
    image_nodes: HashMap<Box<str>, usize>,
    soft_tainted: usize,
    topologies: Topologies,
    pub namespaces: HashMap<Box<str>, Labels>,
    pub budgets: BTreeMap<Box<str>, Budget>,
    pub services: Selectors,
    /// Selectors of ReplicaSets, ReplicationControllers and StatefulSets, by kind.
    pub controllers: HashMap<&'static str, Selectors>,
}

impl Cache {
    pub fn node(&self, id: NodeId) -> &NodeInfo {
        &self.nodes[id]
    }

    pub fn node_id(&self, name: &str) -> Option<NodeId> {
        self.index.get(name).copied().filter(|id| self.nodes[*id].present)
    }

    /// The nodes there are, alternating between zones.
    pub fn order(&self) -> &[NodeId] {
        &self.order
    }

    pub fn image_node_count(&self, image: &str) -> usize {
        self.image_nodes.get(image).copied().unwrap_or(0)
    }

    /// Whether any node carries a PreferNoSchedule taint.
    pub fn has_soft_taints(&self) -> bool {
        self.soft_tainted > 0
    }

    fn slot(&mut self, name: &str) -> NodeId {
        if let Some(id) = self.index.get(name) {
            return *id;
        }
        let id = self.free.pop().unwrap_or(self.nodes.len());
        let node = NodeInfo::new(id, name);
        self.index.insert(node.name.clone(), id);
        if id == self.nodes.len() {
            self.nodes.push(node);
        } else {
            self.nodes[id] = node;
        }
        id
    }

    fn count_node(&mut self, id: NodeId, sign: i64) {
        let spec = &self.nodes[id].spec;
        if spec.taints.iter().any(|t| t.effect == Effect::PreferNoSchedule) {
            self.soft_tainted = self.soft_tainted.saturating_add_signed(sign as isize);
        }
        for image in spec.images.keys() {
            if sign > 0 {
                *self.image_nodes.entry(image.clone()).or_default() += 1;
            } else if let Some(n) = self.image_nodes.get_mut(image) {
                *n -= 1;
                if *n == 0 {
                    self.image_nodes.remove(image);
                }
            }
        }
    }

    /// Adds a node or replaces what is known of it; its pods stay.
    pub fn set_node(&mut self, name: &str, spec: NodeSpec) -> NodeId {
        let id = self.slot(name);
        if self.nodes[id].present {
            self.count_node(id, -1);
            self.order_stale |= self.nodes[id].spec.zone != spec.zone;
        } else {
            self.order_stale = true;
        }
        if !self.nodes[id].present || self.nodes[id].spec.labels != spec.labels {
            self.topologies.clear();
        }
        self.nodes[id].spec = spec;
        self.nodes[id].present = true;
        self.count_node(id, 1);
        id
    }

    pub fn remove_node(&mut self, name: &str) {
        let Some(id) = self.index.get(name).copied() else { return };
        if !self.nodes[id].present {
            return;
        }
        self.count_node(id, -1);
        self.nodes[id].present = false;
        self.nodes[id].spec = NodeSpec::default();
        self.order_stale = true;
        self.topologies.clear();
        self.release(id);
    }

    /// Which nodes share a value of a label.
    pub fn topology(&self, key: &str) -> Arc<Topology> {
        self.topologies.get(key, &self.nodes)
    }

    /// Labels of a namespace; None if it is not known.
    pub fn namespace_labels(&self, name: &str) -> Option<&Labels> {
        self.namespaces.get(name)
    }

    /// Gives the slot back once neither the node nor a pod on it is left.
    fn release(&mut self, id: NodeId) {
        if !self.nodes[id].present && self.nodes[id].pods.is_empty() {
            self.index.remove(&self.nodes[id].name);
            self.free.push(id);
        }
    }

    /// Brings the node order up to date; called at the start of every cycle.
    pub fn refresh_order(&mut self) {
        if !std::mem::take(&mut self.order_stale) {
            return;
        }
        let mut zones: BTreeMap<&str, Vec<NodeId>> = BTreeMap::new();
        let mut named: Vec<_> = self.index.values().copied().filter(|id| self.nodes[*id].present).collect();
        named.sort_unstable();
        for id in named {
            zones.entry(&self.nodes[id].spec.zone).or_default().push(id);
        }
        let longest = zones.values().map(Vec::len).max().unwrap_or(0);
        self.order = (0..longest).flat_map(|i| zones.values().filter_map(move |ids| ids.get(i).copied())).collect();
    }

    /// Counts a pod that the API server says is on a node. Confirms it if it was assumed.
    pub fn add_pod(&mut self, pod: Arc<PodInfo>) {
        self.drop_pod(&pod.uid);
        let node = pod.node_name.clone();
        self.place(pod, &node, None);
    }

    /// Counts a pod on the node chosen for it, before the API server knows.
    pub fn assume(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.drop_pod(&pod.uid);
        self.place(pod, node, Some(None));
    }

    /// Starts the clock after which an assumed pod that the informer never confirmed is forgotten.
    pub fn finish_binding(&mut self, uid: &str, deadline: Instant) {
        if let Some(state) = self.pods.get_mut(uid).filter(|s| s.assumed.is_some()) {
            state.assumed = Some(Some(deadline));
        }
    }

    fn place(&mut self, pod: Arc<PodInfo>, node: &str, assumed: Option<Option<Instant>>) {
        let id = self.slot(node);
        let class = self.classes.add(&pod, id);
        self.nodes[id].add_pod(pod.clone());
        self.assumed += usize::from(assumed.is_some());
        self.pods.insert(pod.uid.clone(), PodState { info: pod, node: id, class, assumed });
    }

    fn drop_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let state = self.pods.remove(uid)?;
        self.assumed -= usize::from(state.assumed.is_some());
        self.nodes[state.node].remove_pod(uid);
        self.classes.remove(state.class, &state.info, state.node);
        self.release(state.node);
        Some(state.info)
    }

    /// Forgets a pod, whether known from the API server or only assumed.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        self.drop_pod(uid)
    }

    /// Forgets a pod only if it is assumed: a confirmed one is really there.
    pub fn forget(&mut self, uid: &str) -> bool {
        self.is_assumed(uid) && self.drop_pod(uid).is_some()
    }

    pub fn is_assumed(&self, uid: &str) -> bool {
        self.pods.get(uid).is_some_and(|s| s.assumed.is_some())
    }

    pub fn has_pod(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// Forgets assumed pods whose deadline has passed and returns them.
    pub fn expire(&mut self, now: Instant) -> Vec<Arc<PodInfo>> {
        if self.assumed == 0 {
            return Vec::new();
        }
        let late: Vec<_> = self
            .pods
            .iter()
            .filter(|(_, s)| matches!(s.assumed, Some(Some(deadline)) if deadline <= now))
            .map(|(uid, _)| uid.clone())
            .collect();
        late.iter().filter_map(|uid| self.drop_pod(uid)).collect()
    }

    /// Notes that a pod waits for room on a node that preemption clears for it.
    pub fn nominate(&mut self, pod: &Arc<PodInfo>, node: &str) {
        self.remove_nomination(&pod.uid);
        self.nominated.entry(node.into()).or_default().push(pod.clone());
        self.nominated_count += 1;
    }

    pub fn remove_nomination(&mut self, uid: &str) {
        if self.nominated_count == 0 {
            return;
        }
        let mut removed = 0;
        self.nominated.retain(|_, pods| {
            let before = pods.len();
            pods.retain(|p| &*p.uid != uid);
            removed += before - pods.len();
            !pods.is_empty()
        });
        self.nominated_count -= removed;
    }

    /// Pods nominated to a node.
    pub fn nominated(&self, node: &str) -> &[Arc<PodInfo>] {
        if self.nominated_count == 0 {
            return &[];
        }
        self.nominated.get(node).map_or(&[], Vec::as_slice)
    }

    /// The node a pod is nominated to.
    pub fn nomination(&self, uid: &str) -> Option<&str> {
        if self.nominated_count == 0 {
            return None;
        }
        self.nominated.iter().find(|(_, pods)| pods.iter().any(|p| &*p.uid == uid)).map(|(n, _)| &**n)
    }
}

/// How long an assumed pod may wait for the informer after its binding succeeded.
pub const ASSUMED_TTL: Duration = Duration::from_secs(15 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node_spec, pod_info};

    #[test]
    fn order_alternates_between_zones() {
        let mut cache = Cache::default();
        for (name, zone) in [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b")] {
            cache.set_node(
                name,
                node_spec(&format!(r#"{{"metadata":{{"labels":{{"topology.kubernetes.io/zone":"{zone}"}}}}}}"#)),
            );
        }
        cache.refresh_order();
        let names: Vec<_> = cache.order().iter().map(|id| &*cache.node(*id).name).collect();
        assert_eq!(names, ["a1", "b1", "a2", "a3"]);
        cache.remove_node("a1");
        cache.refresh_order();
        assert_eq!(cache.order().len(), 3);
    }

    #[test]
    fn assumed_pods_are_confirmed_forgotten_or_expire() {
        let now = Instant::now();
        let mut cache = Cache::default();
        cache.set_node("n", NodeSpec::default());
        let pod = |name: &str, node: &str| {
            Arc::new(pod_info(&format!(
                r#"{{"metadata":{{"name":"{name}","namespace":"d","uid":"{name}"}},"spec":{{"nodeName":"{node}","containers":[{{"name":"c","resources":{{"requests":{{"cpu":"1"}}}}}}]}}}}"#
            )))
        };
        for name in ["a", "b", "c"] {
            cache.assume(pod(name, ""), "n");
        }
        assert_eq!((cache.node(0).requested.cpu_milli, cache.assumed), (3000, 3));
        cache.add_pod(pod("a", "n"));
        assert!(cache.forget("b") && !cache.forget("a"));
        cache.finish_binding("c", now + ASSUMED_TTL);
        assert!(cache.expire(now).is_empty());
        assert_eq!(cache.expire(now + ASSUMED_TTL).len(), 1);
        assert_eq!((cache.node(0).requested.cpu_milli, cache.assumed, cache.pods.len()), (1000, 0, 1));
    }

    #[test]
    fn a_pod_on_an_unknown_node_waits_for_the_node() {
        let mut cache = Cache::default();
        let pod = Arc::new(pod_info(r#"{"metadata":{"uid":"u"},"spec":{"nodeName":"n","containers":[]}}"#));
        cache.add_pod(pod);
        assert_eq!(cache.node_id("n"), None);
        let id = cache.set_node("n", NodeSpec::default());
        assert_eq!(cache.node(id).pods.len(), 1);
        cache.remove_node("n");
        cache.remove_pod("u");
        assert!(cache.index.is_empty());
    }
}
