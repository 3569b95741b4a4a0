//! Keeps pods off cordoned nodes, unless they tolerate the taint that stands for it.

use crate::event::Event;
use crate::framework::{Plugin, Slot, Verdict, plugin};
use crate::node::{Effect, NodeInfo, Taint};
use crate::pod::PodInfo;

pub struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    plugin!("NodeUnschedulable": Filter);

    fn filter(&self, _: &Slot, pod: &PodInfo, node: &NodeInfo) -> Verdict {
        if !node.spec.unschedulable {
            return Verdict::Fit;
        }
        let taint =
            Taint { key: "node.kubernetes.io/unschedulable".into(), value: "".into(), effect: Effect::NoSchedule };
        if taint.tolerated_by(&pod.tolerations) { Verdict::Fit } else { Verdict::never("node(s) were unschedulable") }
    }

    fn hint(&self, event: &Event<'_>, pod: &PodInfo) -> bool {
        matches!(event, Event::Node(node) if self.filter(&Slot::default(), pod, node).is_fit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, pod_info};

    #[test]
    fn cordoned_nodes() {
        let cordoned = node("n", r#"{"spec":{"unschedulable":true}}"#);
        let plain = pod_info(r#"{"spec":{"containers":[]}}"#);
        let daemon = pod_info(
            r#"{"spec":{"containers":[],"tolerations":[{"key":"node.kubernetes.io/unschedulable","operator":"Exists","effect":"NoSchedule"}]}}"#,
        );
        let filter = |pod: &PodInfo, node: &NodeInfo| NodeUnschedulable.filter(&Slot::default(), pod, node);
        assert_eq!(filter(&plain, &node("n", "{}")), Verdict::Fit);
        assert_eq!(filter(&plain, &cordoned), Verdict::never("node(s) were unschedulable"));
        assert_eq!(filter(&daemon, &cordoned), Verdict::Fit);
    }
}
