//! Ending a pod: hooks, stop signals, grace periods, then the sandbox, the volumes, the cgroup, the API object, the traces.
//!
//! Invariant: the API object is deleted only once nothing of the pod runs and its volumes are unmounted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Preconditions};

use crate::agent::Agent;
use crate::hooks;
use crate::observed::{Instance, State};
use crate::spec::{self, Kind};
use crate::status::Stage;
use crate::worker::{Next, Worker};

/// Compat: upstream gives every container at least this long, so that none is killed without a stop signal.
const LEAST_GRACE_SECONDS: i64 = 2;

impl Worker {
    /// Stops everything of the pod. A shorter grace period that comes meanwhile takes effect at once.
    pub(crate) async fn terminate(&mut self) -> Next {
        let pod = self.cell.pod();
        let mut ending = self.cell.ending.subscribe();
        let asked = *ending.borrow_and_update();
        let grace = asked.unwrap_or_else(|| spec::grace_seconds(&pod));
        let stopped = tokio::select! {
            stopped = self.stop_everything(&pod, grace) => stopped,
            _ = ending.wait_for(|now| now.is_some_and(|shorter| shorter < grace)) => return Next::Now,
        };
        match stopped {
            Ok(true) => {
                self.reset_failures();
                self.stage = Stage::Terminated;
                self.fresh = true;
                Next::Now
            }
            Ok(false) => self.retry("stop the pod", &"something of it still runs"),
            Err(error) => self.retry("stop the pod", &error),
        }
    }

    /// True once nothing runs any more.
    async fn stop_everything(&mut self, pod: &Arc<Pod>, grace: i64) -> cri::Result<bool> {
        let observed = self.observe().await?;
        self.report(pod, &observed);
        let begun = Instant::now();
        let alive = |instance: &&Instance| matches!(instance.state, State::Running | State::Unknown);
        let kind = |instance: &Instance| spec::find(pod, &instance.name).map(|slot| (slot.kind, slot.index));
        let (mut sidecars, others): (Vec<&Instance>, Vec<&Instance>) = observed
            .instances
            .iter()
            .filter(alive)
            .partition(|instance| kind(instance).is_some_and(|(kind, _)| kind == Kind::Sidecar));
        let stops: Vec<_> = others
            .into_iter()
            .map(|instance| {
                let fresh = self.stopping.insert(instance.id.clone());
                (instance, fresh)
            })
            .collect();
        let agent = self.agent.clone();
        let stops = stops.into_iter().map(|(instance, fresh)| {
            let message = format!("Stopping container {}", instance.name);
            let agent = agent.clone();
            async move { stop_one(&agent, pod, instance, grace, &message, fresh).await }
        });
        for stopped in join_all(stops).await {
            stopped?;
        }
        // sidecars go last, the last started first
        sidecars.sort_by_key(|instance| std::cmp::Reverse(kind(instance).map(|(_, index)| index)));
        for instance in sidecars {
            let fresh = self.stopping.insert(instance.id.clone());
            let left = (grace - begun.elapsed().as_secs() as i64).max(LEAST_GRACE_SECONDS);
            let message = format!("Stopping container {}", instance.name);
            stop_one(&agent, pod, instance, left, &message, fresh).await?;
        }
        for sandbox in observed.sandboxes.iter() {
            agent.turns.take(agent.cri.sandbox_stop(&sandbox.id)).await?;
        }
        let observed = self.observe().await?;
        Ok(!observed.anything_alive())
    }

    /// Tidies up after a stopped pod; done when the API and the runtime have nothing of it any more.
    pub(crate) async fn finish(&mut self) -> Next {
        let agent = self.agent.clone();
        let (pod, uid) = (self.cell.pod(), self.cell.uid.clone());
        agent.probes.remove_pod(&uid);
        let observed = match std::mem::take(&mut self.fresh) {
            true => self.cell.observed(),
            false => match self.observe().await {
                Ok(observed) => observed,
                Err(error) => return self.retry("look at the stopped pod in the runtime", &error),
            },
        };
        if !self.cell.is_gone() {
            self.report(&pod, &observed);
        }
        if let Err(error) = agent.volumes.unmount(&uid).await {
            return self.retry("unmount the pod's volumes", &error);
        }
        if let Err(error) = agent.cgroups.remove_pod(&uid) {
            return self.retry("remove the pod's cgroup", &error);
        }
        if !self.cell.is_gone() {
            if pod.metadata.deletion_timestamp.is_none() {
                // it has ended but is still wanted, for its logs and exit codes
                return Next::Within(Duration::from_secs(300));
            }
            if let Err(error) = self.delete_from_api(&pod).await {
                return self.retry("delete the pod from the API", &error);
            }
        }
        agent.statuses.forget(&uid);
        match remove_traces(&agent, &pod, &uid).await {
            Ok(()) => Next::Done,
            Err(error) => self.retry("remove the pod's containers", &error),
        }
    }

    /// Writes the last status, then deletes this very pod, not a new one of its name.
    async fn delete_from_api(&self, pod: &Pod) -> Result<(), String> {
        self.agent.statuses.write_now(pod, self.reported()).await?;
        let pods: Api<Pod> = Api::namespaced(self.agent.client.clone(), spec::namespace(pod));
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(spec::uid(pod).to_string()), resource_version: None }),
            ..DeleteParams::default()
        };
        match pods.delete(spec::name(pod), &params).await {
            Ok(_) => Ok(()),
            Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => Ok(()),
            Err(error) => Err(client::message(&error)),
        }
    }
}

/// Stops one container: announces it, runs its preStop hook, sends the signal, and after the rest of the grace period kills.
/// `fresh` is false when this stop was begun before with a longer grace period: the hook has had its chance.
pub(crate) async fn stop_one(
    agent: &Agent,
    pod: &Pod,
    instance: &Instance,
    grace: i64,
    message: &str,
    fresh: bool,
) -> cri::Result<()> {
    let begun = Instant::now();
    let slot = spec::find(pod, &instance.name);
    if let (Some(slot), true) = (&slot, fresh) {
        agent.events.container(pod, slot, "Normal", "Killing", message);
        let hook = slot.container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
        if let Some(hook) = hook.filter(|_| instance.state == State::Running) {
            let ips = crate::PodSource::ips(&*agent.registry, spec::uid(pod));
            let ip = ips.pod.first().map(String::as_str).unwrap_or_default();
            let limit = Duration::from_secs(grace.max(1) as u64);
            if let Err(error) = hooks::run(&agent.cri, &slot.container, &instance.id, hook, ip, limit).await {
                tracing::warn!(pod = %spec::described(pod), container = slot.name(), %error, "preStop hook failed");
                agent.events.container(pod, slot, "Warning", "FailedPreStopHook", "PreStopHook failed");
            }
        }
    }
    let left = (grace - begun.elapsed().as_secs() as i64).max(LEAST_GRACE_SECONDS);
    agent.cri.container_stop(&instance.id, Duration::from_secs(left as u64)).await
}

/// Removes a stopped pod's containers, sandboxes, logs and files.
pub(crate) async fn remove_traces(agent: &Agent, pod: &Pod, uid: &str) -> cri::Result<()> {
    let selector = crate::labels::pod_selector(&agent.config.owner, uid);
    for container in agent.cri.container_list(selector.clone()).await? {
        agent.cri.container_remove(&container.id).await?;
    }
    for sandbox in agent.cri.sandbox_list(selector).await? {
        agent.cri.sandbox_stop(&sandbox.id).await?;
        agent.cri.sandbox_remove(&sandbox.id).await?;
    }
    let logs = agent.config.pod_log_dir(spec::namespace(pod), spec::name(pod), uid);
    for dir in [logs, agent.config.pod_dir(uid)] {
        remove_dir(&dir);
    }
    Ok(())
}

/// Removes a directory that holds no mount any more; what cannot be removed is said and left to housekeeping.
pub(crate) fn remove_dir(dir: &std::path::Path) {
    match std::fs::remove_dir_all(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(dir = %dir.display(), %error, "directory not removed"),
    }
}
