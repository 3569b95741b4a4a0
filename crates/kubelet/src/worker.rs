//! One pod's worker: looks, plans, acts, reports, until the pod is gone.
//!
//! Three stages: sync (it should run), terminating (its containers are being stopped), terminated (they have stopped; what
//! is left is tidied up). Invariant: stages only go forward, and everything done in one can be done again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio_util::sync::CancellationToken;

use crate::admission;
use crate::agent::Agent;
use crate::backoff::Backoff;
use crate::observed::{Instance, Observed};
use crate::plan::{self, Plan, Situation, Step};
use crate::registry::Cell;
use crate::spec;
use crate::status::{self, Stage, Verdict, View, WaitReason};

/// A pod is looked at this often even if nothing seems to happen.
const RESYNC: Duration = Duration::from_secs(60);
/// The longest wait after failures of the runtime, of volumes, or of the API.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// So many rounds of steps follow each other at once; a pod with more init containers starts a little slower.
const MAX_ROUNDS: u32 = 20;

/// When to look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// At once.
    Now,
    /// After this long, or when woken.
    Within(Duration),
    /// After this long; only the pod's end cuts it short.
    Retry(Duration),
    /// Never: the pod is gone.
    Done,
}

/// The worker's own memory of its pod. All of it may be lost: the runtime and the API have what matters.
pub(crate) struct Worker {
    pub(crate) agent: Arc<Agent>,
    pub(crate) cell: Arc<Cell>,
    pub(crate) stage: Stage,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) waiting: BTreeMap<String, WaitReason>,
    pub(crate) backoff: Backoff,
    /// Ids of instances whose stop was announced and whose hook has begun.
    pub(crate) stopping: HashSet<String>,
    previous: PodStatus,
    ended: HashMap<String, Instance>,
    admitted: bool,
    /// The last observation was made just now, and nothing was done since.
    pub(crate) fresh: bool,
    failures: u32,
    /// Steps taken in a row without a rest.
    rounds: u32,
    /// Crash loops that have had their event, by container and restart count.
    told: HashSet<(String, u32)>,
}

impl Worker {
    pub(crate) fn new(agent: Arc<Agent>, cell: Arc<Cell>) -> Worker {
        let pod = cell.pod();
        let previous = pod.status.clone().unwrap_or_default();
        let backoff = Backoff::new(agent.config.crash_backoff_initial, agent.config.crash_backoff_max);
        Worker {
            // a pod with a start time was admitted before
            admitted: previous.start_time.is_some(),
            stage: if spec::is_terminal(&pod) { Stage::Terminating } else { Stage::Sync },
            agent,
            cell,
            verdict: None,
            waiting: BTreeMap::new(),
            backoff,
            stopping: HashSet::new(),
            previous,
            ended: HashMap::new(),
            fresh: false,
            failures: 0,
            rounds: 0,
            told: HashSet::new(),
        }
    }

    /// Works until the pod is gone or the kubelet shuts down; the pod's containers are left alone then.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let cell = self.cell.clone();
        loop {
            let next = tokio::select! {
                next = self.look() => next,
                () = shutdown.cancelled() => return,
            };
            let mut ending = cell.ending.subscribe();
            let before = *ending.borrow_and_update();
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = async {
                    match next {
                        Next::Now => {}
                        Next::Within(pause) => {
                            tokio::select! { () = cell.wake.notified() => {}, () = tokio::time::sleep(pause) => {} }
                        }
                        Next::Retry(pause) => {
                            let ends = ending.wait_for(|now| *now != before);
                            tokio::select! {
                                _ = ends => {}
                                () = cell.try_again.notified() => {}
                                () = tokio::time::sleep(pause) => {}
                            }
                        }
                        Next::Done => {}
                    }
                } => {}
            }
            if next == Next::Done {
                break;
            }
        }
        self.agent.registry.remove(&cell.uid);
    }

    async fn look(&mut self) -> Next {
        if self.stage == Stage::Sync && self.cell.ending.borrow().is_some() {
            self.stage = Stage::Terminating;
        }
        match self.stage {
            Stage::Sync => {
                let mut ending = self.cell.ending.subscribe();
                tokio::select! {
                    next = self.sync() => next,
                    _ = ending.wait_for(Option::is_some) => Next::Now,
                }
            }
            Stage::Terminating => self.terminate().await,
            Stage::Terminated => self.finish().await,
        }
    }

    async fn sync(&mut self) -> Next {
        let pod = self.cell.pod();
        let observed = match self.observe().await {
            Ok(observed) => observed,
            Err(error) => return self.retry("look at the pod in the runtime", &error),
        };
        if let Some(verdict) = self.must_end(&pod) {
            self.agent.events.pod(&pod, "Warning", &verdict.reason, &verdict.message);
            return self.end(verdict);
        }
        if !self.admitted {
            let others = self.agent.registry.cells().into_iter().filter(|other| other.uid != self.cell.uid);
            let others: Vec<Arc<Pod>> = others.map(|other| other.with_status()).collect();
            if let Err(verdict) = admission::check(&pod, &others, &self.agent.allocatable) {
                self.agent.events.pod(&pod, "Warning", &verdict.reason, &verdict.message);
                return self.end(verdict);
            }
            self.admitted = true;
        }
        let plan = self.plan(&pod, &observed);
        if plan.outcome.is_some() {
            self.stage = Stage::Terminating;
            return Next::Now;
        }
        self.remember_waits(&pod, &observed, &plan);
        self.report(&pod, &observed);
        self.carry_out(&pod, &observed, plan).await
    }

    fn plan(&self, pod: &Pod, observed: &Observed) -> Plan {
        let agent = self.agent.clone();
        plan::plan(&Situation {
            pod,
            observed,
            probes: &|id| agent.probe_view(id),
            backoff: &self.backoff,
            now: Timestamp::now(),
        })
    }

    /// Carries out a plan's steps; then it is time to look again, sooner or later.
    async fn carry_out(&mut self, pod: &Arc<Pod>, observed: &Arc<Observed>, plan: Plan) -> Next {
        let wake_after = plan.wake_after.and_then(|left| Duration::try_from(left).ok());
        if plan.steps.is_empty() {
            (self.failures, self.rounds) = (0, 0);
            // volumes of running pods are kept mounted, also over a restart of the machine's mounts
            if let Err(next) = self.mount(pod).await {
                return next;
            }
            return Next::Within(self.until_deadline(pod).min(wake_after.unwrap_or(RESYNC)).min(RESYNC));
        }
        let mounted = match self.mount(pod).await {
            Ok(mounted) => mounted,
            Err(next) => return next,
        };
        if let Err(error) = self.agent.ensure_cgroups(pod) {
            return self.retry("make the pod's cgroup", &error);
        }
        let mut soonest = None;
        for step in plan.steps {
            if let Err(next) = self.step(pod, observed, &mounted, step).await {
                soonest = Some(match (soonest, next) {
                    (Some(Next::Retry(known)), Next::Retry(other)) => Next::Retry(other.min(known)),
                    (Some(known), Next::Within(other)) => sooner(known, other),
                    (None, next) => next,
                    (Some(known), _) => known,
                });
            }
        }
        match soonest {
            None => {
                self.failures = 0;
                self.rounds = self.rounds.saturating_add(1);
                // steps that succeed and change nothing must not spin
                if self.rounds > MAX_ROUNDS { Next::Within(Duration::from_secs(2)) } else { Next::Now }
            }
            Some(next) => {
                // what failed shows in the status at once
                match self.observe().await {
                    Ok(observed) => self.report(pod, &observed),
                    Err(error) => tracing::debug!(pod = %spec::described(pod), %error, "not seen after a failure"),
                }
                next
            }
        }
    }

    async fn step(
        &mut self,
        pod: &Arc<Pod>,
        observed: &Arc<Observed>,
        mounted: &crate::volumes::MountedVolumes,
        step: Step,
    ) -> Result<(), Next> {
        tracing::debug!(pod = %spec::described(pod), ?step, "step");
        match step {
            Step::StopSandbox { id } => {
                let stopped = self.agent.cri.sandbox_stop(&id).await;
                stopped.map_err(|error| self.retry("stop an old sandbox", &error))
            }
            Step::CreateSandbox { attempt } => self.create_sandbox(pod, attempt).await,
            Step::Remove { id, .. } => {
                let removed = self.agent.cri.container_remove(&id).await;
                removed.map_err(|error| self.retry("remove a container that never started", &error))
            }
            Step::Kill { id, name, message, grace_seconds } => {
                let Some(instance) = observed.instances.iter().find(|instance| instance.id == id) else {
                    return Ok(());
                };
                let grace = grace_seconds.unwrap_or_else(|| spec::grace_seconds(pod));
                let fresh = self.stopping.insert(id.clone());
                let stopped = crate::terminate::stop_one(&self.agent, pod, instance, grace, &message, fresh).await;
                stopped.map_err(|error| self.retry(&format!("stop container {name}"), &error))
            }
            Step::Start { name, attempt, after } => {
                let started = self.start_container(pod, observed, mounted, &name, attempt).await;
                // an instance was made, whether it ran or not: that counts as a restart
                let made =
                    |reason: &WaitReason| matches!(reason.reason.as_str(), "RunContainerError" | "PostStartHookError");
                if let (Some(ended), true) = (after, started.as_ref().err().is_none_or(made)) {
                    self.backoff.next(&name, ended);
                }
                self.note_start(pod, &name, started)
            }
        }
    }

    /// Keeps why a container did not start, and says when to try again.
    fn note_start(&mut self, pod: &Pod, name: &str, started: Result<(), WaitReason>) -> Result<(), Next> {
        let Err(reason) = started else {
            self.waiting.remove(name);
            return Ok(());
        };
        let slot = spec::find(pod, name);
        let image = slot.as_ref().and_then(|slot| slot.container.image.clone()).unwrap_or_default();
        let pause = match reason.reason.as_str() {
            "ImagePullBackOff" => {
                self.agent.images.wait_left(pod, &image).and_then(|left| Duration::try_from(left).ok())
            }
            // soon again, so that the status says that it is backing off
            "ErrImagePull" => Some(Duration::from_secs(2)),
            "RunContainerError" | "PostStartHookError" => Some(Duration::from_millis(50)),
            _ => None,
        };
        self.waiting.insert(name.to_string(), reason);
        self.failures = self.failures.saturating_add(1);
        Err(Next::Within(pause.unwrap_or_else(|| self.pause().min(Duration::from_secs(10)))))
    }

    async fn mount(&mut self, pod: &Arc<Pod>) -> Result<crate::volumes::MountedVolumes, Next> {
        match self.agent.volumes.mount(pod).await {
            Ok(mounted) => Ok(mounted),
            Err(error) => {
                let message = format!("MountVolume.SetUp failed for volume \"{}\" : {error}", error.volume());
                self.agent.events.pod(pod, "Warning", "FailedMount", &message);
                let next = self.retry("mount volumes", &error);
                // a volume's source may appear any moment: being woken is reason enough to try again
                Err(if let Next::Retry(pause) = next { Next::Within(pause) } else { next })
            }
        }
    }

    pub(crate) async fn observe(&mut self) -> cri::Result<Arc<Observed>> {
        let observed = self.agent.observe(&self.cell.uid, &mut self.ended).await?;
        self.cell.set_observed(observed.clone());
        Ok(observed)
    }

    /// Makes the status and hands it to the writer, and to the probes.
    pub(crate) fn report(&mut self, pod: &Arc<Pod>, observed: &Observed) {
        let agent = self.agent.clone();
        let status = status::pod_status(&View {
            pod,
            observed,
            previous: &self.previous,
            probes: &|id| agent.probe_view(id),
            waiting: &self.waiting,
            node_ips: agent.registry.node_ips(),
            stage: self.stage,
            verdict: self.verdict.as_ref(),
            runtime: agent.runtime(),
            now: Timestamp::now(),
        });
        self.cell.set_reported(Arc::new(status.clone()));
        if self.stage != Stage::Terminated {
            agent.probes.update_pod(pod, &status);
        }
        agent.statuses.set(pod, &status);
        self.previous = status;
    }

    /// Crash loops become waiting reasons, and get one event each round.
    fn remember_waits(&mut self, pod: &Pod, observed: &Observed, plan: &Plan) {
        self.waiting.retain(|name, reason| {
            reason.reason != "CrashLoopBackOff" || plan.waiting.iter().any(|waiting| waiting.name == *name)
        });
        for waiting in &plan.waiting {
            let reason = WaitReason { reason: "CrashLoopBackOff".to_string(), message: waiting.message.clone() };
            self.waiting.insert(waiting.name.clone(), reason);
            let attempt = observed.newest(&waiting.name).map_or(0, |instance| instance.attempt);
            if self.told.insert((waiting.name.clone(), attempt))
                && let Some(slot) = spec::find(pod, &waiting.name)
            {
                let message =
                    format!("Back-off restarting failed container {} in pod {}", waiting.name, spec::described(pod));
                self.agent.events.container(pod, &slot, "Warning", "BackOff", &message);
            }
        }
        self.told.retain(|(name, attempt)| {
            plan.waiting.iter().any(|waiting| waiting.name == *name)
                && observed.newest(name).is_some_and(|instance| instance.attempt == *attempt)
        });
    }

    fn must_end(&self, pod: &Pod) -> Option<Verdict> {
        let start = self.previous.start_time.as_ref().map(|time| time.0);
        let deadline = spec::deadline(pod, start)?;
        (deadline <= Timestamp::now()).then(|| Verdict {
            reason: "DeadlineExceeded".to_string(),
            message: "Pod was active on the node longer than the specified deadline".to_string(),
        })
    }

    fn until_deadline(&self, pod: &Pod) -> Duration {
        let start = self.previous.start_time.as_ref().map(|time| time.0);
        let left = spec::deadline(pod, start).map(|deadline| deadline.duration_since(Timestamp::now()));
        left.map_or(RESYNC, |left| Duration::try_from(left).unwrap_or(Duration::ZERO))
    }

    fn end(&mut self, verdict: Verdict) -> Next {
        self.verdict = Some(verdict);
        self.stage = Stage::Terminating;
        Next::Now
    }

    /// Counts a failure and says when to try again.
    pub(crate) fn retry(&mut self, what: &str, error: &dyn std::fmt::Display) -> Next {
        self.failures = self.failures.saturating_add(1);
        let pause = self.pause();
        let pod = self.cell.pod();
        tracing::warn!(pod = %spec::described(&pod), %error, retry_ms = pause.as_millis() as u64, "could not {what}");
        Next::Retry(pause)
    }

    /// Half a second, doubling with each failure in a row.
    fn pause(&self) -> Duration {
        (Duration::from_millis(500) * 2u32.saturating_pow(self.failures.saturating_sub(1).min(8))).min(LONGEST_RETRY)
    }

    pub(crate) fn reset_failures(&mut self) {
        self.failures = 0;
    }

    pub(crate) fn reported(&self) -> &PodStatus {
        &self.previous
    }
}

/// The sooner of a wait known and another.
fn sooner(known: Next, other: Duration) -> Next {
    match known {
        Next::Within(pause) | Next::Retry(pause) => Next::Within(pause.min(other)),
        other => other,
    }
}
