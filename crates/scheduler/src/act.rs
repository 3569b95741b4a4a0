//! Carries out what a cycle decided: binds the pod, or reports why it cannot be placed and evicts for it.
//! Writes: pods/binding, pods/status, Events; deletes victims. Invariant: whatever fails, the assumed pod is forgotten
//! and the pod goes back to the queue.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;
use tokio::time::Instant;

use crate::Shared;
use crate::cache::ASSUMED_TTL;
use crate::cycle::Decision;
use crate::diagnosis::event_note;
use crate::event::Event;
use crate::framework::{Permit, Point, Profile};
use crate::pod::PodInfo;
use crate::queue::Queued;

#[derive(Clone)]
pub struct Actor {
    pub shared: Shared,
    pub client: kube::Client,
    pub recorder: client::Recorder,
}

fn reference(pod: &PodInfo) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.namespace.to_string()),
        name: Some(pod.name.to_string()),
        uid: Some(pod.uid.to_string()),
        ..ObjectReference::default()
    }
}

/// The status patch that says why a pod has no node; None when the pod already says so.
fn not_scheduled_patch(
    pod: &PodInfo,
    reason: &str,
    message: &str,
    nominated: Option<&str>,
) -> Option<serde_json::Value> {
    let mut status = serde_json::Map::new();
    let known = pod.not_scheduled.as_ref();
    if known.is_none_or(|(r, m)| **r != *reason || **m != *message) {
        let mut condition = json!({"type": "PodScheduled", "status": "False", "reason": reason, "message": message});
        if known.is_none() {
            condition["lastTransitionTime"] = json!(jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        }
        if let Some(generation) = pod.generation {
            condition["observedGeneration"] = json!(generation);
        }
        status.insert("conditions".to_owned(), json!([condition]));
    }
    let nominated = nominated.unwrap_or_default();
    if nominated != &*pod.nominated_node {
        let value = if nominated.is_empty() { json!(null) } else { json!(nominated) };
        status.insert("nominatedNodeName".to_owned(), value);
    }
    (!status.is_empty()).then(|| json!({"status": status}))
}

impl Actor {
    pub async fn act(&self, decision: Decision) {
        match decision {
            Decision::Skip => {}
            Decision::Place { queued, node, profile } => match self.place(&queued.pod, &node, &profile).await {
                Ok(()) => self.placed(&queued.pod, &node, &profile),
                Err(why) => self.failed(queued, &node, &profile, why).await,
            },
            Decision::Park { queued, message, nominated, victims } => {
                let pod = &queued.pod;
                self.recorder.event(&reference(pod), "Warning", "FailedScheduling", event_note(&message));
                tracing::debug!(pod = %pod.key(), attempts = queued.attempts, message, "no node");
                self.patch_status(pod, not_scheduled_patch(pod, "Unschedulable", &message, nominated.as_deref())).await;
                if let Some(node) = nominated {
                    for victim in victims {
                        self.evict(&victim, pod, &node).await;
                    }
                }
            }
        }
    }

    async fn place(&self, pod: &Arc<PodInfo>, node: &str, profile: &Profile) -> Result<(), String> {
        profile.reserve(pod, node).map_err(|reason| format!("running Reserve plugins: {reason}"))?;
        match profile.permit(pod, node) {
            Permit::Allow => {}
            Permit::Reject(reason) => return Err(format!("rejected by a Permit plugin: {reason}")),
            Permit::Wait(time) => {
                tokio::time::sleep(time).await;
                if profile.permit(pod, node) != Permit::Allow {
                    return Err(format!("rejected due to timeout after waiting {}s at plugin", time.as_secs()));
                }
            }
        }
        for (_, plugin) in profile.at(Point::PreBind) {
            plugin
                .pre_bind(&self.client, pod, node)
                .await
                .map_err(|e| format!("running PreBind plugin \"{}\": {e}", plugin.name()))?;
        }
        for (_, plugin) in profile.at(Point::Bind) {
            if let Some(done) = plugin.bind(&self.client, pod, node).await {
                return done.map_err(|e| format!("binding rejected: running Bind plugin \"{}\": {e}", plugin.name()));
            }
        }
        Err("no Bind plugin took the pod; enable DefaultBinder".to_owned())
    }

    fn placed(&self, pod: &PodInfo, node: &str, profile: &Profile) {
        {
            let mut state = self.shared.lock();
            state.cache.finish_binding(&pod.uid, Instant::now() + ASSUMED_TTL);
            state.queue.remove(&pod.uid);
        }
        self.recorder.event(
            &reference(pod),
            "Normal",
            "Scheduled",
            format!("Successfully assigned {} to {node}", pod.key()),
        );
        profile.at(Point::PostBind).for_each(|(_, plugin)| plugin.post_bind(pod, node));
    }

    async fn failed(&self, queued: Queued, node: &str, profile: &Profile, why: String) {
        let pod = &queued.pod;
        profile.unreserve(pod, node);
        let waiting = {
            let mut state = self.shared.lock();
            let now = Instant::now();
            if state.cache.forget(&pod.uid) {
                state.react(&Event::PodRemoved(pod), now);
                state.queue.retry(&pod.uid, now);
            } else {
                // The informer says that the pod is on a node after all, or gone.
                state.queue.remove(&pod.uid);
            }
            state.queue.get(&pod.uid).is_some()
        };
        self.shared.ring();
        if !waiting {
            return;
        }
        tracing::warn!(pod = %pod.key(), node, why, "cannot bind; trying again later");
        self.recorder.event(&reference(pod), "Warning", "FailedScheduling", event_note(&why));
        let nominated = (!pod.nominated_node.is_empty()).then_some(&*pod.nominated_node);
        self.patch_status(pod, not_scheduled_patch(pod, "SchedulerError", &why, nominated)).await;
    }

    async fn patch_status(&self, pod: &PodInfo, patch: Option<serde_json::Value>) {
        let Some(mut patch) = patch else { return };
        patch["metadata"] = json!({"uid": &*pod.uid});
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        if let Err(error) = api.patch_status(&pod.name, &PatchParams::default(), &Patch::Strategic(patch)).await
            && !client::is_not_found(&error)
            && !client::is_conflict(&error)
        {
            tracing::warn!(pod = %pod.key(), %error, "cannot write the pod's status; it is written again at the next attempt");
        }
    }

    /// Evicts a victim: says why in its status, then deletes it gracefully.
    async fn evict(&self, victim: &PodInfo, preemptor: &PodInfo, node: &str) {
        if victim.terminating {
            return;
        }
        let condition = json!({"status": {"conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
            "message": format!("{}: preempting to accommodate a higher priority pod", preemptor.scheduler_name),
            "lastTransitionTime": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }]}});
        self.patch_status(victim, Some(condition)).await;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &victim.namespace);
        let preconditions = Preconditions { uid: Some(victim.uid.to_string()), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match api.delete(&victim.name, &params).await {
            Ok(_) => {
                let message = format!("Preempted by pod {} on node {node}", preemptor.uid);
                self.recorder.event(&reference(victim), "Normal", "Preempted", message);
            }
            Err(error) if client::is_not_found(&error) => {}
            Err(error) => {
                tracing::warn!(pod = %victim.key(), %error, "cannot preempt; tried again when the pod is retried")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod_info;

    #[test]
    fn the_status_is_written_only_when_it_changes() {
        let pod = |status: &str| {
            pod_info(&format!(r#"{{"metadata":{{"generation":1}},"spec":{{"containers":[]}},"status":{status}}}"#))
        };
        let known =
            r#"{"conditions":[{"type":"PodScheduled","status":"False","reason":"Unschedulable","message":"m"}]}"#;
        let patch = |status: &str, message: &str, nominated| {
            not_scheduled_patch(&pod(status), "Unschedulable", message, nominated)
        };
        assert_eq!(patch(known, "m", None), None);
        assert_eq!(
            patch(known, "other", None),
            Some(
                json!({"status":{"conditions":[{"type":"PodScheduled","status":"False","reason":"Unschedulable","message":"other","observedGeneration":1}]}})
            )
        );
        assert_eq!(patch(known, "m", Some("n")), Some(json!({"status":{"nominatedNodeName":"n"}})));
        let nominated = r#"{"nominatedNodeName":"n","conditions":[{"type":"PodScheduled","status":"False","reason":"Unschedulable","message":"m"}]}"#;
        assert_eq!(patch(nominated, "m", None), Some(json!({"status":{"nominatedNodeName":null}})));
        let first = patch("{}", "m", None).unwrap();
        assert!(first["status"]["conditions"][0]["lastTransitionTime"].is_string());
    }
}
