//! TaintNodesByCondition: a new node takes no pods until the node lifecycle controller has seen that it is ready.

use meta::{Status, Value, json};

use super::{Operation, Review};

pub fn mutate(review: &Review<'_>, node: &mut Value, _: Option<&Value>) -> Result<(), Status> {
    if review.operation == Operation::Create && review.subresource.is_empty() && review.is("", "nodes") {
        let taint = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"});
        let all = node.slot(&["spec", "taints"]).make_array();
        if !all.iter().any(|t| t["key"] == taint["key"] && t["effect"] == taint["effect"]) {
            all.push(taint);
        }
    }
    Ok(())
}
