//! Which pods go first when there are too many. Reads and writes nothing. Invariant: the order depends on the pods and the
//! time only, so a retry chooses the same ones.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::{clock, pod};

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The `count` pods to delete first. `related` are all pods of the same application: of two, the one goes that shares its node
/// with more of them.
pub fn first_to_go(pods: &[Arc<Pod>], related: &[Arc<Pod>], count: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| pod::is_active(pod)) {
        *on_node.entry(pod::node_name(pod)).or_default() += 1;
    }
    let crowd = |pod: &Pod| on_node.get(pod::node_name(pod)).copied().unwrap_or(0);
    let mut order: Vec<Arc<Pod>> = pods.to_vec();
    order.sort_by(|a, b| compare(a, b, (crowd(a), crowd(b)), now));
    order.truncate(count);
    order
}

fn compare(a: &Pod, b: &Pod, crowd: (usize, usize), now: Timestamp) -> Ordering {
    // assigned to a node, further in its phase, ready: worth more
    pod::node_name(a)
        .is_empty()
        .cmp(&pod::node_name(b).is_empty())
        .reverse()
        .then_with(|| phase_rank(a).cmp(&phase_rank(b)))
        .then_with(|| pod::is_ready(a).cmp(&pod::is_ready(b)))
        .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
        .then_with(|| crowd.1.cmp(&crowd.0))
        .then_with(|| younger_first(pod::ready_since(a), pod::ready_since(b), now))
        .then_with(|| pod::restarts(b).cmp(&pod::restarts(a)))
        .then_with(|| younger_first(created(a), created(b), now))
        .then_with(|| a.uid().cmp(&b.uid()))
}

fn phase_rank(pod: &Pod) -> u8 {
    match pod::phase(pod) {
        "Pending" | "" => 0,
        "Unknown" => 1,
        _ => 2,
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    pod.annotations().get(DELETION_COST).and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// Ages are compared by their power of two, so that rollouts of long ago do not decide by seconds.
fn younger_first(a: Option<Timestamp>, b: Option<Timestamp>, now: Timestamp) -> Ordering {
    let bucket = |time: Option<Timestamp>| time.map(|time| clock::seconds_between(time, now).max(1.0).log2() as i64);
    match (bucket(a), bucket(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        // without a time counts as young
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(
        name: &str,
        node: &str,
        phase: &str,
        ready: Option<&str>,
        created: &str,
        cost: &str,
        restarts: i32,
    ) -> Arc<Pod> {
        let ready = ready.map(|since| json!({"type": "Ready", "status": "True", "lastTransitionTime": since}));
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": name, "uid": name, "creationTimestamp": created, "annotations": {DELETION_COST: cost}},
                "spec": {"nodeName": node, "containers": []},
                "status": {"phase": phase, "conditions": ready.into_iter().collect::<Vec<_>>(),
                    "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": restarts}]}
            }))
            .unwrap(),
        )
    }

    #[test]
    fn order() {
        let old = "2030-01-01T00:00:00Z";
        let new = "2030-01-02T00:00:00Z";
        let pods = [
            pod("ready-old", "n1", "Running", Some(old), old, "0", 0),
            pod("ready-new", "n1", "Running", Some(new), old, "0", 0),
            pod("ready-restarted", "n1", "Running", Some(old), old, "0", 3),
            pod("ready-cheap", "n1", "Running", Some(old), old, "-5", 0),
            pod("ready-dear", "n1", "Running", Some(new), new, "5", 0),
            pod("ready-crowded", "n2", "Running", Some(old), old, "0", 0),
            pod("not-ready", "n1", "Running", None, old, "0", 0),
            pod("pending", "n1", "Pending", None, old, "0", 0),
            pod("unassigned", "", "Pending", None, old, "0", 0),
        ];
        let related: Vec<Arc<Pod>> = (0..9)
            .map(|n| pod(&format!("r{n}"), "n2", "Running", None, old, "0", 0))
            .chain(pods.iter().cloned())
            .collect();
        let order = first_to_go(&pods, &related, 100, "2030-01-02T01:00:00Z".parse().unwrap());
        let names: Vec<String> = order.iter().map(|pod| pod.name_any() + "\n").collect();
        expect_test::expect_file!["pod_rank/order.txt"].assert_eq(&names.concat());
    }
}
