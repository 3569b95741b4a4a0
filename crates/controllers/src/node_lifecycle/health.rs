//! Judges whether a node still reports, and what its status and taints should say.
//! Reads and writes nothing. Invariant: pure; staleness is measured by our own clock from when we saw a report, never by the
//! node's clock.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Condition type, the status that is bad, and the taint it makes.
const CONDITION_TAINTS: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];
/// The conditions that become Unknown with a silent node.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

pub fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// `True`, `False` or `Unknown`; empty for a node that never said.
pub fn ready(node: &Node) -> &str {
    condition(node, "Ready").map_or("", |condition| condition.status.as_str())
}

/// What was last heard of a node.
#[derive(Clone, Debug)]
pub struct Heard {
    heartbeat: Option<Time>,
    renewed: Option<MicroTime>,
    pub at: Instant,
}

impl Heard {
    /// Notes a heartbeat or a renewed lease; a new node counts as heard now.
    pub fn note(known: Option<Heard>, node: &Node, renewed: Option<&MicroTime>, now: Instant) -> Heard {
        let heartbeat = condition(node, "Ready").and_then(|condition| condition.last_heartbeat_time.clone());
        match known {
            Some(known) if known.heartbeat == heartbeat && known.renewed.as_ref() == renewed => known,
            // our own "Unknown" carries the old heartbeat, so it is no sign of life
            _ => Heard { heartbeat, renewed: renewed.cloned(), at: now },
        }
    }

    pub fn is_stale(&self, grace: Duration, now: Instant) -> bool {
        now.duration_since(self.at) > grace
    }
}

/// The conditions a silent node gets; None if they say so already.
pub fn unknown(node: &Node, now: Timestamp) -> Option<Vec<NodeCondition>> {
    let mut conditions = node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let mut changed = false;
    for kind in REPORTED {
        match conditions.iter_mut().find(|condition| condition.type_ == kind) {
            None => {
                conditions.push(NodeCondition {
                    type_: kind.to_string(),
                    status: "Unknown".to_string(),
                    reason: Some("NodeStatusNeverUpdated".to_string()),
                    message: Some("Kubelet never posted node status.".to_string()),
                    last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                    last_transition_time: Some(Time(now)),
                });
                changed = true;
            }
            Some(condition) if condition.status != "Unknown" => {
                condition.status = "Unknown".to_string();
                condition.reason = Some("NodeStatusUnknown".to_string());
                condition.message = Some("Kubelet stopped posting node status.".to_string());
                condition.last_transition_time = Some(Time(now));
                changed = true;
            }
            Some(_) => {}
        }
    }
    changed.then_some(conditions)
}

/// The taints the node should have instead of those it has; None if they are right. `evict` allows a new NoExecute taint;
/// `calm` takes them all away, as when every node is silent and the fault is more likely ours.
pub fn taints(node: &Node, evict: bool, calm: bool, now: Timestamp) -> Option<Vec<Taint>> {
    let old = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let ours = |taint: &Taint| {
        let named = taint.key == UNSCHEDULABLE || CONDITION_TAINTS.iter().any(|(_, _, key)| *key == taint.key);
        let eviction = taint.key == NOT_READY || taint.key == UNREACHABLE;
        named && (taint.effect == "NoSchedule" || (taint.effect == "NoExecute" && eviction))
    };
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    if node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    for (kind, bad, key) in CONDITION_TAINTS {
        if condition(node, kind).is_some_and(|condition| condition.status == bad) {
            wanted.push((key, "NoSchedule"));
        }
    }
    let has_eviction = old.iter().any(|taint| ours(taint) && taint.effect == "NoExecute");
    let eviction = match ready(node) {
        "False" => Some(NOT_READY),
        "Unknown" => Some(UNREACHABLE),
        // it never reported: nothing can run there
        "" => Some(NOT_READY),
        _ => None,
    };
    // one that is there already may change its kind at once
    if let Some(key) = eviction.filter(|_| !calm && (evict || has_eviction)) {
        wanted.push((key, "NoExecute"));
    }
    let mut new: Vec<Taint> = old.iter().filter(|taint| !ours(taint)).cloned().collect();
    for (key, effect) in wanted {
        let known = old.iter().find(|taint| taint.key == key && taint.effect == effect);
        new.push(known.cloned().unwrap_or_else(|| Taint {
            key: key.to_string(),
            effect: effect.to_string(),
            time_added: Some(Time(now)),
            value: None,
        }));
    }
    let sorted = |mut taints: Vec<Taint>| {
        taints.sort_by(|a, b| (&a.key, &a.effect).cmp(&(&b.key, &b.effect)));
        taints
    };
    (sorted(new.clone()) != sorted(old)).then_some(new)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(conditions: Value, spec: Value) -> Node {
        serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": spec, "status": {"conditions": conditions}}))
            .unwrap()
    }

    fn now() -> Timestamp {
        "2030-01-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn silent_nodes_become_unknown() {
        let silent = node(json!([{"type": "Ready", "status": "True", "reason": "KubeletReady"}]), json!({}));
        let conditions = unknown(&silent, now()).unwrap();
        let text: Vec<String> = conditions
            .iter()
            .map(|condition| {
                format!("{}={} {}\n", condition.type_, condition.status, condition.reason.clone().unwrap())
            })
            .collect();
        expect_test::expect_file!["health/silent_nodes_become_unknown.txt"].assert_eq(&text.concat());
        let again = node(serde_json::to_value(conditions).unwrap(), json!({}));
        assert_eq!(unknown(&again, now()), None);
    }

    #[test]
    fn taints_follow_conditions() {
        golden::check!("taints.txt", |case| {
            let [how, conditions, spec] = case.splitn(3, " | ").collect::<Vec<_>>()[..] else { panic!("{case}") };
            let [conditions, spec] = [conditions, spec].map(|text| serde_json::from_str(text).unwrap());
            let taints = taints(&node(conditions, spec), how != "limited", how == "calm", now());
            let Some(taints) = taints else { return "unchanged".into() };
            taints.iter().map(|taint| format!("{}:{}\n", taint.key, taint.effect)).collect()
        });
    }

    #[tokio::test(start_paused = true)]
    async fn any_report_counts_as_life() {
        let report = |at: &str| node(json!([{"type": "Ready", "status": "True", "lastHeartbeatTime": at}]), json!({}));
        let start = Instant::now();
        let grace = Duration::from_secs(50);
        let first = Heard::note(None, &report("2030-01-01T00:00:00Z"), None, start);
        let later = start + Duration::from_secs(60);
        let same = Heard::note(Some(first.clone()), &report("2030-01-01T00:00:00Z"), None, later);
        assert!(same.is_stale(grace, later));
        let lease = MicroTime(now());
        assert!(
            !Heard::note(Some(first.clone()), &report("2030-01-01T00:00:00Z"), Some(&lease), later)
                .is_stale(grace, later)
        );
        assert!(!Heard::note(Some(first), &report("2030-01-01T00:00:10Z"), None, later).is_stale(grace, later));
    }
}
