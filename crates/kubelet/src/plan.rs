//! What to do next for a pod: a pure function from the pod and what the runtime has of it to steps.
//!
//! Reads the pod, its [`Observed`] state, probe results, back-off and a time it is given; writes nothing. Invariant: the
//! steps are safe to lose: whatever part of them was carried out, planning again finds the rest.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use crate::backoff::Backoff;
use crate::observed::{self, Instance, Observed, State};
use crate::spec::{self, Kind, Slot};

/// What probes say of one instance; `None` is no probe or no result yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProbeView {
    /// False: restart it.
    pub liveness: Option<bool>,
    /// False: no traffic.
    pub readiness: Option<bool>,
    /// True: it has started; false: restart it.
    pub startup: Option<bool>,
}

/// Everything a plan is made from.
pub struct Situation<'a> {
    pub pod: &'a Pod,
    pub observed: &'a Observed,
    /// By CRI id.
    pub probes: &'a dyn Fn(&str) -> ProbeView,
    /// By container name.
    pub backoff: &'a Backoff,
    pub now: Timestamp,
}

/// How a pod ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Succeeded,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Stop a sandbox that is of no use any more, and all in it.
    StopSandbox { id: String },
    /// Make a sandbox, then plan again.
    CreateSandbox { attempt: u32 },
    /// Remove an instance that was made but never started.
    Remove { id: String, name: String },
    /// Stop an instance with its grace period.
    Kill { id: String, name: String, message: String, grace_seconds: Option<i64> },
    /// Make and start a new instance; `after` is when the one before it ended.
    Start { name: String, attempt: u32, after: Option<Timestamp> },
}

/// A container that waits to be restarted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub name: String,
    pub message: String,
}

/// Steps in order, who waits, and when to plan again at the latest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub waiting: Vec<Waiting>,
    pub wake_after: Option<SignedDuration>,
    /// The pod has ended: nothing of it will run again.
    pub outcome: Option<Outcome>,
}

/// Whether the pod has ended, and how: an init container failed for good, or every container did what it should.
pub fn outcome(pod: &Pod, observed: &Observed) -> Option<Outcome> {
    let slots = spec::containers(pod);
    let ended = |slot: &Slot<'_>| {
        observed
            .newest(slot.name())
            .filter(|instance| instance.state == State::Exited)
            .filter(|instance| !spec::restarts(pod, slot, instance.exit_code))
            .map(|instance| instance.exit_code)
    };
    if slots.iter().any(|slot| slot.kind == Kind::Init && ended(slot).is_some_and(|code| code != 0)) {
        return Some(Outcome::Failed);
    }
    let mut all_zero = true;
    for slot in slots.iter().filter(|slot| slot.kind == Kind::Regular) {
        all_zero &= ended(slot)? == 0;
    }
    Some(if all_zero { Outcome::Succeeded } else { Outcome::Failed })
}

/// Every init container is done and every sidecar has started, in the newest sandbox; or it was so once.
pub fn initialized(pod: &Pod, observed: &Observed, probes: &dyn Fn(&str) -> ProbeView) -> bool {
    let Some(sandbox) = observed.sandbox() else { return false };
    let slots = spec::containers(pod);
    let begun = |slot: &Slot<'_>| slot.kind == Kind::Regular && observed.newest_in(slot.name(), &sandbox.id).is_some();
    if slots.iter().any(begun) {
        return true;
    }
    slots.iter().all(|slot| match (slot.kind, observed.newest_in(slot.name(), &sandbox.id)) {
        (Kind::Init, Some(instance)) => instance.state == State::Exited && instance.exit_code == 0,
        (Kind::Sidecar, Some(instance)) => has_started(slot, instance, probes),
        (Kind::Init | Kind::Sidecar, None) => false,
        _ => true,
    })
}

/// The instance runs and its startup probe, if it has one, has succeeded.
pub fn has_started(slot: &Slot<'_>, instance: &Instance, probes: &dyn Fn(&str) -> ProbeView) -> bool {
    instance.state == State::Running
        && (slot.container.startup_probe.is_none() || probes(&instance.id).startup == Some(true))
}

/// The next steps of a pod that should run.
pub fn plan(situation: &Situation<'_>) -> Plan {
    let mut plan = Plan { outcome: outcome(situation.pod, situation.observed), ..Plan::default() };
    if plan.outcome.is_some() {
        return plan;
    }
    let observed = situation.observed;
    for old in observed.sandboxes.iter().skip(1).filter(|sandbox| sandbox.ready) {
        plan.steps.push(Step::StopSandbox { id: old.id.clone() });
    }
    let host_network = spec::host_network(situation.pod);
    match observed.sandbox() {
        Some(sandbox) if sandbox.ready && (host_network || !sandbox.ips.is_empty()) => {
            let id = sandbox.id.clone();
            plan_containers(situation, &id, &mut plan);
        }
        Some(sandbox) => {
            // its containers must be seen to have ended before it is decided which of them run again
            plan.steps.push(Step::StopSandbox { id: sandbox.id.clone() });
            let alive = |instance: &&Instance| instance.state == State::Running && instance.sandbox_id == sandbox.id;
            if !observed.instances.iter().any(|instance| alive(&instance)) {
                plan.steps.push(Step::CreateSandbox { attempt: sandbox.attempt + 1 });
            }
        }
        None => plan.steps.push(Step::CreateSandbox { attempt: 0 }),
    }
    plan
}

fn plan_containers(situation: &Situation<'_>, sandbox_id: &str, plan: &mut Plan) {
    let (pod, observed) = (situation.pod, situation.observed);
    let slots = spec::containers(pod);
    for slot in slots.iter().filter(|slot| slot.kind == Kind::Ephemeral) {
        if observed.newest(slot.name()).is_none() {
            plan.steps.push(Step::Start { name: slot.name().to_string(), attempt: 0, after: None });
        }
    }
    let begun =
        slots.iter().any(|slot| slot.kind == Kind::Regular && observed.newest_in(slot.name(), sandbox_id).is_some());
    for slot in slots.iter().filter(|slot| matches!(slot.kind, Kind::Init | Kind::Sidecar)) {
        let instance = observed.newest_in(slot.name(), sandbox_id);
        if begun {
            // init containers are history; sidecars are kept alive
            if slot.kind == Kind::Sidecar {
                keep_running(situation, slot, instance, plan);
            }
            continue;
        }
        let done = match (slot.kind, instance) {
            (Kind::Init, Some(instance)) => instance.state == State::Exited && instance.exit_code == 0,
            (_, Some(instance)) => has_started(slot, instance, situation.probes),
            (_, None) => false,
        };
        if !done || slot.kind == Kind::Sidecar {
            keep_running(situation, slot, instance, plan);
        }
        if !done {
            return;
        }
    }
    for slot in slots.iter().filter(|slot| slot.kind == Kind::Regular) {
        keep_running(situation, slot, observed.newest(slot.name()), plan);
    }
}

/// Starts a container that does not run but should, stops one that runs but should not.
fn keep_running(situation: &Situation<'_>, slot: &Slot<'_>, instance: Option<&Instance>, plan: &mut Plan) {
    let name = slot.name().to_string();
    let Some(instance) = instance else {
        plan.steps.push(Step::Start { attempt: next_attempt(situation, &name), name, after: None });
        return;
    };
    match instance.state {
        State::Running => {
            if let Some((message, grace_seconds)) = why_kill(situation, slot, instance) {
                plan.steps.push(Step::Kill { id: instance.id.clone(), name, message, grace_seconds });
            }
        }
        State::Created => begin_again(situation, instance, plan),
        State::Unknown => {
            let message = format!("Container {name} is in unknown state, try killing it before restart");
            plan.steps.push(Step::Kill { id: instance.id.clone(), name, message, grace_seconds: None });
        }
        State::Exited => restart(situation, slot, instance, plan),
    }
}

fn restart(situation: &Situation<'_>, slot: &Slot<'_>, instance: &Instance, plan: &mut Plan) {
    if !spec::restarts(situation.pod, slot, instance.exit_code) {
        return;
    }
    let name = slot.name().to_string();
    let ended = ended(situation, instance);
    if !must_wait(situation, &name, ended, plan) {
        let attempt = next_attempt(situation, &name);
        plan.steps.push(Step::Start { name, attempt, after: Some(ended) });
    }
}

/// What was made and not started belongs to a kubelet that was interrupted, or to a runtime that could not start it: the
/// first time it is made anew at once, then with the waits of a crash.
fn begin_again(situation: &Situation<'_>, instance: &Instance, plan: &mut Plan) {
    let name = instance.name.clone();
    let made = ended(situation, instance);
    if !must_wait(situation, &name, made, plan) {
        plan.steps.push(Step::Remove { id: instance.id.clone(), name: name.clone() });
        plan.steps.push(Step::Start { name, attempt: instance.attempt, after: Some(made) });
    }
}

/// When an instance ended; for one that the runtime has no end of, when it was made.
fn ended(situation: &Situation<'_>, instance: &Instance) -> Timestamp {
    instance.finished.or_else(|| observed::time(instance.created_ns)).unwrap_or(situation.now)
}

/// Notes that the container waits, if its back-off says so.
fn must_wait(situation: &Situation<'_>, name: &str, ended: Timestamp, plan: &mut Plan) -> bool {
    let Some((wait, left)) = situation.backoff.waiting(name, ended, situation.now) else { return false };
    let message = format!(
        "back-off {} restarting failed container={name} pod={}",
        meta::time::go_duration(wait.as_secs() * 1_000_000_000),
        spec::described(situation.pod)
    );
    plan.waiting.push(Waiting { name: name.to_string(), message });
    plan.wake_after = Some(plan.wake_after.map_or(left, |other| other.min(left)));
    true
}

/// One more than the newest instance's; without one, one more than the API's count if a container was there once.
fn next_attempt(situation: &Situation<'_>, name: &str) -> u32 {
    if let Some(instance) = situation.observed.newest(name) {
        return instance.attempt + 1;
    }
    let Some(status) = &situation.pod.status else { return 0 };
    let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let known = all.filter(|status| status.name == name && status.container_id.is_some());
    known.map(|status| status.restart_count as u32 + 1).next().unwrap_or(0)
}

/// Why a running instance must go, and a grace period of its own if the probe has one.
fn why_kill(situation: &Situation<'_>, slot: &Slot<'_>, instance: &Instance) -> Option<(String, Option<i64>)> {
    let name = slot.name();
    if !instance.hash.is_empty() && instance.hash != spec::hash(&slot.container) {
        return Some((format!("Container {name} definition changed, will be restarted"), None));
    }
    let view = (situation.probes)(&instance.id);
    let restarted = if spec::restarts(situation.pod, slot, 137) { ", will be restarted" } else { "" };
    let grace = |probe: &Option<k8s_openapi::api::core::v1::Probe>| {
        probe.as_ref().and_then(|probe| probe.termination_grace_period_seconds)
    };
    if view.liveness == Some(false) {
        let message = format!("Container {name} failed liveness probe{restarted}");
        return Some((message, grace(&slot.container.liveness_probe)));
    }
    if view.startup == Some(false) {
        let message = format!("Container {name} failed startup probe{restarted}");
        return Some((message, grace(&slot.container.startup_probe)));
    }
    None
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
