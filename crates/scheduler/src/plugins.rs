//! The plugins that come with the scheduler, one file each, in upstream's order and with upstream's weights.
//! Adding one: a file here, a line in `defaults`. Invariant: names are upstream's, so configurations carry over.

pub mod default_binder;
pub mod default_preemption;
pub mod image_locality;
pub mod inter_pod_affinity;
pub mod node_affinity;
pub mod node_name;
pub mod node_ports;
pub mod node_resources_balanced_allocation;
pub mod node_resources_fit;
pub mod node_unschedulable;
pub mod pod_topology_spread;
pub mod priority_sort;
pub mod scheduling_gates;
pub mod taint_toleration;

use crate::framework::Plugin;

/// Every default plugin with its weight (0: does not score).
pub fn defaults() -> Vec<(Box<dyn Plugin>, i64)> {
    vec![
        (Box::new(scheduling_gates::SchedulingGates), 0),
        (Box::new(priority_sort::PrioritySort), 0),
        (Box::new(node_unschedulable::NodeUnschedulable), 0),
        (Box::new(node_name::NodeName), 0),
        (Box::new(taint_toleration::TaintToleration), 3),
        (Box::new(node_affinity::NodeAffinity), 2),
        (Box::new(node_ports::NodePorts), 0),
        (Box::new(node_resources_fit::NodeResourcesFit), 1),
        (Box::new(pod_topology_spread::PodTopologySpread), 2),
        (Box::new(inter_pod_affinity::InterPodAffinity), 2),
        (Box::new(default_preemption::DefaultPreemption), 0),
        (Box::new(node_resources_balanced_allocation::NodeResourcesBalancedAllocation), 1),
        (Box::new(image_locality::ImageLocality), 1),
        (Box::new(default_binder::DefaultBinder), 0),
    ]
}
