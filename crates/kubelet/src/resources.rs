//! From requests and limits to what the kernel is told: CPU shares and quota, memory limit, who dies first.
//!
//! Pure. Invariant: the numbers are upstream's for the same pod on a machine of the same size.

use std::collections::BTreeMap;

use cri::v1::{HugepageLimit, LinuxContainerResources};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::spec::{self, Kind, Qos};

/// The accounting period of CPU quotas, in microseconds.
pub const CPU_PERIOD_US: i64 = 100_000;
/// The least quota the kernel takes, in microseconds.
const MIN_QUOTA_US: i64 = 1000;
/// The least and most CPU shares the kernel takes.
pub const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;

/// CPU thousandths as cgroup v1 shares.
pub fn shares(milli: i64) -> i64 {
    if milli <= 0 { MIN_SHARES } else { (milli.saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES) }
}

/// CPU thousandths as a quota per period; zero means no limit.
pub fn quota_us(milli: i64) -> i64 {
    if milli <= 0 { 0 } else { (milli * CPU_PERIOD_US / 1000).max(MIN_QUOTA_US) }
}

/// cgroup v1 shares as a cgroup v2 weight.
pub fn weight(shares: i64) -> i64 {
    1 + (shares.clamp(MIN_SHARES, MAX_SHARES) - 2) * 9999 / 262_142
}

/// What the node has, and what it lets us do.
#[derive(Debug, Clone, Copy)]
pub struct NodeLimits {
    /// Bytes of memory of the machine.
    pub memory_bytes: i64,
    /// The least `oom_score_adj` that can be set: without CAP_SYS_RESOURCE no less than our own.
    pub min_oom_score_adj: i64,
    pub cgroup_v2: bool,
    /// Swap can be kept from a cgroup.
    pub swap_limit: bool,
}

fn amount(list: Option<&BTreeMap<String, Quantity>>, name: &str, read: fn(&Quantity) -> i64) -> i64 {
    list.and_then(|list| list.get(name)).map_or(0, read)
}

/// A container's resources for CRI.
pub fn for_container(pod: &Pod, container: &Container, limits: &NodeLimits) -> LinuxContainerResources {
    let empty = ResourceRequirements::default();
    let own = container.resources.as_ref().unwrap_or(&empty);
    let cpu_limit = amount(own.limits.as_ref(), "cpu", spec::milli);
    let has_request = own.requests.as_ref().is_some_and(|list| list.contains_key("cpu"));
    let cpu_request = if has_request { amount(own.requests.as_ref(), "cpu", spec::milli) } else { cpu_limit };
    let mut unified = BTreeMap::new();
    if limits.cgroup_v2 {
        // one process killed for memory takes its container with it
        unified.insert("memory.oom.group".to_string(), "1".to_string());
    }
    if limits.swap_limit {
        // Compat: upstream's swap behaviour is NoSwap unless told otherwise; a memory limit would not be one otherwise
        unified.insert("memory.swap.max".to_string(), "0".to_string());
    }
    LinuxContainerResources {
        cpu_period: CPU_PERIOD_US,
        cpu_quota: quota_us(cpu_limit),
        cpu_shares: shares(cpu_request),
        memory_limit_in_bytes: amount(own.limits.as_ref(), "memory", spec::whole),
        oom_score_adj: oom_score_adj(pod, container, limits),
        hugepage_limits: hugepages(own),
        unified,
        ..LinuxContainerResources::default()
    }
}

fn hugepages(own: &ResourceRequirements) -> Vec<HugepageLimit> {
    let limits = own.limits.iter().flatten();
    let pages = limits.filter_map(|(name, amount)| {
        let size = name.strip_prefix("hugepages-")?;
        let page_size = size.replace("Ki", "KB").replace("Mi", "MB").replace("Gi", "GB");
        Some(HugepageLimit { page_size, limit: spec::whole(amount) as u64 })
    });
    pages.collect()
}

/// Who dies first when memory runs out: best effort, then burstable by how little of the machine they asked for.
fn oom_score_adj(pod: &Pod, container: &Container, limits: &NodeLimits) -> i64 {
    let critical = pod.spec.as_ref().and_then(|spec| spec.priority).is_some_and(|value| value >= 2_000_000_000);
    let score = match spec::qos(pod) {
        _ if critical => -997,
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let requests = container.resources.as_ref().and_then(|own| own.requests.as_ref());
            let request = amount(requests, "memory", spec::whole);
            (1000 - 1000 * request / limits.memory_bytes.max(1)).clamp(3, 999)
        }
    };
    score.max(limits.min_oom_score_adj)
}

/// What a pod's own cgroup is given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PodLimits {
    pub cpu_shares: i64,
    /// Zero: no limit.
    pub cpu_quota_us: i64,
    /// Zero: no limit.
    pub memory_bytes: i64,
}

/// The sum of a pod's requests and limits, as it holds for the pod as a whole: regular containers and sidecars together,
/// or the largest init container if that is more.
pub fn for_pod(pod: &Pod) -> PodLimits {
    let cpu = total(pod, "cpu", spec::milli);
    let memory = total(pod, "memory", spec::whole);
    PodLimits {
        cpu_shares: if spec::qos(pod) == Qos::BestEffort { MIN_SHARES } else { shares(cpu.request) },
        cpu_quota_us: cpu.limit.map_or(0, quota_us),
        memory_bytes: memory.limit.unwrap_or(0),
    }
}

/// A pod's request of one resource, and its limit if every container has one.
#[derive(Debug, Clone, Copy)]
pub struct Total {
    pub request: i64,
    pub limit: Option<i64>,
}

/// Adds up one resource over a pod's containers.
pub fn total(pod: &Pod, name: &str, read: fn(&Quantity) -> i64) -> Total {
    let (mut request, mut limit, mut limited) = (0, 0, true);
    let (mut sidecar_request, mut sidecar_limit) = (0, 0);
    let (mut init_request, mut init_limit) = (0, 0);
    for slot in spec::containers(pod) {
        let own = slot.container.resources.as_ref();
        let its_limit = amount(own.and_then(|own| own.limits.as_ref()), name, read);
        let requests = own.and_then(|own| own.requests.as_ref());
        let asked = requests.is_some_and(|list| list.contains_key(name));
        let its_request = if asked { amount(requests, name, read) } else { its_limit };
        match slot.kind {
            Kind::Regular => (request, limit) = (request + its_request, limit + its_limit),
            Kind::Sidecar => {
                (request, limit) = (request + its_request, limit + its_limit);
                (sidecar_request, sidecar_limit) = (sidecar_request + its_request, sidecar_limit + its_limit);
            }
            Kind::Init => {
                init_request = init_request.max(its_request + sidecar_request);
                init_limit = init_limit.max(its_limit + sidecar_limit);
            }
            Kind::Ephemeral => continue,
        }
        limited &= its_limit > 0;
    }
    let pod_level = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let whole = |list: Option<&BTreeMap<String, Quantity>>| list.and_then(|list| list.get(name)).map(read);
    let pod_limit = whole(pod_level.and_then(|own| own.limits.as_ref()));
    let pod_request = whole(pod_level.and_then(|own| own.requests.as_ref()));
    let overhead = whole(pod.spec.as_ref().and_then(|spec| spec.overhead.as_ref())).unwrap_or(0);
    let limit = pod_limit.or_else(|| limited.then(|| limit.max(init_limit)));
    Total {
        request: pod_request.unwrap_or(request.max(init_request)) + overhead,
        limit: limit.map(|limit| limit + overhead),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(containers: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {}, "spec": {"containers": containers}})).expect("pod")
    }

    const NODE: NodeLimits =
        NodeLimits { memory_bytes: 1000 << 20, min_oom_score_adj: -1000, cgroup_v2: false, swap_limit: false };

    #[test]
    fn container_numbers() {
        let pod = pod(json!([{"name": "c", "resources": {
            "requests": {"cpu": "100m", "memory": "500Mi"}, "limits": {"cpu": "250m", "memory": "600Mi"}}}]));
        let got = for_container(&pod, &pod.spec.as_ref().expect("spec").containers[0], &NODE);
        let found = (got.cpu_shares, got.cpu_quota, got.memory_limit_in_bytes, got.oom_score_adj);
        assert_eq!(found, (102, 25_000, 600 << 20, 500));
        assert!(got.unified.is_empty());
        let second = NodeLimits { cgroup_v2: true, swap_limit: true, ..NODE };
        let got = for_container(&pod, &pod.spec.as_ref().expect("spec").containers[0], &second);
        assert_eq!(
            Vec::from_iter(got.unified),
            [("memory.oom.group", "1"), ("memory.swap.max", "0")].map(|(k, v)| (k.to_string(), v.to_string()))
        );
        let own = NodeLimits { min_oom_score_adj: 700, ..NODE };
        assert_eq!(for_container(&pod, &pod.spec.as_ref().expect("spec").containers[0], &own).oom_score_adj, 700);
    }

    #[test]
    fn pod_numbers() {
        let one = |limit: &str| json!({"name": "c", "resources": {"limits": {"cpu": limit, "memory": "10Mi"}}});
        let got = for_pod(&pod(json!([one("500m"), one("1")])));
        assert_eq!(got, PodLimits { cpu_shares: 1536, cpu_quota_us: 150_000, memory_bytes: 20 << 20 });
        let got = for_pod(&pod(json!([one("500m"), {"name": "free"}])));
        assert_eq!(got, PodLimits { cpu_shares: 512, cpu_quota_us: 0, memory_bytes: 0 });
    }

    #[test]
    fn conversions() {
        assert_eq!([shares(0), shares(1), shares(1000), shares(1 << 40)], [2, 2, 1024, 262_144]);
        assert_eq!([weight(2), weight(1024), weight(262_144)], [1, 39, 10_000]);
        assert_eq!([quota_us(0), quota_us(1), quota_us(1500)], [0, 1000, 150_000]);
    }
}
