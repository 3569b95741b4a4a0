//! Room for what a pod requests: refuses full nodes, prefers the emptier (LeastAllocated over CPU and memory).

use crate::cache::{Cache, NodeId};
use crate::event::Event;
use crate::framework::{MAX_SCORE, Plugin, Reason, Slot, Verdict, plugin};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

pub struct NodeResourcesFit;

/// One resource that does not fit; `hopeless` when even the empty node is too small.
struct Shortage {
    reason: Reason,
    hopeless: bool,
}

fn shortages(pod: &PodInfo, node: &NodeInfo) -> Vec<Shortage> {
    let mut out = Vec::new();
    let (want, taken, all) = (&pod.requests, &node.requested, &node.spec.allocatable);
    if node.pods.len() as i64 + 1 > all.pods {
        out.push(Shortage { reason: "Too many pods".into(), hopeless: false });
    }
    let mut check = |want: i64, taken: i64, all: i64, reason: &dyn Fn() -> Reason| {
        if want > 0 && want > all - taken {
            out.push(Shortage { reason: reason(), hopeless: want > all });
        }
    };
    check(want.cpu_milli, taken.cpu_milli, all.cpu_milli, &|| "Insufficient cpu".into());
    check(want.memory_bytes, taken.memory_bytes, all.memory_bytes, &|| "Insufficient memory".into());
    check(want.ephemeral_bytes, taken.ephemeral_bytes, all.ephemeral_bytes, &|| {
        "Insufficient ephemeral-storage".into()
    });
    for (name, amount) in &want.scalars {
        check(*amount, taken.scalar(name), all.scalar(name), &|| format!("Insufficient {name}").into());
    }
    out
}

impl Plugin for NodeResourcesFit {
    plugin!("NodeResourcesFit": Filter, Score);

    fn filter(&self, _: &Slot, pod: &PodInfo, node: &NodeInfo) -> Verdict {
        let found = shortages(pod, node);
        if found.is_empty() {
            return Verdict::Fit;
        }
        let hopeless = found.iter().any(|s| s.hopeless);
        let reasons = found.into_iter().map(|s| s.reason).collect();
        if hopeless { Verdict::Never(reasons) } else { Verdict::No(reasons) }
    }

    fn score(&self, _: &Slot, pod: &PodInfo, _: NodeId, node: &NodeInfo, _: &Cache) -> i64 {
        let all = &node.spec.allocatable;
        let pairs = [
            (node.non_zero_cpu_milli + pod.non_zero_cpu_milli, all.cpu_milli),
            (node.non_zero_memory_bytes + pod.non_zero_memory_bytes, all.memory_bytes),
        ];
        let (mut sum, mut weights) = (0, 0);
        for (used, capacity) in pairs.into_iter().filter(|(_, capacity)| *capacity > 0) {
            sum += if used > capacity { 0 } else { (capacity - used) * MAX_SCORE / capacity };
            weights += 1;
        }
        if weights == 0 { 0 } else { sum / weights }
    }

    fn hint(&self, event: &Event<'_>, pod: &PodInfo) -> bool {
        match event {
            Event::Node(node) => shortages(pod, node).is_empty(),
            Event::PodRemoved(_) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::{node, pod_info, pod_requesting};

    const NODE: &str = r#"{"status":{"allocatable":{"cpu":"2","memory":"4Gi","pods":"2","example.com/gpu":"1"}}}"#;

    #[test]
    fn shortages_by_resource() {
        let mut n = node("n", NODE);
        n.add_pod(Arc::new(pod_requesting(r#"{"cpu":"1500m","memory":"1Gi"}"#)));
        let no = |reasons: &[&'static str]| Verdict::No(reasons.iter().map(|r| (*r).into()).collect());
        let cases = [
            (r#"{"cpu":"500m"}"#, Verdict::Fit),
            (r#"{"cpu":"600m"}"#, no(&["Insufficient cpu"])),
            (r#"{"cpu":"600m","memory":"3.5Gi"}"#, no(&["Insufficient cpu", "Insufficient memory"])),
            (r#"{"cpu":"3"}"#, Verdict::never("Insufficient cpu")),
            (r#"{"example.com/gpu":"1"}"#, Verdict::Fit),
            (r#"{"example.com/tpu":"1"}"#, Verdict::never("Insufficient example.com/tpu")),
            (r#"{"ephemeral-storage":"1"}"#, Verdict::never("Insufficient ephemeral-storage")),
        ];
        for (requests, want) in cases {
            assert_eq!(NodeResourcesFit.filter(&Slot::default(), &pod_requesting(requests), &n), want, "{requests}");
        }
        n.add_pod(Arc::new(pod_info(r#"{"spec":{"containers":[]}}"#)));
        assert_eq!(NodeResourcesFit.filter(&Slot::default(), &pod_requesting("{}"), &n), no(&["Too many pods"]));
    }

    #[test]
    fn emptier_nodes_score_higher() {
        let mut n = node("n", NODE);
        let pod = pod_requesting(r#"{"cpu":"500m","memory":"1Gi"}"#);
        let cache = Cache::default();
        let score = |n: &NodeInfo| NodeResourcesFit.score(&Slot::default(), &pod, 0, n, &cache);
        assert_eq!(score(&n), 75);
        n.add_pod(Arc::new(pod_requesting(r#"{"cpu":"1"}"#)));
        // CPU 25, memory 100 * (4096 - 1024 - 200) / 4096 = 70
        assert_eq!(score(&n), 47);
    }
}
