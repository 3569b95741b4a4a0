//! The task of one probe of one container: wait until due, try, count, publish.
//!
//! Invariant: the next try is due one period after the last one began; the first one at the container's start plus the
//! initial delay, with no jitter.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Probes;
use super::action::{self, Outcome};
use super::machine::{Kind, Machine, Next, View};

/// Tries per round when the probe itself could not be done.
const MAX_ATTEMPTS: usize = 3;

pub struct Task {
    pub probes: Probes,
    pub pod: Arc<Pod>,
    pub uid: String,
    pub container: Container,
    pub kind: Kind,
    pub probe: Probe,
}

impl Task {
    pub async fn run(self, mut views: watch::Receiver<View>, stop: CancellationToken) {
        let threshold = |value: Option<i32>, default: i32| value.unwrap_or(default).max(1) as u32;
        let failure = threshold(self.probe.failure_threshold, 3);
        let success = threshold(self.probe.success_threshold, 1);
        let mut machine = Machine::new(self.kind, failure, success);
        let mut known_id: Option<String> = None;
        let mut due: Option<Instant> = None;
        loop {
            let view = views.borrow_and_update().clone();
            let (next, renewed) = machine.observe(&view);
            if renewed {
                due = None;
                if let Some(old) = known_id.replace(view.container_id.clone().unwrap_or_default()) {
                    self.probes.forget(&old, self.kind);
                }
            }
            if let (Some(id), Some(verdict)) = (&view.container_id, machine.verdict()) {
                self.probes.publish(&self.uid, &self.container.name, id, self.kind, verdict);
            }
            if next == Next::Stop {
                return;
            }
            let wake = (next == Next::Probe).then(|| *due.get_or_insert_with(|| self.first_due(&view)));
            tokio::select! {
                () = stop.cancelled() => return,
                changed = views.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    continue;
                }
                () = sleep_until(wake) => {}
            }
            due = Some(Instant::now() + self.period());
            let id = view.container_id.clone().unwrap_or_default();
            let outcome = tokio::select! {
                () = stop.cancelled() => return,
                outcome = self.attempt(&id) => outcome,
            };
            // Another instance took its place meanwhile: the outcome is about nobody.
            if views.borrow().container_id == view.container_id
                && let Some(success) = self.tell(&outcome)
            {
                machine.record(success);
            }
        }
    }

    fn first_due(&self, view: &View) -> Instant {
        let delay = Duration::from_secs(self.probe.initial_delay_seconds.unwrap_or(0).max(0) as u64);
        let running_for = view.started_at.map_or(Duration::ZERO, |started| {
            Duration::try_from(Timestamp::now().duration_since(started)).unwrap_or(Duration::ZERO)
        });
        Instant::now() + delay.saturating_sub(running_for)
    }

    fn period(&self) -> Duration {
        Duration::from_secs(self.probe.period_seconds.unwrap_or(10).max(1) as u64)
    }

    async fn attempt(&self, container_id: &str) -> Outcome {
        let inner = &self.probes.0;
        let pod_ip = inner.pods.ips(&self.uid).pod.into_iter().next().unwrap_or_default();
        let mut outcome = Outcome::Success;
        for _ in 0..MAX_ATTEMPTS {
            outcome = action::run(&inner.runtime, &self.container, container_id, &self.probe, &pod_ip).await;
            if !matches!(outcome, Outcome::Error(_)) {
                break;
            }
        }
        outcome
    }

    // Writes the event; None when the outcome does not count.
    fn tell(&self, outcome: &Outcome) -> Option<bool> {
        let title = self.kind.title();
        match outcome {
            Outcome::Success => Some(true),
            Outcome::Warning(text) => {
                self.event("ProbeWarning", format!("{title} probe warning: {text}"));
                Some(true)
            }
            Outcome::Failure(text) => {
                self.event("Unhealthy", format!("{title} probe failed: {text}"));
                Some(false)
            }
            Outcome::Error(text) => {
                self.event("Unhealthy", format!("{title} probe errored and resulted in unknown state: {text}"));
                None
            }
        }
    }

    fn event(&self, reason: &str, message: String) {
        let mut about = client::reference(self.pod.as_ref());
        let own = self
            .pod
            .spec
            .as_ref()
            .is_some_and(|spec| spec.containers.iter().any(|container| container.name == self.container.name));
        let list = if own { "containers" } else { "initContainers" };
        about.field_path = Some(format!("spec.{list}{{{}}}", self.container.name));
        self.probes.0.recorder.event(&about, "Warning", reason, message);
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
