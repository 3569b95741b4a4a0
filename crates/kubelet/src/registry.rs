//! The pods of this node, one cell each: what the API last said, what the runtime last showed, what was last reported.
//!
//! Written by the informer's callback and the pod workers, read by everyone through [`PodSource`]. Invariant: one cell per
//! uid, and a cell lives until its worker is done with the pod.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::{Notify, watch};

use crate::observed::{Observed, State};
use crate::pods::{ContainerRef, PodIps, PodSource};
use crate::spec;

/// One pod.
pub struct Cell {
    pub uid: String,
    inner: Mutex<Inner>,
    /// Something changed that the worker should look at.
    pub wake: Notify,
    /// What failed may work now: the runtime is back.
    pub try_again: Notify,
    /// Set once the pod must end: the grace period in seconds. It only shrinks.
    pub ending: watch::Sender<Option<i64>>,
}

struct Inner {
    pod: Arc<Pod>,
    gone: bool,
    observed: Arc<Observed>,
    reported: Option<Arc<PodStatus>>,
}

impl Cell {
    fn new(pod: Arc<Pod>) -> Cell {
        let cell = Cell {
            uid: spec::uid(&pod).to_string(),
            inner: Mutex::new(Inner { pod: pod.clone(), gone: false, observed: Arc::default(), reported: None }),
            wake: Notify::new(),
            try_again: Notify::new(),
            ending: watch::Sender::new(None),
        };
        cell.update(pod);
        cell
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The API has a newer version of the pod.
    pub fn update(&self, pod: Arc<Pod>) {
        let ends = pod.metadata.deletion_timestamp.is_some().then(|| spec::grace_seconds(&pod));
        let echo = {
            let mut inner = self.lock();
            let echo = is_echo(&inner.pod, &pod, inner.reported.as_deref());
            inner.pod = pod;
            echo
        };
        if let Some(grace) = ends {
            self.end_within(grace);
        }
        if !echo {
            self.wake.notify_one();
        }
    }

    /// The API no longer has the pod.
    pub fn vanish(&self, last: Arc<Pod>) {
        let grace = spec::grace_seconds(&last);
        {
            let mut inner = self.lock();
            inner.gone = true;
            inner.pod = last;
        }
        self.end_within(grace);
        self.wake.notify_one();
    }

    fn end_within(&self, grace: i64) {
        self.ending.send_if_modified(|current| {
            let shorter = current.is_none_or(|known| grace < known);
            if shorter {
                *current = Some(grace);
            }
            shorter
        });
    }

    /// The pod as the API has it.
    pub fn pod(&self) -> Arc<Pod> {
        self.lock().pod.clone()
    }

    /// The API no longer has the pod.
    pub fn is_gone(&self) -> bool {
        self.lock().gone
    }

    pub fn set_observed(&self, observed: Arc<Observed>) {
        self.lock().observed = observed;
    }

    /// What the runtime last showed.
    pub fn observed(&self) -> Arc<Observed> {
        self.lock().observed.clone()
    }

    pub fn set_reported(&self, status: Arc<PodStatus>) {
        self.lock().reported = Some(status);
    }

    /// The pod with the status last made.
    pub fn with_status(&self) -> Arc<Pod> {
        let inner = self.lock();
        match &inner.reported {
            Some(status) => {
                let mut pod = (*inner.pod).clone();
                pod.status = Some((**status).clone());
                Arc::new(pod)
            }
            None => inner.pod.clone(),
        }
    }
}

/// Nothing is new but that the API has the status we reported: no reason to look at the pod again.
fn is_echo(old: &Pod, new: &Pod, reported: Option<&PodStatus>) -> bool {
    let (was, is) = (&old.metadata, &new.metadata);
    reported.is_some()
        && new.status.as_ref() == reported
        && old.spec == new.spec
        && was.generation == is.generation
        && was.deletion_timestamp == is.deletion_timestamp
        && was.deletion_grace_period_seconds == is.deletion_grace_period_seconds
        && was.labels == is.labels
        && was.annotations == is.annotations
}

/// All pods of this node.
pub struct Registry {
    cells: Mutex<HashMap<String, Arc<Cell>>>,
    node_ips: Vec<String>,
}

impl Registry {
    pub fn new(node_ips: Vec<String>) -> Registry {
        Registry { cells: Mutex::default(), node_ips }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Cell>>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a pod from the API. A new cell is returned if the pod is new: it needs a worker.
    pub fn update(&self, pod: Arc<Pod>) -> Option<Arc<Cell>> {
        let uid = spec::uid(&pod).to_string();
        let mut cells = self.lock();
        if let Some(cell) = cells.get(&uid) {
            cell.update(pod);
            return None;
        }
        let cell = Arc::new(Cell::new(pod));
        cells.insert(uid, cell.clone());
        Some(cell)
    }

    pub fn vanish(&self, pod: Arc<Pod>) {
        let cell = self.get(spec::uid(&pod));
        if let Some(cell) = cell {
            cell.vanish(pod);
        }
    }

    pub fn get(&self, uid: &str) -> Option<Arc<Cell>> {
        self.lock().get(uid).cloned()
    }

    pub fn cells(&self) -> Vec<Arc<Cell>> {
        self.lock().values().cloned().collect()
    }

    /// Its worker is done with the pod.
    pub fn remove(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// Makes the pod's worker look again.
    pub fn wake(&self, uid: &str) {
        if let Some(cell) = self.get(uid) {
            cell.wake.notify_one();
        }
    }

    /// Makes every worker look again, those that wait after a failure too.
    pub fn wake_all(&self) {
        for cell in self.cells() {
            cell.wake.notify_one();
            cell.try_again.notify_waiters();
        }
    }

    pub fn node_ips(&self) -> &[String] {
        &self.node_ips
    }
}

impl PodSource for Registry {
    fn pods(&self) -> Vec<Arc<Pod>> {
        self.cells().iter().map(|cell| cell.with_status()).collect()
    }

    fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let cells = self.cells();
        let mut named: Vec<_> = cells
            .iter()
            .map(|cell| (cell.is_gone(), cell))
            .filter(|(_, cell)| {
                let pod = cell.pod();
                spec::name(&pod) == name && spec::namespace(&pod) == namespace
            })
            .collect();
        // of two with one name, the one the API has
        named.sort_by_key(|(gone, _)| *gone);
        named.first().map(|(_, cell)| cell.with_status())
    }

    fn pod_by_uid(&self, uid: &str) -> Option<Arc<Pod>> {
        self.get(uid).map(|cell| cell.with_status())
    }

    fn sandbox_id(&self, uid: &str) -> Option<String> {
        let observed = self.get(uid)?.observed();
        observed.sandbox().map(|sandbox| sandbox.id.clone())
    }

    fn containers(&self, uid: &str) -> Vec<ContainerRef> {
        let Some(cell) = self.get(uid) else { return Vec::new() };
        let observed = cell.observed();
        let all = observed.instances.iter().map(|instance| ContainerRef {
            id: instance.id.clone(),
            name: instance.name.clone(),
            attempt: instance.attempt,
            running: instance.state == State::Running,
            log_path: instance.log_path.clone(),
        });
        all.collect()
    }

    fn ips(&self, uid: &str) -> PodIps {
        let Some(cell) = self.get(uid) else { return PodIps { host: self.node_ips.clone(), pod: Vec::new() } };
        let pod = cell.pod();
        let observed = cell.observed();
        let own = if spec::host_network(&pod) {
            self.node_ips.clone()
        } else {
            observed.sandbox().map(|sandbox| sandbox.ips.clone()).unwrap_or_default()
        };
        PodIps { pod: own, host: self.node_ips.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(value: serde_json::Value) -> Arc<Pod> {
        Arc::new(serde_json::from_value(value).expect("pod"))
    }

    #[test]
    fn an_echo_is_told_from_news() {
        let with = |meta: serde_json::Value, phase: &str| {
            let pod = json!({"metadata": meta, "spec": {"containers": []}, "status": {"phase": phase}});
            serde_json::from_value::<Pod>(pod).expect("pod")
        };
        let reported = PodStatus { phase: Some("Running".into()), ..PodStatus::default() };
        let old = with(json!({"resourceVersion": "1", "generation": 1}), "Pending");
        for (meta, phase, want) in [
            (json!({"resourceVersion": "2", "generation": 1}), "Running", true),
            (json!({"resourceVersion": "2", "generation": 1}), "Failed", false),
            (json!({"resourceVersion": "2", "generation": 2}), "Running", false),
            (json!({"resourceVersion": "2", "generation": 1, "annotations": {"a": "b"}}), "Running", false),
            (json!({"generation": 1, "deletionTimestamp": "2024-01-01T00:00:00Z"}), "Running", false),
        ] {
            assert_eq!(is_echo(&old, &with(meta.clone(), phase), Some(&reported)), want, "{meta} {phase}");
        }
        assert!(!is_echo(&old, &old, None));
    }

    #[test]
    fn a_grace_period_only_shrinks() {
        let registry = Registry::new(vec![]);
        let with = |meta: serde_json::Value| pod(json!({"metadata": meta, "spec": {"containers": []}}));
        let cell = registry.update(with(json!({"uid": "u", "name": "p", "namespace": "n"}))).expect("new");
        assert_eq!(*cell.ending.borrow(), None);
        let deleting = |grace: i64| {
            with(json!({"uid": "u", "name": "p", "namespace": "n", "deletionTimestamp": "2024-01-01T00:00:00Z",
                "deletionGracePeriodSeconds": grace}))
        };
        assert!(registry.update(deleting(30)).is_none());
        assert_eq!(*cell.ending.borrow(), Some(30));
        registry.update(deleting(5));
        registry.update(deleting(30));
        assert_eq!(*cell.ending.borrow(), Some(5));
        assert!(registry.pod("n", "p").is_some());
        registry.remove("u");
        assert!(registry.pod("n", "p").is_none());
    }
}
