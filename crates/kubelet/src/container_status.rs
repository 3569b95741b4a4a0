//! The statuses of a pod's containers: state, last state, readiness, restart count.
//!
//! Reads the same view as [`crate::status`]; pure. Invariant: a restart count never goes down while the pod lives.

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, LinuxContainerUser, ResourceRequirements, VolumeMountStatus,
};

use crate::observed::{Instance, State};
use crate::plan;
use crate::spec::{self, Kind, Slot};
use crate::status::{Stage, View, WaitReason, time};

/// Statuses of init, regular and ephemeral containers.
pub(crate) fn all(view: &View<'_>, phase: &str) -> (Vec<ContainerStatus>, Vec<ContainerStatus>, Vec<ContainerStatus>) {
    let (mut init, mut regular, mut ephemeral) = (Vec::new(), Vec::new(), Vec::new());
    for slot in spec::containers(view.pod) {
        let status = one(view, &slot, phase);
        match slot.kind {
            Kind::Init | Kind::Sidecar => init.push(status),
            Kind::Regular => regular.push(status),
            Kind::Ephemeral => ephemeral.push(status),
        }
    }
    // Compat: upstream sorts these two lists by name and leaves init containers in spec order
    regular.sort_by(|a, b| a.name.cmp(&b.name));
    ephemeral.sort_by(|a, b| a.name.cmp(&b.name));
    (init, regular, ephemeral)
}

fn one(view: &View<'_>, slot: &Slot<'_>, phase: &str) -> ContainerStatus {
    let name = slot.name();
    let before = previous(view, slot);
    let mut status = ContainerStatus {
        name: name.to_string(),
        image: slot.container.image.clone().unwrap_or_default(),
        started: Some(false),
        ..ContainerStatus::default()
    };
    match view.observed.newest(name) {
        Some(instance) => from_instance(view, slot, instance, &mut status),
        None => from_memory(view, slot, before, &mut status),
    }
    if let Some(before) = before {
        status.restart_count = status.restart_count.max(before.restart_count);
        if status.last_state.is_none() {
            status.last_state = before.last_state.clone().filter(|state| state.terminated.is_some());
        }
    }
    status.last_state.get_or_insert_default();
    if slot.kind != Kind::Ephemeral {
        let resources = slot.container.resources.clone().unwrap_or_default();
        status.allocated_resources = resources.requests.clone().filter(|list| !list.is_empty());
        status.resources = Some(ResourceRequirements { claims: None, ..resources });
    }
    status.volume_mounts = volume_mounts(slot);
    // a pod that has ended serves nobody
    if matches!(phase, "Failed" | "Succeeded") && slot.kind != Kind::Init {
        status.ready = false;
    }
    status
}

fn previous<'a>(view: &View<'a>, slot: &Slot<'_>) -> Option<&'a ContainerStatus> {
    let list = match slot.kind {
        Kind::Init | Kind::Sidecar => &view.previous.init_container_statuses,
        Kind::Regular => &view.previous.container_statuses,
        Kind::Ephemeral => &view.previous.ephemeral_container_statuses,
    };
    list.iter().flatten().find(|status| status.name == slot.name())
}

fn from_instance(view: &View<'_>, slot: &Slot<'_>, instance: &Instance, status: &mut ContainerStatus) {
    status.restart_count = instance.attempt as i32;
    if !instance.image.is_empty() {
        status.image.clone_from(&instance.image);
    }
    status.image_id.clone_from(&instance.image_id);
    status.container_id = Some(format!("{}://{}", view.runtime, instance.id));
    status.last_state = view
        .observed
        .previous(slot.name())
        .filter(|older| older.state == State::Exited)
        .map(|older| terminated(view, older));
    let wait = view.waiting.get(slot.name());
    status.state = Some(match instance.state {
        State::Running => {
            status.started = Some(plan::has_started(slot, instance, view.probes));
            status.ready = ready(view, slot, instance, status.started == Some(true));
            status.user = instance.user.as_ref().map(user);
            running(instance)
        }
        State::Created => waiting(wait.cloned().unwrap_or_else(creating)),
        State::Exited | State::Unknown => match wait {
            Some(wait) if view.stage == Stage::Sync => {
                status.last_state = Some(terminated(view, instance));
                waiting(wait.clone())
            }
            _ => {
                status.ready = slot.kind == Kind::Init && instance.exit_code == 0;
                terminated(view, instance)
            }
        },
    });
}

/// No instance exists: it was never made, or it was lost.
fn from_memory(view: &View<'_>, slot: &Slot<'_>, before: Option<&ContainerStatus>, status: &mut ContainerStatus) {
    let known = before.and_then(|before| before.state.as_ref());
    let had = before.filter(|before| before.container_id.is_some());
    if let Some(before) = had {
        status.container_id.clone_from(&before.container_id);
        status.image_id.clone_from(&before.image_id);
        if let Some(ended) = known.filter(|state| state.terminated.is_some()) {
            status.ready = before.ready && slot.kind == Kind::Init;
            status.state = Some(ended.clone());
            status.last_state.clone_from(&before.last_state);
            return;
        }
        if view.stage != Stage::Sync || spec::is_terminal(view.pod) {
            status.state = Some(lost("The container could not be located when the pod was terminated"));
            return;
        }
        status.last_state.clone_from(&before.last_state);
        if known.is_some_and(|state| state.running.is_some()) {
            let message =
                "The container could not be located when the pod was deleted.  The container used to be Running";
            status.last_state = Some(lost(message));
        }
    }
    let wait = view.waiting.get(slot.name()).cloned();
    let default = match slot.kind {
        Kind::Regular if !init_done(view) => {
            WaitReason { reason: "PodInitializing".to_string(), message: String::new() }
        }
        Kind::Init | Kind::Sidecar if slot.index > 0 || has_init(view) => {
            WaitReason { reason: "PodInitializing".to_string(), message: String::new() }
        }
        _ => creating(),
    };
    status.state = Some(waiting(wait.unwrap_or(default)));
}

fn has_init(view: &View<'_>) -> bool {
    view.pod.spec.as_ref().is_some_and(|spec| spec.init_containers.as_ref().is_some_and(|list| !list.is_empty()))
}

fn init_done(view: &View<'_>) -> bool {
    !has_init(view) || plan::initialized(view.pod, view.observed, view.probes)
}

fn creating() -> WaitReason {
    WaitReason { reason: "ContainerCreating".to_string(), message: String::new() }
}

/// A running container is ready when its readiness probe says so, or has none; sidecars and regular ones only.
fn ready(view: &View<'_>, slot: &Slot<'_>, instance: &Instance, started: bool) -> bool {
    if !matches!(slot.kind, Kind::Regular | Kind::Sidecar) || !started {
        return false;
    }
    if slot.container.readiness_probe.is_none() {
        return true;
    }
    match (view.probes)(&instance.id).readiness {
        Some(result) => result,
        // after a restart of the kubelet what was ready stays so until the probe has spoken
        None => previous(view, slot).is_some_and(|before| {
            before.ready && before.container_id.as_deref().is_some_and(|id| id.ends_with(&instance.id))
        }),
    }
}

fn running(instance: &Instance) -> ContainerState {
    let started_at = instance.started.map(time);
    ContainerState { running: Some(ContainerStateRunning { started_at }), ..ContainerState::default() }
}

fn waiting(wait: WaitReason) -> ContainerState {
    let message = Some(wait.message).filter(|text| !text.is_empty());
    let waiting = ContainerStateWaiting { reason: Some(wait.reason), message };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

fn terminated(view: &View<'_>, instance: &Instance) -> ContainerState {
    let reason = match (instance.reason.as_str(), instance.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    let terminated = ContainerStateTerminated {
        container_id: Some(format!("{}://{}", view.runtime, instance.id)),
        exit_code: instance.exit_code,
        reason: Some(reason.to_string()),
        message: Some(instance.message.clone()).filter(|text| !text.is_empty()),
        signal: None,
        // Compat: a container that never started shows the year 1970, as upstream does
        started_at: Some(time(instance.started.unwrap_or_default())),
        finished_at: Some(time(instance.finished.unwrap_or_default())),
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

fn lost(message: &str) -> ContainerState {
    let terminated = ContainerStateTerminated {
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".to_string()),
        message: Some(message.to_string()),
        ..ContainerStateTerminated::default()
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

fn user(from: &cri::v1::LinuxContainerUser) -> ContainerUser {
    let linux = LinuxContainerUser {
        uid: from.uid,
        gid: from.gid,
        supplemental_groups: (!from.supplemental_groups.is_empty()).then(|| from.supplemental_groups.clone()),
    };
    ContainerUser { linux: Some(linux) }
}

fn volume_mounts(slot: &Slot<'_>) -> Option<Vec<VolumeMountStatus>> {
    let mounts = slot.container.volume_mounts.as_ref().filter(|list| !list.is_empty())?;
    let shown = mounts.iter().map(|mount| {
        let read_only = mount.read_only.filter(|on| *on);
        VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only,
            recursive_read_only: read_only
                .map(|_| mount.recursive_read_only.clone().unwrap_or_else(|| "Disabled".to_string())),
            ..VolumeMountStatus::default()
        }
    });
    Some(shown.collect())
}
