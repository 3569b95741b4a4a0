//! Notices nodes that stopped reporting: marks them and their pods, and taints them as their conditions say.
//! Reads: Node, Lease (kube-node-lease), Pod. Writes: Node status and taints, Pod status, Event. Invariant: when every node is
//! silent at once, nothing is evicted.

mod health;

use std::collections::HashMap;
use std::sync::Arc;

use client::{Informer, Recorder};
use futures::future::BoxFuture;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, Taint};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::context::{Ctx, During, Result};
use crate::{clock, pod, pod_condition};
use health::Heard;

const LEASES: &str = "kube-node-lease";
pub const BY_NODE: &str = "node";
/// A zone with this part of its nodes not ready is disrupted.
const DISRUPTED: f64 = 0.55;
/// Up to this many nodes a disrupted zone evicts nothing.
const LARGE_ZONE: usize = 50;

struct Controller {
    ctx: Ctx,
    nodes: Informer<Node>,
    leases: Informer<Lease>,
    pods: Informer<Pod>,
    recorder: Recorder,
}

/// What the loop remembers between passes; bounded by the nodes there are.
#[derive(Default)]
struct Memory {
    heard: HashMap<String, Heard>,
    ready: HashMap<String, String>,
    /// When the next node of a zone may be tainted for eviction.
    next_eviction: HashMap<String, Instant>,
}

pub fn start(ctx: Ctx) -> BoxFuture<'static, ()> {
    let nodes = ctx.informers.of::<Node>();
    let leases = ctx.informers.of::<Lease>();
    let pods = ctx.informers.of::<Pod>();
    pods.add_index(BY_NODE, |pod| {
        Some(pod::node_name(pod).to_string()).filter(|name| !name.is_empty()).into_iter().collect()
    });
    let recorder = ctx.recorder("node-controller");
    let changed = Arc::new(Notify::new());
    let wake = changed.clone();
    nodes.on_event(move |event| {
        // taints by condition must not wait for the next round; a heartbeat alone is no reason to look
        let client::Event::Modified { old, new } = event else { return wake.notify_one() };
        let conditions = |node: &Node| {
            let list = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
            list.map(|condition| (condition.type_.clone(), condition.status.clone())).collect::<Vec<_>>()
        };
        if old.spec != new.spec || conditions(old) != conditions(new) {
            wake.notify_one();
        }
    });
    let this = Controller { ctx, nodes, leases, pods, recorder };
    Box::pin(async move {
        let shutdown = this.ctx.shutdown.clone();
        tokio::select! {
            () = this.watch_over(&changed) => {}
            () = shutdown.cancelled() => {}
        }
    })
}

impl Controller {
    async fn watch_over(&self, changed: &Notify) {
        self.nodes.synced().await;
        self.leases.synced().await;
        self.pods.synced().await;
        let mut memory = Memory::default();
        loop {
            self.pass(&mut memory).await;
            tokio::select! {
                () = tokio::time::sleep(self.ctx.config.node_monitor_period) => {}
                () = changed.notified() => {}
            }
        }
    }

    async fn pass(&self, memory: &mut Memory) {
        let nodes = self.nodes.list();
        let known: std::collections::HashSet<String> = nodes.iter().map(|node| node.name_any()).collect();
        memory.heard.retain(|name, _| known.contains(name));
        memory.ready.retain(|name, _| known.contains(name));
        let mut judged = Vec::with_capacity(nodes.len());
        for node in nodes {
            match self.judge(&node, memory).await {
                Ok(node) => judged.push(node),
                Err(error) => {
                    tracing::debug!(node = %node.name_any(), %error, "cannot update the node, will retry");
                    judged.push(node);
                }
            }
        }
        let all_silent = !judged.is_empty() && judged.iter().all(|node| health::ready(node) != "True");
        for node in &judged {
            if let Err(error) = self.settle(node, &judged, all_silent, memory).await {
                tracing::debug!(node = %node.name_any(), %error, "cannot taint the node, will retry");
            }
        }
    }

    /// Writes Unknown for a node that fell silent; returns the node as it is afterwards.
    async fn judge(&self, node: &Arc<Node>, memory: &mut Memory) -> Result<Arc<Node>> {
        let name = node.name_any();
        let lease = self.leases.get(LEASES, &name);
        let renewed = lease.as_ref().and_then(|lease| lease.spec.as_ref()).and_then(|spec| spec.renew_time.as_ref());
        let now = Instant::now();
        let heard = Heard::note(memory.heard.remove(&name), node, renewed, now);
        let config = &self.ctx.config;
        let reported = health::condition(node, "Ready").is_some();
        let grace = if reported { config.node_monitor_grace_period } else { config.node_startup_grace_period };
        let stale = heard.is_stale(grace, now);
        memory.heard.insert(name.clone(), heard);
        let Some(conditions) = stale.then(|| health::unknown(node, clock::now())).flatten() else {
            return Ok(node.clone());
        };
        let api: Api<Node> = Api::all(self.ctx.client.clone());
        let patch = json!({
            "metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
            "status": {"conditions": conditions},
        });
        let patched = api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await;
        Ok(Arc::new(patched.during(|| format!("cannot mark node {name} as unknown"))?))
    }

    /// Taints, and marks the pods of a node that is not ready.
    async fn settle(&self, node: &Arc<Node>, all: &[Arc<Node>], all_silent: bool, memory: &mut Memory) -> Result<()> {
        let name = node.name_any();
        let ready = health::ready(node).to_string();
        let before = memory.ready.insert(name.clone(), ready.clone());
        if ready != "True" && before.as_deref() == Some("True") {
            let about = ObjectReference {
                kind: Some("Node".into()),
                name: Some(name.clone()),
                uid: node.uid(),
                api_version: Some("v1".into()),
                ..ObjectReference::default()
            };
            self.recorder.event(&about, "Normal", "NodeNotReady", format!("Node {name} status is now: NodeNotReady"));
        }
        let has_eviction = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).any(is_eviction);
        let evict = ready != "True" && !has_eviction && !all_silent && self.may_evict(node, all, memory);
        if let Some(taints) = health::taints(node, evict, all_silent, clock::now()) {
            self.write_taints(node, taints).await?;
        }
        if ready == "False" || ready == "Unknown" {
            self.mark_pods(node).await?;
        }
        Ok(())
    }

    /// Spreads evictions over time, and stops them where too much of a zone is silent to believe it.
    fn may_evict(&self, node: &Node, all: &[Arc<Node>], memory: &mut Memory) -> bool {
        let zone = zone_of(node);
        let same: Vec<&Arc<Node>> = all.iter().filter(|other| zone_of(other) == zone).collect();
        let not_ready = same.iter().filter(|other| health::ready(other) != "True").count();
        let disrupted = not_ready > 2 && not_ready < same.len() && not_ready as f64 / same.len() as f64 >= DISRUPTED;
        let rate = match (disrupted, same.len() > LARGE_ZONE) {
            (true, false) => return false,
            (true, true) => self.ctx.config.node_eviction_rate / 10.0,
            (false, _) => self.ctx.config.node_eviction_rate,
        };
        let now = Instant::now();
        if memory.next_eviction.get(&zone).is_some_and(|at| *at > now) || rate <= 0.0 {
            return false;
        }
        memory.next_eviction.retain(|_, at| *at > now);
        memory.next_eviction.insert(zone, now + std::time::Duration::from_secs_f64(1.0 / rate));
        true
    }

    async fn write_taints(&self, node: &Node, taints: Vec<Taint>) -> Result<()> {
        let name = node.name_any();
        let api: Api<Node> = Api::all(self.ctx.client.clone());
        // a merge patch replaces the whole list, so it holds only for the version it was made from
        let patch = json!({
            "metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
            "spec": {"taints": taints},
        });
        let outcome = api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
        outcome.unless_changed(|| format!("cannot taint node {name}")).map(drop)
    }

    /// Nobody on the node can say any more that its pods are ready.
    async fn mark_pods(&self, node: &Node) -> Result<()> {
        for pod in self.pods.by_index(BY_NODE, &node.name_any()).iter().filter(|pod| pod::is_ready(pod)) {
            let key = client::Key::of(pod.as_ref());
            let mut condition = pod::condition(pod, "Ready").cloned().unwrap_or_default();
            condition.status = "False".to_string();
            condition.last_transition_time = Some(clock::now_time());
            condition = pod_condition::merged(pod, condition);
            let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
            let api: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
            match api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                Ok(_) => {
                    let about = client::reference(pod.as_ref());
                    self.recorder.event(&about, "Warning", "NodeNotReady", "Node is not ready");
                }
                Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => {}
                Err(error) => return Err(error).during(|| format!("cannot mark pod {key} as not ready")),
            }
        }
        Ok(())
    }
}

fn is_eviction(taint: &Taint) -> bool {
    taint.effect == "NoExecute" && (taint.key == health::NOT_READY || taint.key == health::UNREACHABLE)
}

fn zone_of(node: &Node) -> String {
    let label = |key: &str| node.labels().get(key).cloned().unwrap_or_default();
    format!("{}/{}", label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
}
