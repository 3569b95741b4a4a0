//! PodTopologyLabels: a pod that is put on a node carries the node's zone and region.
//!
//! Reads: nodes. Changes: bindings, and pods that name their node. Source: KEP-4742.

use meta::{Status, Value};

use super::{Operation, Review};
use crate::shared::Shared;

const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

pub fn mutate(review: &Review<'_>, pod: &mut Value, _: Option<&Value>) -> Result<(), Status> {
    let written = matches!(review.operation, Operation::Create | Operation::Update) && review.subresource.is_empty();
    if written
        && review.is("", "pods")
        && let Some(node) = pod.str_at(&["spec", "nodeName"]).map(str::to_string)
    {
        copy(review.shared, &node, pod);
    }
    Ok(())
}

/// Gives the object the labels of the node.
pub fn copy(shared: &Shared, node: &str, object: &mut Value) {
    let Some(node) = shared.peek("", "nodes", "", node) else { return };
    for key in LABELS {
        if let Some(value) = node.label(key) {
            object.set(&["metadata", "labels", key], value);
        }
    }
}
