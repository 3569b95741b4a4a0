//! ExtendedResourceToleration: pods that ask for devices stand the taints that keep their nodes for such pods.
//!
//! Changes: new and updated pods.

use std::collections::BTreeSet;

use meta::{Status, Value, json};

use super::{Operation, Review};

pub fn mutate(review: &Review<'_>, pod: &mut Value, _: Option<&Value>) -> Result<(), Status> {
    if review.operation == Operation::Delete || !review.subresource.is_empty() || !review.is("", "pods") {
        return Ok(());
    }
    let lists = ["initContainers", "containers"].into_iter().flat_map(|list| pod.array_at(&["spec", list]));
    let requests = lists.flat_map(|c| c["resources"]["requests"].as_object().into_iter().flat_map(|r| r.keys()));
    let named: BTreeSet<String> = requests.map(ToString::to_string).filter(|n| api::quota::is_extended(n)).collect();
    for name in named {
        let toleration = json!({"key": name.as_str(), "operator": "Exists", "effect": "NoSchedule"});
        let all = pod.slot(&["spec", "tolerations"]).make_array();
        if !all.contains(&toleration) {
            all.push(toleration);
        }
    }
    Ok(())
}
