//! A pod's status as upstream writes it: phase, conditions, addresses, start time.
//!
//! Reads the pod, what the runtime has of it and what the worker remembers; pure. Invariant: conditions and fields other
//! components own (PodScheduled's content, DisruptionTarget, nominatedNodeName) are carried over untouched.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::container_status;
use crate::observed::{Observed, State};
use crate::plan::{self, Outcome, ProbeView};
use crate::spec::{self, Kind};

/// Where the pod's worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It should run.
    Sync,
    /// Its containers are being stopped.
    Terminating,
    /// They have stopped.
    Terminated,
}

/// Why a container does not run: a reason and a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WaitReason {
    pub reason: String,
    pub message: String,
}

/// The pod was ended by the kubelet: its phase is this, for this reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    pub reason: String,
    pub message: String,
}

/// Everything a status is made from.
pub struct View<'a> {
    pub pod: &'a Pod,
    pub observed: &'a Observed,
    /// The status last written; the API's after a restart.
    pub previous: &'a PodStatus,
    pub probes: &'a dyn Fn(&str) -> ProbeView,
    /// By container name.
    pub waiting: &'a BTreeMap<String, WaitReason>,
    pub node_ips: &'a [String],
    pub stage: Stage,
    /// Set when the kubelet ended the pod.
    pub verdict: Option<&'a Verdict>,
    /// The scheme of container ids, `containerd`.
    pub runtime: &'a str,
    pub now: Timestamp,
}

pub fn pod_status(view: &View<'_>) -> PodStatus {
    let pod = view.pod;
    let mut status = PodStatus {
        // what is not ours, as it is
        nominated_node_name: view.previous.nominated_node_name.clone(),
        resource_claim_statuses: view.previous.resource_claim_statuses.clone(),
        extended_resource_claim_status: view.previous.extended_resource_claim_status.clone(),
        resize: view.previous.resize.clone(),
        ..PodStatus::default()
    };
    status.observed_generation = pod.metadata.generation;
    status.qos_class = Some(spec::qos(pod).as_str().to_string());
    status.start_time = view.previous.start_time.clone().or_else(|| Some(time(view.now)));
    let phase = phase(view);
    let (init, regular, ephemeral) = container_status::all(view, phase);
    status.phase = Some(phase.to_string());
    let verdict = view.verdict.cloned().or_else(|| kept_verdict(view.previous, phase));
    status.reason = verdict.as_ref().map(|verdict| verdict.reason.clone()).filter(|text| !text.is_empty());
    status.message = verdict.map(|verdict| verdict.message).filter(|text| !text.is_empty());
    addresses(view, &mut status);
    status.conditions = Some(conditions(view, phase, &init, &regular));
    status.init_container_statuses = (!init.is_empty()).then_some(init);
    status.container_statuses = (!regular.is_empty()).then_some(regular);
    status.ephemeral_container_statuses = (!ephemeral.is_empty()).then_some(ephemeral);
    status
}

/// A pod that ended keeps the words that were said of it, also after a restart of the kubelet.
fn kept_verdict(previous: &PodStatus, phase: &str) -> Option<Verdict> {
    let ended = matches!(phase, "Failed" | "Succeeded") && previous.phase.as_deref() == Some(phase);
    ended.then(|| Verdict {
        reason: previous.reason.clone().unwrap_or_default(),
        message: previous.message.clone().unwrap_or_default(),
    })
}

/// A timestamp in whole seconds, as the API has them.
pub fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

pub fn phase(view: &View<'_>) -> &'static str {
    // an ended pod stays ended
    match view.previous.phase.as_deref() {
        Some("Failed") => return "Failed",
        Some("Succeeded") => return "Succeeded",
        _ => {}
    }
    // while anything of it still runs, an ended pod is not shown as ended
    let alive = view.observed.instances.iter().any(|instance| instance.state == State::Running);
    if view.stage == Stage::Terminating && alive {
        return match view.previous.phase.as_deref() {
            Some("Running") => "Running",
            _ => "Pending",
        };
    }
    if view.verdict.is_some() {
        return "Failed";
    }
    // a pod stopped on request ends by its containers' exit codes; before they stopped it is not over
    match (view.stage, plan::outcome(view.pod, view.observed)) {
        (Stage::Terminated, _) => return terminated_phase(view),
        (Stage::Sync | Stage::Terminating, Some(Outcome::Succeeded)) => return "Succeeded",
        (Stage::Sync | Stage::Terminating, Some(Outcome::Failed)) => return "Failed",
        _ => {}
    }
    let regular = spec::containers(view.pod).into_iter().filter(|slot| slot.kind == Kind::Regular);
    for slot in regular {
        match view.observed.newest(slot.name()) {
            None => {
                // a container that was there once and is gone will be made again: the pod had been running
                if view.previous.phase.as_deref() != Some("Running") {
                    return "Pending";
                }
            }
            Some(instance) if instance.state == State::Created => return "Pending",
            Some(_) => {}
        }
    }
    "Running"
}

fn terminated_phase(view: &View<'_>) -> &'static str {
    let mut regular = spec::containers(view.pod).into_iter().filter(|slot| slot.kind == Kind::Regular);
    let succeeded = regular.all(|slot| {
        view.observed
            .newest(slot.name())
            .is_some_and(|instance| instance.state == State::Exited && instance.exit_code == 0)
    });
    if succeeded { "Succeeded" } else { "Failed" }
}

fn addresses(view: &View<'_>, status: &mut PodStatus) {
    status.host_ip = view.node_ips.first().cloned();
    let host_ips: Vec<HostIP> = view.node_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect();
    status.host_ips = (!host_ips.is_empty()).then_some(host_ips);
    let ips: Vec<String> = if spec::host_network(view.pod) {
        view.node_ips.to_vec()
    } else {
        let ready = view.observed.sandbox().filter(|sandbox| sandbox.ready);
        ready.map(|sandbox| sandbox.ips.clone()).unwrap_or_default()
    };
    if ips.is_empty() {
        // the last known address stays until there is a new one
        status.pod_ip = view.previous.pod_ip.clone();
        status.pod_ips = view.previous.pod_ips.clone();
        return;
    }
    status.pod_ip = ips.first().cloned();
    status.pod_ips = Some(ips.into_iter().map(|ip| PodIP { ip }).collect());
}

/// Status, reason, message of a condition.
type Finding = (bool, Option<&'static str>, Option<String>);

fn conditions(
    view: &View<'_>,
    phase: &str,
    init: &[ContainerStatus],
    regular: &[ContainerStatus],
) -> Vec<PodCondition> {
    let sandbox_up = view
        .observed
        .sandbox()
        .is_some_and(|sandbox| sandbox.ready && (spec::host_network(view.pod) || !sandbox.ips.is_empty()));
    let containers_ready = containers_ready(view, phase, init, regular);
    let ready = pod_ready(view, &containers_ready);
    let own: [(&str, Finding); 4] = [
        ("PodReadyToStartContainers", (sandbox_up, None, None)),
        ("Initialized", pod_initialized(view, phase, init)),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
    ];
    let mut list: Vec<PodCondition> = own.into_iter().map(|(kind, finding)| condition(view, kind, finding)).collect();
    let old = view.previous.conditions.iter().flatten();
    let live = view.pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    for other in live.chain(old) {
        if !list.iter().any(|known| known.type_ == other.type_) {
            list.push(other.clone());
        }
    }
    if !list.iter().any(|known| known.type_ == "PodScheduled") {
        list.push(condition(view, "PodScheduled", (true, None, None)));
    }
    for kept in list.iter_mut().filter(|kept| kept.type_ == "PodScheduled") {
        kept.observed_generation = view.pod.metadata.generation;
    }
    list
}

fn condition(view: &View<'_>, kind: &str, (holds, reason, message): Finding) -> PodCondition {
    let status = if holds { "True" } else { "False" };
    let before = view.previous.conditions.iter().flatten().find(|old| old.type_ == kind && old.status == status);
    PodCondition {
        type_: kind.to_string(),
        status: status.to_string(),
        reason: reason.map(str::to_string),
        message,
        observed_generation: view.pod.metadata.generation,
        last_transition_time: before.and_then(|old| old.last_transition_time.clone()).or_else(|| Some(time(view.now))),
        last_probe_time: None,
    }
}

fn pod_initialized(view: &View<'_>, phase: &str, init: &[ContainerStatus]) -> Finding {
    if init.is_empty() && !has_init(view.pod) {
        return (true, (phase == "Succeeded").then_some("PodCompleted"), None);
    }
    if phase == "Succeeded" {
        return (true, Some("PodCompleted"), None);
    }
    // once a regular container has begun, the pod stays initialized whatever its sidecars do
    if plan::initialized(view.pod, view.observed, view.probes) {
        return (true, None, None);
    }
    let incomplete = init.iter().filter(|status| {
        let sidecar = spec::find(view.pod, &status.name).is_some_and(|slot| slot.kind == Kind::Sidecar);
        if sidecar { status.started != Some(true) } else { !status.ready }
    });
    let names: Vec<&str> = incomplete.map(|status| status.name.as_str()).collect();
    if names.is_empty() {
        return (true, None, None);
    }
    let message = format!("containers with incomplete status: [{}]", names.join(" "));
    (false, Some("ContainersNotInitialized"), Some(message))
}

fn has_init(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.init_containers.as_ref().is_some_and(|list| !list.is_empty()))
}

fn containers_ready(view: &View<'_>, phase: &str, init: &[ContainerStatus], regular: &[ContainerStatus]) -> Finding {
    match phase {
        "Succeeded" => return (false, Some("PodCompleted"), None),
        "Failed" => return (false, Some("PodFailed"), None),
        _ => {}
    }
    let sidecars =
        init.iter().filter(|status| spec::find(view.pod, &status.name).is_some_and(|slot| slot.kind == Kind::Sidecar));
    let listed: Vec<&ContainerStatus> = sidecars.chain(regular).collect();
    let mut unready: Vec<&str> = Vec::new();
    for slot in spec::containers(view.pod) {
        if !matches!(slot.kind, Kind::Regular | Kind::Sidecar) {
            continue;
        }
        if let Some(status) = listed.iter().find(|status| status.name == slot.name())
            && !status.ready
        {
            unready.push(&status.name);
        }
    }
    if unready.is_empty() {
        return (true, None, None);
    }
    let message = format!("containers with unready status: [{}]", unready.join(" "));
    (false, Some("ContainersNotReady"), Some(message))
}

fn pod_ready(view: &View<'_>, containers: &Finding) -> Finding {
    if !containers.0 {
        return containers.clone();
    }
    let gates = view.pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    let mut missing = Vec::new();
    let known: Vec<&PodCondition> = view.pod.status.iter().flat_map(|s| s.conditions.iter().flatten()).collect();
    for gate in gates {
        let kind = &gate.condition_type;
        match known.iter().find(|condition| condition.type_ == *kind) {
            None => missing.push(format!("corresponding condition of pod readiness gate \"{kind}\" does not exist.")),
            Some(condition) if condition.status != "True" => missing
                .push(format!("the status of pod readiness gate \"{kind}\" is not \"True\", but {}", condition.status)),
            Some(_) => {}
        }
    }
    match missing.len() {
        0 => (true, None, None),
        1 => (false, Some("ReadinessGatesNotReady"), missing.pop()),
        _ => (false, Some("ReadinessGatesNotReady"), Some(format!("[{}]", missing.join(", ")))),
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
