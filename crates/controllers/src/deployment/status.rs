//! A Deployment's status and conditions from its sets.
//! Reads and writes nothing. Invariant: pure; reasons and messages are upstream's, since kubectl and scripts read them.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::rollout::{Set, limits};
use crate::clock;

pub const PROGRESSING: &str = "Progressing";
pub const AVAILABLE: &str = "Available";
pub const REPLICA_FAILURE: &str = "ReplicaFailure";
pub const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
pub const TIMED_OUT: &str = "ProgressDeadlineExceeded";

pub fn condition(kind: &str, status: &str, reason: &str, message: String, now: Timestamp) -> DeploymentCondition {
    DeploymentCondition {
        type_: Some(kind.to_string()),
        status: Some(status.to_string()),
        reason: Some(reason.to_string()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

pub fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_.as_deref() == Some(kind))
}

/// Sets a condition; one of the same status and reason is left alone, times and all.
pub fn set(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
    let kind = new.type_.clone().unwrap_or_default();
    if let Some(old) = find(status, &kind) {
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition_time.clone_from(&old.last_transition_time);
        }
    }
    remove(status, &kind);
    status.conditions.get_or_insert_default().push(new);
}

pub fn remove(status: &mut DeploymentStatus, kind: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_.as_deref() != Some(kind));
        if conditions.is_empty() {
            status.conditions = None;
        }
    }
}

/// Counts and the Available condition; the other conditions as they are.
pub fn calculate(deployment: &Deployment, new: Option<&Set>, old: &[Set], now: Timestamp) -> DeploymentStatus {
    let all = || new.into_iter().chain(old);
    let before = deployment.status.clone().unwrap_or_default();
    let available: i32 = all().map(Set::available).sum();
    let wanted_total: i32 = all().map(|set| set.replicas).sum();
    let some = |count: i32| (count != 0).then_some(count);
    let terminating = all().map(|set| set.status().and_then(|status| status.terminating_replicas)).sum::<Option<i32>>();
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(all().map(Set::actual).sum()),
        updated_replicas: some(new.map_or(0, Set::actual)),
        ready_replicas: some(all().map(Set::ready).sum()),
        available_replicas: some(available),
        unavailable_replicas: some((wanted_total - available).max(0)),
        terminating_replicas: terminating,
        collision_count: before.collision_count,
        conditions: before.conditions,
    };
    let limits = limits(deployment);
    let (value, reason, text) = if available >= limits.replicas - limits.unavailable {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(&mut status, condition(AVAILABLE, value, reason, text.to_string(), now));
    status
}

fn counts(status: &DeploymentStatus) -> (i32, i32, i32, i32) {
    (
        status.replicas.unwrap_or(0),
        status.updated_replicas.unwrap_or(0),
        status.ready_replicas.unwrap_or(0),
        status.available_replicas.unwrap_or(0),
    )
}

/// Every replica wanted is updated and available, and no other is left.
pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = limits(deployment).replicas;
    let (replicas, updated, _, available) = counts(status);
    updated == wanted
        && replicas == wanted
        && available == wanted
        && status.observed_generation.unwrap_or(0) >= deployment.metadata.generation.unwrap_or(0)
}

fn is_progressing(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let (old, new) = (counts(before), counts(after));
    new.1 > old.1 || new.0 - new.1 < old.0 - old.1 || new.2 > old.2 || new.3 > old.3
}

/// Upstream writes i32::MAX for "no deadline".
fn deadline_s(deployment: &Deployment) -> Option<i64> {
    let deadline = deployment.spec.progress_deadline_seconds?;
    (deadline != i32::MAX).then_some(i64::from(deadline))
}

/// The Progressing condition of a deployment that was paused or resumed; its deadline does not run meanwhile.
pub fn paused(deployment: &Deployment, now: Timestamp) -> Option<DeploymentCondition> {
    deadline_s(deployment)?;
    let current = deployment.status.as_ref().and_then(|status| find(status, PROGRESSING));
    let reason = current.and_then(|condition| condition.reason.as_deref());
    if reason == Some(TIMED_OUT) {
        return None;
    }
    let is_paused = deployment.spec.paused.unwrap_or(false);
    match (is_paused, reason == Some("DeploymentPaused")) {
        (true, false) => {
            Some(condition(PROGRESSING, "Unknown", "DeploymentPaused", "Deployment is paused".into(), now))
        }
        (false, true) => {
            Some(condition(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed".into(), now))
        }
        _ => None,
    }
}

/// The status during a rollout, with its progress.
pub fn progress(deployment: &Deployment, new: Option<&Set>, old: &[Set], now: Timestamp) -> DeploymentStatus {
    let before = deployment.status.clone().unwrap_or_default();
    let mut status = calculate(deployment, new, old, now);
    let Some(deadline_s) = deadline_s(deployment) else {
        remove(&mut status, PROGRESSING);
        failures(&mut status, new, old, now);
        return status;
    };
    let current = find(&before, PROGRESSING).cloned();
    let reason = current.as_ref().and_then(|condition| condition.reason.as_deref());
    let was_complete =
        status.replicas.unwrap_or(0) == status.updated_replicas.unwrap_or(0) && reason == Some(NEW_SET_AVAILABLE);
    if !was_complete {
        let subject = match new {
            Some(set) => format!("ReplicaSet \"{}\"", set.object.name_any()),
            None => format!("Deployment \"{}\"", deployment.name_any()),
        };
        if is_complete(deployment, &status) {
            let message = format!("{subject} has successfully progressed.");
            set(&mut status, condition(PROGRESSING, "True", NEW_SET_AVAILABLE, message, now));
        } else if is_progressing(&before, &status) {
            let mut fresh =
                condition(PROGRESSING, "True", "ReplicaSetUpdated", format!("{subject} is progressing."), now);
            if let Some(current) = current.filter(|current| current.status.as_deref() == Some("True")) {
                fresh.last_transition_time = current.last_transition_time;
            }
            // removed first: progress moves the update time even with the same reason, and so the deadline
            remove(&mut status, PROGRESSING);
            set(&mut status, fresh);
        } else if is_timed_out(&status, deadline_s, now) {
            let message = format!("{subject} has timed out progressing.");
            set(&mut status, condition(PROGRESSING, "False", TIMED_OUT, message, now));
        }
    }
    failures(&mut status, new, old, now);
    status
}

fn is_timed_out(status: &DeploymentStatus, deadline_s: i64, now: Timestamp) -> bool {
    let Some(current) = find(status, PROGRESSING) else { return false };
    match current.reason.as_deref() {
        Some(NEW_SET_AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        _ => current.last_update_time.as_ref().is_some_and(|from| clock::after_s(from.0, deadline_s) < now),
    }
}

/// Carries ReplicaFailure up from the sets: the new one's first.
fn failures(status: &mut DeploymentStatus, new: Option<&Set>, old: &[Set], _now: Timestamp) {
    let failure_of = |object: &Arc<ReplicaSet>| {
        let conditions = object.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        conditions.into_iter().find(|condition| condition.type_.as_deref() == Some(REPLICA_FAILURE))
    };
    let failure = new.into_iter().chain(old).find_map(|set| failure_of(&set.object));
    match failure {
        None => remove(status, REPLICA_FAILURE),
        Some(failure) => set(
            status,
            DeploymentCondition {
                type_: failure.type_,
                status: failure.status,
                reason: failure.reason,
                message: failure.message,
                last_update_time: failure.last_transition_time.clone(),
                last_transition_time: failure.last_transition_time,
            },
        ),
    }
}

/// When to look again so that a stuck rollout is noticed.
pub fn look_again(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> Option<Duration> {
    let deadline_s = deadline_s(deployment)?;
    let current = find(status, PROGRESSING)?;
    if is_complete(deployment, status) || current.reason.as_deref() == Some(TIMED_OUT) {
        return None;
    }
    let from = current.last_update_time.as_ref()?.0;
    Some(clock::until(now, clock::after_s(from, deadline_s + 1)).max(Duration::from_secs(1)))
}
