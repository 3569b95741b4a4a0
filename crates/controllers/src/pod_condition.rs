//! Makes conditions of pods. Reads and writes nothing. Invariant: the transition time moves only with the status.

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

pub fn new(kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> PodCondition {
    PodCondition {
        type_: kind.to_string(),
        status: status.to_string(),
        reason: Some(reason.to_string()),
        message: Some(message.to_string()),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    }
}

/// The condition as a strategic merge patch of the pod's status may carry it: merged by its type, beside the others.
pub fn merged(pod: &Pod, mut condition: PodCondition) -> PodCondition {
    condition.observed_generation = pod.metadata.generation;
    let old = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    if let Some(old) = old.into_iter().find(|old| old.type_ == condition.type_ && old.status == condition.status) {
        condition.last_transition_time.clone_from(&old.last_transition_time);
    }
    condition
}
