//! Startup, readiness and liveness probes: one small task per probe, which sleeps until its next try is due.
//!
//! Reads containers over the network or by the runtime's ExecSync, and what the pod workers tell by `update_pod`; writes
//! verdicts kept here and `Unhealthy` events. Invariant: verdicts are kept per container instance and go with it.

mod action;
mod grpc;
mod http;
mod machine;
mod tcp;
mod tls;
mod worker;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus, Probe};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::pods::PodSource;
use machine::View;

pub use action::Outcome;
pub(crate) use action::run as try_once;
pub use machine::Kind;

/// The probes of all pods of this node. Cheap to clone.
#[derive(Clone)]
pub struct Probes(Arc<Inner>);

/// By container name and kind.
type PodWorkers = HashMap<(String, Kind), Worker>;

struct Inner {
    runtime: cri::Client,
    recorder: client::Recorder,
    pods: Arc<dyn PodSource>,
    on_result: Arc<dyn Fn(&str) + Send + Sync>,
    shutdown: CancellationToken,
    /// By pod uid.
    workers: Mutex<HashMap<String, PodWorkers>>,
    /// By container id.
    verdicts: Mutex<HashMap<(String, Kind), bool>>,
}

struct Worker {
    view: watch::Sender<View>,
    stop: CancellationToken,
}

impl Probes {
    /// `on_result` is called with the pod's uid whenever a verdict changes.
    pub fn new(
        runtime: cri::Client,
        recorder: client::Recorder,
        pods: Arc<dyn PodSource>,
        on_result: Arc<dyn Fn(&str) + Send + Sync>,
        shutdown: CancellationToken,
    ) -> Self {
        Self(Arc::new(Inner {
            runtime,
            recorder,
            pods,
            on_result,
            shutdown,
            workers: Mutex::default(),
            verdicts: Mutex::default(),
        }))
    }

    /// Tells what is known of the pod now; starts the workers it needs.
    pub fn update_pod(&self, pod: &Arc<Pod>, status: &PodStatus) {
        let (Some(spec), Some(uid)) = (&pod.spec, &pod.metadata.uid) else { return };
        if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            return self.remove_pod(uid);
        }
        let deleting = pod.metadata.deletion_timestamp.is_some();
        let sidecars = spec
            .init_containers
            .iter()
            .flatten()
            .filter(|container| container.restart_policy.as_deref() == Some("Always"));
        let statuses =
            || status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
        for container in spec.containers.iter().chain(sidecars) {
            let known = statuses().find(|status| status.name == container.name);
            for (kind, probe) in probes_of(container) {
                let view = self.view(container, known, kind, deleting);
                self.tell(pod, uid, container, kind, probe, view);
            }
        }
    }

    /// Ends the pod's workers and forgets its verdicts.
    pub fn remove_pod(&self, uid: &str) {
        let workers = lock(&self.0.workers).remove(uid).unwrap_or_default();
        for ((_, kind), worker) in workers {
            worker.stop.cancel();
            if let Some(id) = worker.view.borrow().container_id.clone() {
                lock(&self.0.verdicts).remove(&(id, kind));
            }
        }
    }

    /// The verdict on a container instance (CRI id). None: no such probe, or none yet.
    pub fn readiness(&self, container_id: &str) -> Option<bool> {
        self.verdict(container_id, Kind::Readiness)
    }

    /// Some(false) asks for the container to be killed.
    pub fn liveness(&self, container_id: &str) -> Option<bool> {
        self.verdict(container_id, Kind::Liveness)
    }

    /// Some(true) once started; Some(false) asks for the container to be killed.
    pub fn startup(&self, container_id: &str) -> Option<bool> {
        self.verdict(container_id, Kind::Startup)
    }

    fn verdict(&self, container_id: &str, kind: Kind) -> Option<bool> {
        lock(&self.0.verdicts).get(&(container_id.to_owned(), kind)).copied()
    }

    fn view(&self, container: &Container, status: Option<&ContainerStatus>, kind: Kind, deleting: bool) -> View {
        let Some(status) = status else { return View { deleting, ..View::default() } };
        let id = status.container_id.as_deref().map(|id| id.rsplit("://").next().unwrap_or(id).to_owned());
        let running = status.state.as_ref().and_then(|state| state.running.as_ref());
        let startup = id.as_deref().and_then(|id| self.startup(id));
        // A status that says started was written when the startup probe had passed, maybe by this kubelet's last life.
        let started = container.startup_probe.is_none()
            || startup == Some(true)
            || (startup.is_none() && status.started == Some(true));
        View {
            running: running.is_some(),
            started_at: running.and_then(|running| running.started_at.as_ref()).map(|time| time.0),
            started,
            deleting,
            was_good: if kind == Kind::Readiness { status.ready } else { status.started == Some(true) },
            container_id: id.filter(|id| !id.is_empty()),
        }
    }

    fn tell(&self, pod: &Arc<Pod>, uid: &str, container: &Container, kind: Kind, probe: &Probe, view: View) {
        let mut workers = lock(&self.0.workers);
        let of_pod = workers.entry(uid.to_owned()).or_default();
        let key = (container.name.clone(), kind);
        if let Some(worker) = of_pod.get(&key) {
            worker.view.send_if_modified(|known| {
                let changed = !same(known, &view);
                if changed {
                    *known = view;
                }
                changed
            });
            return;
        }
        let stop = self.0.shutdown.child_token();
        let (sender, receiver) = watch::channel(view);
        of_pod.insert(key, Worker { view: sender, stop: stop.clone() });
        let task = worker::Task {
            probes: self.clone(),
            pod: pod.clone(),
            uid: uid.to_owned(),
            container: container.clone(),
            kind,
            probe: probe.clone(),
        };
        tokio::spawn(task.run(receiver, stop));
    }

    // Called by workers.
    fn publish(&self, uid: &str, container: &str, container_id: &str, kind: Kind, verdict: bool) {
        {
            let workers = lock(&self.0.workers);
            // Removed while the last try was under way: nobody would ever take this verdict away again.
            let Some(of_pod) = workers.get(uid) else { return };
            let old = lock(&self.0.verdicts).insert((container_id.to_owned(), kind), verdict);
            if old == Some(verdict) {
                return;
            }
            for ((name, _), worker) in of_pod.iter().filter(|_| kind == Kind::Startup && verdict) {
                let same = |view: &View| name == container && view.container_id.as_deref() == Some(container_id);
                worker.view.send_if_modified(|view| same(view) && !std::mem::replace(&mut view.started, true));
            }
        }
        (self.0.on_result)(uid);
    }

    fn forget(&self, container_id: &str, kind: Kind) {
        lock(&self.0.verdicts).remove(&(container_id.to_owned(), kind));
    }
}

// `was_good` only matters at the first sight of an instance; it follows the verdict, so it must not wake the worker.
fn same(known: &View, view: &View) -> bool {
    View { was_good: view.was_good, ..known.clone() } == *view
}

fn probes_of(container: &Container) -> impl Iterator<Item = (Kind, &Probe)> {
    let pairs = [
        (Kind::Startup, container.startup_probe.as_ref()),
        (Kind::Readiness, container.readiness_probe.as_ref()),
        (Kind::Liveness, container.liveness_probe.as_ref()),
    ];
    pairs.into_iter().filter_map(|(kind, probe)| Some((kind, probe?)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
