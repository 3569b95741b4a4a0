//! Writing pod statuses to the API: what changed since the last write, as a strategic merge patch, retried until it lands.
//!
//! Reads statuses the workers make, keeps only the newest per pod. Invariant: a write names the pod's uid, so that a new
//! pod of the same name never gets an old one's status; other writers' conditions survive.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::spec;

/// How many statuses are written at once.
const WRITERS: usize = 8;

struct Pending {
    pod: Arc<Pod>,
    status: PodStatus,
    /// What the API is known to have: our last write, or what it answered to it.
    written: Option<(u64, PodStatus)>,
    dirty: bool,
}

/// Writes statuses in the background. Cheap to clone.
#[derive(Clone)]
pub struct StatusWriter(Arc<Inner>);

struct Inner {
    client: kube::Client,
    queue: client::WorkQueue<String>,
    pending: Mutex<HashMap<String, Pending>>,
}

impl StatusWriter {
    /// Starts the writers; they end with `shutdown`.
    pub fn new(client: kube::Client, shutdown: CancellationToken) -> StatusWriter {
        let writer =
            StatusWriter(Arc::new(Inner { client, queue: client::WorkQueue::new(), pending: Mutex::default() }));
        let (queue, own) = (writer.0.queue.clone(), writer.clone());
        tokio::spawn(client::run_workers(queue, WRITERS, shutdown, move |uid: String| {
            let own = own.clone();
            async move { own.write(&uid).await.map(|()| client::Action::Done) }
        }));
        writer
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Pending>> {
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pod's status is now this. Written if the API has another.
    pub fn set(&self, pod: &Arc<Pod>, status: &PodStatus) {
        let uid = spec::uid(pod).to_string();
        let mut pending = self.lock();
        let entry = pending.entry(uid.clone()).or_insert_with(|| Pending {
            pod: pod.clone(),
            status: PodStatus::default(),
            written: None,
            dirty: false,
        });
        entry.pod = pod.clone();
        entry.status = status.clone();
        let changed = patch(&known(entry), status).is_some();
        entry.dirty = changed;
        drop(pending);
        if changed {
            self.0.queue.add(uid);
        }
    }

    /// Forgets a pod that is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// Writes the pod's status before going on. A pod that is gone is success.
    pub async fn write_now(&self, pod: &Pod, status: &PodStatus) -> Result<(), String> {
        let uid = spec::uid(pod);
        let base = self.lock().get(uid).map(known).or_else(|| pod.status.clone()).unwrap_or_default();
        match patch(&base, status) {
            Some(body) => self.send(pod, body).await.map(|written| {
                if let (Some(written), Some(entry)) = (written, self.lock().get_mut(uid)) {
                    entry.written = Some(written);
                    entry.dirty = false;
                }
            }),
            None => Ok(()),
        }
    }

    async fn write(&self, uid: &str) -> Result<(), String> {
        let (pod, body) = {
            let pending = self.lock();
            let Some(entry) = pending.get(uid).filter(|entry| entry.dirty) else { return Ok(()) };
            let Some(body) = patch(&known(entry), &entry.status) else { return Ok(()) };
            (entry.pod.clone(), body)
        };
        let written = self.send(&pod, body).await?;
        let mut pending = self.lock();
        if let (Some(entry), Some(written)) = (pending.get_mut(uid), written) {
            entry.written = Some(written);
            entry.dirty = patch(&known(entry), &entry.status).is_some();
            let again = entry.dirty;
            drop(pending);
            if again {
                self.0.queue.add(uid.to_string());
            }
        }
        Ok(())
    }

    /// Sends one patch; `None` when the pod is gone.
    async fn send(&self, pod: &Pod, status: Value) -> Result<Option<(u64, PodStatus)>, String> {
        let pods: Api<Pod> = Api::namespaced(self.0.client.clone(), spec::namespace(pod));
        let body = json!({"metadata": {"uid": spec::uid(pod)}, "status": status});
        match pods.patch_status(spec::name(pod), &PatchParams::default(), &Patch::Strategic(body)).await {
            Ok(answer) => Ok(Some((client::revision_of(&answer), answer.status.unwrap_or_default()))),
            Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => Ok(None),
            Err(error) => {
                Err(format!("status of pod {} not written: {}", spec::described(pod), client::message(&error)))
            }
        }
    }
}

/// What the API is known to have: the newer of the informer's copy and the answer to our last write.
fn known(entry: &Pending) -> PodStatus {
    let seen = entry.pod.status.clone().unwrap_or_default();
    match &entry.written {
        Some((revision, status)) if *revision > client::revision_of(&*entry.pod) => status.clone(),
        _ => seen,
    }
}

/// The `status` part of a strategic merge patch from `old` to `new`; `None` when they say the same.
pub fn patch(old: &PodStatus, new: &PodStatus) -> Option<Value> {
    let (old, new) = (object(old), object(new));
    let mut changes = Map::new();
    for (name, value) in &new {
        if old.get(name) == Some(value) {
            continue;
        }
        let change = match name.as_str() {
            "conditions" => match changed_conditions(old.get(name), value) {
                Some(list) => list,
                None => continue,
            },
            // lists merged by address: the whole must be replaced
            "podIPs" | "hostIPs" => {
                let mut list = vec![json!({"$patch": "replace"})];
                list.extend(value.as_array().into_iter().flatten().cloned());
                Value::Array(list)
            }
            _ => value.clone(),
        };
        changes.insert(name.clone(), change);
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        changes.insert(name.clone(), Value::Null);
    }
    (!changes.is_empty()).then_some(Value::Object(changes))
}

/// Conditions are merged by type: only those that differ are sent, a field that went is sent as null.
fn changed_conditions(old: Option<&Value>, new: &Value) -> Option<Value> {
    let empty = Vec::new();
    let old = old.and_then(Value::as_array).unwrap_or(&empty);
    let mut list = Vec::new();
    for condition in new.as_array().into_iter().flatten() {
        let before = old.iter().find(|other| other.get("type") == condition.get("type"));
        if before == Some(condition) {
            continue;
        }
        let mut change = condition.clone();
        if let (Some(change), Some(before)) = (change.as_object_mut(), before.and_then(Value::as_object)) {
            for name in before.keys() {
                change.entry(name.clone()).or_insert(Value::Null);
            }
        }
        list.push(change);
    }
    (!list.is_empty()).then_some(Value::Array(list))
}

fn object(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        // a status made of plain structs always is an object
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(value: Value) -> PodStatus {
        serde_json::from_value(value).expect("status")
    }

    #[test]
    fn only_changes_are_sent() {
        let old = status(json!({"phase": "Pending", "reason": "x", "podIPs": [{"ip": "1"}], "conditions": [
            {"type": "Ready", "status": "False", "reason": "r"}, {"type": "PodScheduled", "status": "True"}]}));
        let new = status(json!({"phase": "Running", "podIPs": [{"ip": "2"}], "conditions": [
            {"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}]}));
        assert_eq!(patch(&old, &old), None);
        assert_eq!(
            patch(&old, &new),
            Some(json!({"phase": "Running", "reason": null, "podIPs": [{"$patch": "replace"}, {"ip": "2"}],
                "conditions": [{"type": "Ready", "status": "True", "reason": null}]}))
        );
    }
}
