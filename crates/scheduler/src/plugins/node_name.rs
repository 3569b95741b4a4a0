//! A pod that names its node goes nowhere else.

use crate::event::Event;
use crate::framework::{Plugin, Slot, Verdict, plugin};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

pub struct NodeName;

impl Plugin for NodeName {
    plugin!("NodeName": Filter);

    fn filter(&self, _: &Slot, pod: &PodInfo, node: &NodeInfo) -> Verdict {
        if pod.node_name.is_empty() || *pod.node_name == *node.name {
            return Verdict::Fit;
        }
        Verdict::never("node(s) didn't match the requested node name")
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
    fn only_the_named_node() {
        let n = node("n1", "{}");
        let never = Verdict::never("node(s) didn't match the requested node name");
        for (spec, want) in [("", Verdict::Fit), (r#","nodeName":"n1""#, Verdict::Fit), (r#","nodeName":"n2""#, never)]
        {
            let pod = pod_info(&format!(r#"{{"spec":{{"containers":[]{spec}}}}}"#));
            assert_eq!(NodeName.filter(&Slot::default(), &pod, &n), want, "{spec}");
        }
    }
}
