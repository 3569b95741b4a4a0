//! Two pods never claim the same host port on a node.

use crate::cache::Cache;
use crate::event::Event;
use crate::framework::{Plugin, PreFilter, Slot, Verdict, plugin};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

pub struct NodePorts;

impl Plugin for NodePorts {
    plugin!("NodePorts": PreFilter, Filter);

    fn pre_filter(&self, pod: &PodInfo, _: &Cache) -> PreFilter {
        if pod.ports.is_empty() { PreFilter::Skip } else { PreFilter::Go(Slot::default(), None) }
    }

    fn filter(&self, _: &Slot, pod: &PodInfo, node: &NodeInfo) -> Verdict {
        if pod.ports.iter().any(|want| node.ports.iter().any(|taken| want.conflicts(taken))) {
            return Verdict::no("node(s) didn't have free ports for the requested pod ports");
        }
        Verdict::Fit
    }

    fn hint(&self, event: &Event<'_>, pod: &PodInfo) -> bool {
        match event {
            Event::Node(node) => self.filter(&Slot::default(), pod, node).is_fit(),
            Event::PodRemoved(gone) => pod.ports.iter().any(|want| gone.ports.iter().any(|p| want.conflicts(p))),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::{node, pod_info};

    #[test]
    fn host_ports() {
        let pod = |ports: &str| pod_info(&format!(r#"{{"spec":{{"containers":[{{"name":"c","ports":[{ports}]}}]}}}}"#));
        let mut n = node("n", "{}");
        n.add_pod(Arc::new(pod(r#"{"containerPort":80,"hostPort":8080,"hostIP":"10.0.0.1"}"#)));
        let taken = Verdict::no("node(s) didn't have free ports for the requested pod ports");
        for (ports, want) in [
            (r#"{"containerPort":80,"hostPort":8080}"#, taken),
            (r#"{"containerPort":80,"hostPort":8080,"protocol":"UDP"}"#, Verdict::Fit),
            (r#"{"containerPort":80,"hostPort":8080,"hostIP":"10.0.0.2"}"#, Verdict::Fit),
            (r#"{"containerPort":8080}"#, Verdict::Fit),
        ] {
            assert_eq!(NodePorts.filter(&Slot::default(), &pod(ports), &n), want, "{ports}");
        }
    }
}
