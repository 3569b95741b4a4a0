//! The node's status as upstream writes it: conditions, addresses, capacity, images. Pure.
//!
//! Reads facts, pressures and the runtime's health it is given. Invariant: a condition's transition time changes only with
//! its status.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures, NodeRuntimeHandler,
    NodeRuntimeHandlerFeatures, NodeStatus, NodeSwapStatus, NodeSystemInfo,
};

use crate::Config;
use crate::node_facts::{self, Disk, Facts};
use crate::status::time;

/// Images shown in a node's status: upstream's limit.
const MAX_IMAGES: usize = 50;

/// What changes from one look to the next.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// Why the node is not ready; none when it is.
    pub not_ready: Option<String>,
    pub available_memory_bytes: i64,
    pub disk: Disk,
    /// Processes there may be, and there are.
    pub pid_max: i64,
    pub pids: i64,
    pub images: Vec<cri::v1::Image>,
    pub handlers: Vec<cri::v1::RuntimeHandler>,
    pub supplemental_groups_policy: bool,
    /// `containerd://1.6.20`.
    pub runtime_version: String,
}

/// The whole status. `previous` gives transition times.
pub fn plan(
    config: &Config,
    facts: &Facts,
    health: &Health,
    node_ips: &[String],
    port: u16,
    previous: &NodeStatus,
    now: Timestamp,
) -> NodeStatus {
    let (capacity, allocatable) = node_facts::resources(facts, config.max_pods, &config.reserved);
    let address = |kind: &str, address: &str| NodeAddress { type_: kind.to_string(), address: address.to_string() };
    let mut addresses: Vec<NodeAddress> = node_ips.iter().map(|ip| address("InternalIP", ip)).collect();
    addresses.push(address("Hostname", &config.node_name));
    NodeStatus {
        addresses: Some(addresses),
        capacity: Some(capacity),
        allocatable: Some(allocatable),
        conditions: Some(conditions(health, previous, now)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(port) }),
        }),
        images: Some(images(&health.images)).filter(|list| !list.is_empty()),
        node_info: Some(NodeSystemInfo {
            architecture: node_facts::architecture().to_string(),
            boot_id: facts.boot_id.clone(),
            container_runtime_version: health.runtime_version.clone(),
            kernel_version: facts.kernel.clone(),
            kubelet_version: meta::KUBERNETES_VERSION.to_string(),
            machine_id: facts.machine_id.clone(),
            operating_system: "linux".to_string(),
            os_image: facts.os_image.clone(),
            system_uuid: facts.system_uuid.clone(),
            swap: (facts.swap_bytes > 0).then_some(NodeSwapStatus { capacity: Some(facts.swap_bytes) }),
            ..NodeSystemInfo::default()
        }),
        runtime_handlers: Some(handlers(&health.handlers)).filter(|list| !list.is_empty()),
        features: health.supplemental_groups_policy.then_some(NodeFeatures { supplemental_groups_policy: Some(true) }),
        ..NodeStatus::default()
    }
}

fn images(all: &[cri::v1::Image]) -> Vec<ContainerImage> {
    let mut sorted: Vec<_> =
        all.iter().filter(|image| !image.repo_tags.is_empty() || !image.repo_digests.is_empty()).collect();
    sorted.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    let shown = sorted.into_iter().take(MAX_IMAGES).map(|image| ContainerImage {
        names: Some(image.repo_digests.iter().chain(&image.repo_tags).take(5).cloned().collect()),
        size_bytes: Some(image.size as i64),
    });
    shown.collect()
}

fn handlers(all: &[cri::v1::RuntimeHandler]) -> Vec<NodeRuntimeHandler> {
    let shown = all.iter().map(|handler| NodeRuntimeHandler {
        name: Some(handler.name.clone()),
        features: handler.features.as_ref().map(|features| NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(features.recursive_read_only_mounts),
            user_namespaces: Some(features.user_namespaces),
        }),
    });
    shown.collect()
}

fn conditions(health: &Health, previous: &NodeStatus, now: Timestamp) -> Vec<NodeCondition> {
    let memory = health.available_memory_bytes < 100 << 20;
    let disk = &health.disk;
    let full = disk.total_bytes > 0 && disk.available_bytes < disk.total_bytes / 10
        || disk.inodes > 0 && disk.inodes_free < disk.inodes / 20;
    let crowded = health.pid_max > 0 && health.pids > health.pid_max / 10 * 9;
    // Status, and reason and message of either.
    let fine = ["KubeletReady", "kubelet is posting ready status"];
    let why = health.not_ready.as_deref().unwrap_or_default();
    let list = [
        (
            "MemoryPressure",
            memory,
            ["KubeletHasInsufficientMemory", "kubelet has insufficient memory available"],
            ["KubeletHasSufficientMemory", "kubelet has sufficient memory available"],
        ),
        (
            "DiskPressure",
            full,
            ["KubeletHasDiskPressure", "kubelet has disk pressure"],
            ["KubeletHasNoDiskPressure", "kubelet has no disk pressure"],
        ),
        (
            "PIDPressure",
            crowded,
            ["KubeletHasInsufficientPID", "kubelet has insufficient PID available"],
            ["KubeletHasSufficientPID", "kubelet has sufficient PID available"],
        ),
        ("Ready", health.not_ready.is_none(), fine, ["KubeletNotReady", why]),
    ];
    let old = |kind: &str| previous.conditions.iter().flatten().find(|condition| condition.type_ == kind);
    let made = list.into_iter().map(|(kind, on, yes, no)| {
        let [reason, message] = if on { yes } else { no };
        let status = if on { "True" } else { "False" };
        let since = old(kind).filter(|old| old.status == status).and_then(|old| old.last_transition_time.clone());
        NodeCondition {
            type_: kind.to_string(),
            status: status.to_string(),
            reason: Some(reason.to_string()),
            message: Some(message.to_string()),
            last_heartbeat_time: Some(time(now)),
            last_transition_time: since.or_else(|| Some(time(now))),
        }
    });
    made.collect()
}

/// Two statuses say the same apart from heartbeats.
pub fn same(a: &NodeStatus, b: &NodeStatus) -> bool {
    let plain = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        status
    };
    plain(a) == plain(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(health: &Health, previous: &NodeStatus, second: i64) -> NodeStatus {
        let config = Config::new("n1", "/data");
        let now = Timestamp::from_second(second).expect("in range");
        plan(&config, &Facts::default(), health, &["192.0.2.1".to_string()], 10250, previous, now)
    }

    fn show(status: &NodeStatus) -> String {
        let lines = status.conditions.iter().flatten().map(|condition| {
            let since = condition.last_transition_time.as_ref().map(|time| time.0.as_second()).unwrap_or_default();
            let (reason, message) = (condition.reason.as_deref(), condition.message.as_deref());
            format!(
                "{}={} {} {} {since}\n",
                condition.type_,
                condition.status,
                reason.unwrap_or_default(),
                message.unwrap_or_default()
            )
        });
        lines.collect()
    }

    #[test]
    fn conditions_keep_their_transition_time() {
        let disk = Disk { total_bytes: 100, available_bytes: 50, inodes: 100, inodes_free: 50 };
        let well = Health { available_memory_bytes: 1 << 30, disk, pid_max: 100, pids: 5, ..Health::default() };
        let first = status(&well, &NodeStatus::default(), 10);
        expect_test::expect![[r#"
            MemoryPressure=False KubeletHasSufficientMemory kubelet has sufficient memory available 10
            DiskPressure=False KubeletHasNoDiskPressure kubelet has no disk pressure 10
            PIDPressure=False KubeletHasSufficientPID kubelet has sufficient PID available 10
            Ready=True KubeletReady kubelet is posting ready status 10
        "#]]
        .assert_eq(&show(&first));
        assert!(same(&first, &status(&well, &first, 20)));
        let ill = Health {
            not_ready: Some("container runtime is down".into()),
            disk: Disk { available_bytes: 5, ..disk },
            ..well
        };
        expect_test::expect![[r#"
            MemoryPressure=False KubeletHasSufficientMemory kubelet has sufficient memory available 10
            DiskPressure=True KubeletHasDiskPressure kubelet has disk pressure 20
            PIDPressure=False KubeletHasSufficientPID kubelet has sufficient PID available 10
            Ready=False KubeletNotReady container runtime is down 20
        "#]]
        .assert_eq(&show(&status(&ill, &first, 20)));
    }
}
