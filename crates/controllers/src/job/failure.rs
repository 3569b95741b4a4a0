//! What a failed pod means for its job: the pod failure policy, and how long to wait before the next try.
//! Reads and writes nothing. Invariant: all of it is read off the pods, so that a restart forgets nothing.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::{JobSpec, PodFailurePolicyRule};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::plan::is_tracked;
use crate::{clock, pod};

pub const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
pub const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
const FIRST_WAIT_S: i64 = 10;
const MAX_WAIT_S: i64 = 600;

#[derive(Debug, PartialEq)]
pub enum Action {
    /// With the message of the condition.
    FailJob(String),
    FailIndex,
    Ignore,
    Count,
}

/// What the policy says of a failed pod: the first rule that matches decides.
pub fn action(spec: &JobSpec, pod: &Pod) -> Action {
    let rules = spec.pod_failure_policy.iter().flat_map(|policy| &policy.rules);
    for (i, rule) in rules.enumerate() {
        let Some(what) = matched(rule, pod) else { continue };
        match rule.action.as_str() {
            "FailJob" => return Action::FailJob(format!("{what} matching FailJob rule at index {i}")),
            "FailIndex" if spec.backoff_limit_per_index.is_some() => return Action::FailIndex,
            "Ignore" => return Action::Ignore,
            "Count" => return Action::Count,
            _ => {}
        }
    }
    Action::Count
}

fn matched(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let name = || format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
    if let Some(codes) = &rule.on_exit_codes {
        let wanted = codes.container_name.as_deref();
        return containers(pod).filter(|one| wanted.is_none_or(|name| name == one.name)).find_map(|one| {
            let code = one.state.as_ref()?.terminated.as_ref()?.exit_code;
            let fits = match codes.operator.as_str() {
                "In" => codes.values.contains(&code),
                "NotIn" => !codes.values.contains(&code),
                _ => false,
            };
            (code != 0 && fits)
                .then(|| format!("Container {} for pod {} failed with exit code {code}", one.name, name()))
        });
    }
    let pattern = rule.on_pod_conditions.iter().flatten().find(|pattern| {
        let status = pattern.status.as_deref().unwrap_or("True");
        pod::condition(pod, &pattern.type_).is_some_and(|condition| condition.status == status)
    })?;
    Some(format!("Pod {} has condition {}", name(), pattern.type_))
}

fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let lists = pod.status.iter().flat_map(|status| [&status.container_statuses, &status.init_container_statuses]);
    lists.flat_map(|list| list.iter().flatten())
}

/// Where containers restart in place, the restarts count as tries.
pub fn too_many_restarts(spec: &JobSpec, pods: &[Arc<Pod>]) -> bool {
    let policy = spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    let live = pods.iter().filter(|pod| !pod::is_finished(pod));
    let restarts: i32 = live.flat_map(|pod| containers(pod)).map(|container| container.restart_count).sum();
    policy == Some("OnFailure") && restarts >= spec.backoff_limit.unwrap_or(6).max(1)
}

/// A terminating pod is replaced only when it has failed.
pub fn waits_for_the_end(spec: &JobSpec) -> bool {
    spec.pod_failure_policy.is_some() || spec.pod_replacement_policy.as_deref() == Some("Failed")
}

/// A pod that failed, or is on its way out without having been taken away by the controller itself.
pub fn has_failed(spec: &JobSpec, pod: &Pod) -> bool {
    match pod::phase(pod) {
        "Succeeded" => false,
        "Failed" => is_tracked(pod) || !pod::is_deleting(pod),
        _ => pod::is_deleting(pod) && is_tracked(pod) && !waits_for_the_end(spec),
    }
}

fn finished_at(pod: &Pod) -> Option<Timestamp> {
    let terminated = |one: &ContainerStatus| one.state.as_ref()?.terminated.as_ref()?.finished_at.clone();
    let ended = containers(pod).filter_map(terminated).max();
    let not_ready = pod::condition(pod, "Ready").and_then(|condition| condition.last_transition_time.clone());
    let meta = &pod.metadata;
    let other = || meta.deletion_timestamp.clone().or_else(|| meta.creation_timestamp.clone());
    ended.or(not_ready).or_else(other).map(|time| time.0)
}

fn wait_after(failures: usize, last: Timestamp) -> Timestamp {
    let wait_s = FIRST_WAIT_S << failures.saturating_sub(1).min(10);
    clock::after_s(last, wait_s.min(MAX_WAIT_S))
}

/// Until when to wait because of the failures since the last success.
pub fn wait(spec: &JobSpec, pods: &[Arc<Pod>]) -> Option<Timestamp> {
    let mut ends: Vec<(Timestamp, bool)> = Vec::new();
    for pod in pods {
        let failed = has_failed(spec, pod);
        if failed || pod::phase(pod) == "Succeeded" {
            ends.extend(finished_at(pod).map(|at| (at, failed)));
        }
    }
    ends.sort();
    let failures = ends.iter().rev().take_while(|(_, failed)| *failed).count();
    ends.last().filter(|_| failures > 0).map(|(last, _)| wait_after(failures, *last))
}

/// The failures of an index up to and with this failed pod: those that count, and those that are ignored.
pub fn tally(spec: &JobSpec, pod: &Pod) -> (i32, i32) {
    let before = |name: &str| pod.annotations().get(name).and_then(|count| count.parse().ok()).unwrap_or(0);
    let ignored = i32::from(action(spec, pod) == Action::Ignore);
    (before(FAILURES) + 1 - ignored, before(IGNORED) + ignored)
}

/// Until when to wait before an index is tried again after this pod.
pub fn wait_of_index(spec: &JobSpec, pod: &Pod) -> Option<Timestamp> {
    let (failures, ignored) = tally(spec, pod);
    finished_at(pod).map(|at| wait_after(usize::try_from(failures + ignored).unwrap_or(1), at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn policies() {
        let pod = |codes: &[i32], condition: &str| -> Pod {
            let terminated = |(i, code): (usize, &i32)| {
                json!({"name": format!("c{i}"), "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"terminated": {"exitCode": code}}})
            };
            let statuses: Vec<_> = codes.iter().enumerate().map(terminated).collect();
            serde_json::from_value(json!({"metadata": {"namespace": "ns", "name": "p"}, "status": {"phase": "Failed",
                "containerStatuses": statuses, "conditions": [{"type": condition, "status": "True"}]}}))
            .unwrap()
        };
        let spec: JobSpec =
            serde_json::from_value(json!({"template": {}, "backoffLimitPerIndex": 1, "podFailurePolicy": {
            "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {"action": "FailJob", "onExitCodes": {"containerName": "c1", "operator": "In", "values": [3, 42]}},
                {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [7]}},
                {"action": "Future", "onExitCodes": {"operator": "In", "values": [8]}},
                {"action": "FailJob", "onPodConditions": [{"type": "ConfigIssue"}]},
                {"action": "Count", "onExitCodes": {"operator": "NotIn", "values": [1]}}]}}))
            .unwrap();
        let fail = |message: &str| Action::FailJob(message.to_string());
        let by_code = "Container c1 for pod ns/p failed with exit code 42 matching FailJob rule at index 1";
        for (pod, want) in [
            (pod(&[3], "DisruptionTarget"), Action::Ignore),
            (pod(&[3], "Ready"), Action::Count),
            (pod(&[0, 42], "Ready"), fail(by_code)),
            (pod(&[7], "Ready"), Action::FailIndex),
            (pod(&[8], "Ready"), Action::Count),
            (pod(&[1], "ConfigIssue"), fail("Pod ns/p has condition ConfigIssue matching FailJob rule at index 4")),
        ] {
            assert_eq!(action(&spec, &pod), want);
        }
    }
}
