//! The node object: registers it, keeps its status true, renews its lease.
//!
//! Reads the runtime's health and the machine; writes the Node, its status and its Lease in `kube-node-lease`. Invariant:
//! labels, taints and conditions others put on the node are kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;
use crate::node_facts::{self, Facts};
use crate::node_status::{self, Health};
use crate::pleg::Heard;

/// How often the node is looked at, once it is ready.
const CHECK: Duration = Duration::from_secs(10);
/// And before that.
const EAGER_CHECK: Duration = Duration::from_millis(200);
/// And while the runtime does not answer.
const SILENT_CHECK: Duration = Duration::from_secs(1);
/// An unchanged status is written again after this.
const REPORT: Duration = Duration::from_secs(300);
const LEASE_RENEW: Duration = Duration::from_secs(10);
const LEASE_SECONDS: i32 = 40;
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// A runtime silent for longer is down.
const RUNTIME_SILENCE: Duration = Duration::from_secs(10);

/// Keeps the Node object of this kubelet.
pub(crate) struct NodeKeeper {
    pub(crate) agent: Arc<Agent>,
    pub(crate) facts: Facts,
    pub(crate) port: u16,
    pub(crate) heard: Heard,
    nodes: Api<Node>,
    written: Option<(Instant, NodeStatus)>,
    images: (Option<Instant>, Vec<cri::v1::Image>),
    /// The runtime answered when last asked.
    answered: bool,
}

impl NodeKeeper {
    pub(crate) fn new(agent: Arc<Agent>, facts: Facts, port: u16, heard: Heard) -> NodeKeeper {
        let nodes = Api::all(agent.client.clone());
        NodeKeeper { agent, facts, port, heard, nodes, written: None, images: (None, Vec::new()), answered: false }
    }

    /// Keeps the node until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut failures = 0u32;
        loop {
            let pause = match self.turn().await {
                Ok(ready) => {
                    failures = 0;
                    match (ready, self.answered) {
                        (true, true) => CHECK,
                        (_, false) => SILENT_CHECK,
                        (false, true) => EAGER_CHECK,
                    }
                }
                Err(error) => {
                    failures += 1;
                    let pause = Duration::from_millis(200) * 2u32.saturating_pow(failures.min(6));
                    if failures > 3 {
                        tracing::warn!(%error, retry_ms = pause.as_millis() as u64, "node not reported");
                    }
                    pause.min(CHECK)
                }
            };
            // a runtime that comes or goes is reported at once
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                () = self.heard.changed() => {}
            }
        }
    }

    /// Looks and reports; true if the node is ready.
    async fn turn(&mut self) -> Result<bool, kube::Error> {
        let health = self.look().await;
        let previous = match &self.written {
            Some((_, status)) => status.clone(),
            None => self.register().await?,
        };
        let status = node_status::plan(
            &self.agent.config,
            &self.facts,
            &health,
            self.agent.registry.node_ips(),
            self.port,
            &previous,
            Timestamp::now(),
        );
        let ready = health.not_ready.is_none();
        if let Some((at, written)) = &self.written
            && at.elapsed() < REPORT
            && node_status::same(written, &status)
        {
            return Ok(ready);
        }
        self.write(&status).await?;
        self.tell(&previous, &status);
        self.written = Some((Instant::now(), status));
        Ok(ready)
    }

    /// Events for conditions that changed.
    fn tell(&self, previous: &NodeStatus, now: &NodeStatus) {
        for condition in now.conditions.iter().flatten() {
            let old = previous.conditions.iter().flatten().find(|old| old.type_ == condition.type_);
            if old.is_some_and(|old| old.status == condition.status) {
                continue;
            }
            let on = condition.status == "True";
            let reason = match (condition.type_.as_str(), on) {
                ("Ready", true) => "NodeReady",
                ("Ready", false) => "NodeNotReady",
                ("MemoryPressure", true) => "NodeHasInsufficientMemory",
                ("MemoryPressure", false) => "NodeHasSufficientMemory",
                ("DiskPressure", true) => "NodeHasDiskPressure",
                ("DiskPressure", false) => "NodeHasNoDiskPressure",
                ("PIDPressure", true) => "NodeHasInsufficientPID",
                _ => "NodeHasSufficientPID",
            };
            let message = format!("Node {} status is now: {reason}", self.agent.config.node_name);
            self.agent.events.node("Normal", reason, &message);
        }
    }

    async fn write(&mut self, status: &NodeStatus) -> Result<(), kube::Error> {
        let mut body = serde_json::to_value(status).map_err(kube::Error::SerdeError)?;
        if let Some(list) = body["addresses"].as_array_mut() {
            // merged by type otherwise, of which two addresses may share one
            list.insert(0, json!({"$patch": "replace"}));
        }
        let patch = Patch::Strategic(json!({"status": body}));
        match self.nodes.patch_status(&self.agent.config.node_name, &PatchParams::default(), &patch).await {
            Ok(_) => Ok(()),
            Err(error) => {
                if client::is_not_found(&error) {
                    // somebody deleted the node: it is registered again
                    self.written = None;
                }
                Err(error)
            }
        }
    }

    /// Creates the node, or takes over the one there is; returns the status it has.
    async fn register(&self) -> Result<NodeStatus, kube::Error> {
        let config = &self.agent.config;
        let labels = self.labels();
        let node = Node {
            metadata: ObjectMeta {
                name: Some(config.node_name.clone()),
                labels: Some(labels.clone()),
                annotations: Some(BTreeMap::from([(
                    "volumes.kubernetes.io/controller-managed-attach-detach".to_string(),
                    "true".to_string(),
                )])),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                pod_cidr: config.pod_cidr.clone(),
                pod_cidrs: config.pod_cidr.clone().map(|cidr| vec![cidr]),
                provider_id: config.provider_id.clone(),
                taints: Some(config.register_taints.clone()).filter(|list| !list.is_empty()),
                ..NodeSpec::default()
            }),
            status: None,
        };
        match self.nodes.create(&PostParams::default(), &node).await {
            Ok(made) => {
                tracing::info!(node = %config.node_name, "registered");
                return Ok(made.status.unwrap_or_default());
            }
            Err(error) if client::is_already_exists(&error) => {}
            Err(error) => return Err(error),
        }
        let known = self.nodes.get(&config.node_name).await?;
        let has = known.metadata.labels.clone().unwrap_or_default();
        if labels.iter().any(|(name, value)| has.get(name) != Some(value)) {
            let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
            self.nodes.patch(&config.node_name, &PatchParams::default(), &patch).await?;
        }
        Ok(known.status.unwrap_or_default())
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let arch = node_facts::architecture();
        let own = [
            ("beta.kubernetes.io/arch", arch),
            ("beta.kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", arch),
            ("kubernetes.io/hostname", &self.agent.config.node_name),
            ("kubernetes.io/os", "linux"),
        ];
        let mut labels: BTreeMap<_, _> = own.map(|(name, value)| (name.to_string(), value.to_string())).into();
        labels.extend(self.agent.config.node_labels.clone());
        labels
    }

    async fn look(&mut self) -> Health {
        let agent = self.agent.clone();
        let mut health = Health {
            available_memory_bytes: node_facts::available_memory_bytes(),
            disk: node_facts::disk(&agent.config.data_dir).unwrap_or_default(),
            pid_max: number("/proc/sys/kernel/pid_max"),
            pids: processes(),
            ..Health::default()
        };
        let answer = agent.cri.status(false).await;
        self.answered = answer.is_ok();
        match answer {
            Ok(answer) => {
                health.not_ready = not_ready(&answer.status.unwrap_or_default());
                health.supplemental_groups_policy =
                    answer.features.is_some_and(|features| features.supplemental_groups_policy);
                health.handlers = answer.runtime_handlers;
            }
            Err(error) => {
                let down = self.heard.silent_for() > RUNTIME_SILENCE;
                tracing::debug!(%error, down, "runtime does not answer");
                health.not_ready = down.then(|| "container runtime is down".to_string());
            }
        }
        if let Ok(version) = agent.cri.version().await {
            health.runtime_version = format!("{}://{}", version.runtime_name, version.runtime_version);
            agent.runtime_name.get_or_init(|| version.runtime_name);
        } else if let Some((_, written)) = &self.written {
            let known = written.node_info.as_ref().map(|info| info.container_runtime_version.clone());
            health.runtime_version = known.unwrap_or_default();
        }
        let due = self.images.0.is_none_or(|at| at.elapsed() > CHECK);
        if due && let Ok(images) = agent.cri.image_list().await {
            self.images = (Some(Instant::now()), images);
        }
        health.images = self.images.1.clone();
        health
    }
}

/// What the runtime says is missing, in upstream's words.
fn not_ready(status: &cri::v1::RuntimeStatus) -> Option<String> {
    let find = |kind: &str| status.conditions.iter().find(|condition| condition.r#type == kind);
    let words = |condition: &cri::v1::RuntimeCondition| {
        format!("{}={} reason:{} message:{}", condition.r#type, condition.status, condition.reason, condition.message)
    };
    let mut problems = Vec::new();
    match find("RuntimeReady") {
        Some(runtime) if runtime.status => {}
        Some(runtime) => problems.push(format!("container runtime not ready: {}", words(runtime))),
        None => problems.push("container runtime status check may not have completed yet".to_string()),
    }
    match find("NetworkReady") {
        Some(network) if network.status => {}
        Some(network) => problems.push(format!("container runtime network not ready: {}", words(network))),
        None => problems.push("container runtime network not ready: NetworkReady condition is missing".to_string()),
    }
    match problems.len() {
        0 => None,
        1 => problems.pop(),
        _ => Some(format!("[{}]", problems.join(", "))),
    }
}

fn number(path: &str) -> i64 {
    std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Threads on the machine: the second number of the fourth word of /proc/loadavg.
fn processes() -> i64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().nth(3).and_then(|word| word.split_once('/')?.1.parse().ok()).unwrap_or(0)
}

/// Renews the node's lease until `shutdown`.
pub(crate) async fn renew_lease(agent: Arc<Agent>, shutdown: CancellationToken) {
    let mut failures = 0u32;
    loop {
        let pause = match renew(&agent).await {
            Ok(()) => {
                failures = 0;
                LEASE_RENEW
            }
            Err(error) => {
                failures += 1;
                if failures > 5 {
                    tracing::warn!(%error, "node lease not renewed");
                }
                (Duration::from_millis(200) * 2u32.saturating_pow(failures.min(5))).min(LEASE_RENEW)
            }
        };
        tokio::select! { () = shutdown.cancelled() => return, () = tokio::time::sleep(pause) => {} }
    }
}

async fn renew(agent: &Agent) -> Result<(), kube::Error> {
    let name = &agent.config.node_name;
    let leases: Api<Lease> = Api::namespaced(agent.client.clone(), LEASE_NAMESPACE);
    let now = MicroTime(Timestamp::now());
    let patch = Patch::Merge(json!({"spec": {"renewTime": now, "holderIdentity": name}}));
    match leases.patch(name, &PatchParams::default(), &patch).await {
        Ok(_) => return Ok(()),
        Err(error) if client::is_not_found(&error) => {}
        Err(error) => return Err(error),
    }
    let nodes: Api<Node> = Api::all(agent.client.clone());
    let node = nodes.get(name).await?;
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_string(),
                kind: "Node".to_string(),
                name: name.clone(),
                uid: node.metadata.uid.unwrap_or_default(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.clone()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    };
    leases.create(&PostParams::default(), &lease).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cri::v1::{RuntimeCondition, RuntimeStatus};

    #[test]
    fn tells_what_the_runtime_lacks() {
        let condition = |kind: &str, status: bool| RuntimeCondition {
            r#type: kind.to_string(),
            status,
            reason: "NetworkPluginNotReady".to_string(),
            message: "cni plugin not initialized".to_string(),
        };
        let status = |network: bool| RuntimeStatus {
            conditions: vec![condition("RuntimeReady", true), condition("NetworkReady", network)],
        };
        assert_eq!(not_ready(&status(true)), None);
        assert_eq!(
            not_ready(&status(false)).as_deref(),
            Some(
                "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:cni plugin not initialized"
            )
        );
    }
}
