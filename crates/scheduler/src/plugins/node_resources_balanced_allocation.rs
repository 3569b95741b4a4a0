//! Prefers nodes whose CPU and memory would be used in equal parts.

use crate::cache::{Cache, NodeId};
use crate::framework::{MAX_SCORE, Plugin, PreScore, Slot, plugin};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

pub struct NodeResourcesBalancedAllocation;

impl Plugin for NodeResourcesBalancedAllocation {
    plugin!("NodeResourcesBalancedAllocation": PreScore, Score);

    /// A pod that requests nothing changes no balance.
    fn pre_score(&self, pod: &PodInfo, _: &Cache, _: &[NodeId]) -> PreScore {
        if pod.requests.cpu_milli == 0 && pod.requests.memory_bytes == 0 {
            PreScore::Skip
        } else {
            PreScore::Go(Slot::default())
        }
    }

    fn score(&self, _: &Slot, pod: &PodInfo, _: NodeId, node: &NodeInfo, _: &Cache) -> i64 {
        let all = &node.spec.allocatable;
        let fraction = |used: i64, capacity: i64| (capacity > 0).then(|| (used as f64 / capacity as f64).min(1.0));
        let cpu = fraction(node.requested.cpu_milli + pod.requests.cpu_milli, all.cpu_milli);
        let memory = fraction(node.requested.memory_bytes + pod.requests.memory_bytes, all.memory_bytes);
        // The standard deviation of two values is half their distance.
        let deviation = cpu.zip(memory).map_or(0.0, |(a, b)| (a - b).abs() / 2.0);
        ((1.0 - deviation) * MAX_SCORE as f64) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, pod_requesting};

    #[test]
    fn balance() {
        let n = node("n", r#"{"status":{"allocatable":{"cpu":"10","memory":"10Gi"}}}"#);
        let cache = Cache::default();
        for (requests, want) in
            [(r#"{"cpu":"5","memory":"5Gi"}"#, 100), (r#"{"cpu":"10"}"#, 50), (r#"{"cpu":"2","memory":"6Gi"}"#, 80)]
        {
            let got = NodeResourcesBalancedAllocation.score(&Slot::default(), &pod_requesting(requests), 0, &n, &cache);
            assert_eq!(got, want, "{requests}");
        }
    }
}
