//! When a probe runs and what its outcomes add up to. Pure.
//!
//! Invariant: a verdict belongs to one container instance; a new instance starts from the initial verdict with empty counts.

use jiff::Timestamp;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Startup,
    Readiness,
    Liveness,
}

impl Kind {
    /// As events write it.
    pub fn title(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Readiness => "Readiness",
            Kind::Liveness => "Liveness",
        }
    }
}

/// What a worker knows of its container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// The newest instance; None before the first.
    pub container_id: Option<String>,
    pub running: bool,
    pub started_at: Option<Timestamp>,
    /// The startup probe has passed, or there is none.
    pub started: bool,
    /// The pod is being deleted.
    pub deleting: bool,
    /// The status written earlier says ready, or for a startup probe started: taken over when the kubelet was restarted.
    pub was_good: bool,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing until the view changes.
    Idle,
    Probe,
    /// The worker's task is over.
    Stop,
}

#[derive(Debug)]
pub struct Machine {
    kind: Kind,
    failure_threshold: u32,
    success_threshold: u32,
    container_id: Option<String>,
    last: Option<bool>,
    run: u32,
    verdict: Option<bool>,
    on_hold: bool,
}

impl Machine {
    pub fn new(kind: Kind, failure_threshold: u32, success_threshold: u32) -> Self {
        Self {
            kind,
            failure_threshold: failure_threshold.max(1),
            success_threshold: success_threshold.max(1),
            container_id: None,
            last: None,
            run: 0,
            verdict: None,
            on_hold: false,
        }
    }

    /// The verdict of the instance in view.
    pub fn verdict(&self) -> Option<bool> {
        self.verdict
    }

    /// Takes in a new view. Returns what to do and whether the container is another instance than before.
    pub fn observe(&mut self, view: &View) -> (Next, bool) {
        let renewed = view.container_id != self.container_id;
        if renewed {
            *self = Self::new(self.kind, self.failure_threshold, self.success_threshold);
            self.container_id = view.container_id.clone();
            if self.container_id.is_some() {
                self.verdict = match self.kind {
                    Kind::Liveness => Some(true),
                    Kind::Readiness => Some(view.was_good),
                    Kind::Startup => view.was_good.then_some(true),
                };
            }
        }
        (self.next(view), renewed)
    }

    fn next(&mut self, view: &View) -> Next {
        if view.deleting && self.kind != Kind::Readiness {
            return Next::Stop;
        }
        if self.container_id.is_none() {
            return Next::Idle;
        }
        if !view.running {
            if self.kind == Kind::Readiness {
                self.verdict = Some(false);
            }
            return Next::Idle;
        }
        let gated = match self.kind {
            Kind::Startup => self.verdict == Some(true),
            _ => !view.started,
        };
        if gated || self.on_hold { Next::Idle } else { Next::Probe }
    }

    /// Counts one outcome. Returns the verdict when it was reached just now or again.
    pub fn record(&mut self, success: bool) -> Option<bool> {
        if self.last == Some(success) {
            self.run = self.run.saturating_add(1);
        } else {
            self.last = Some(success);
            self.run = 1;
        }
        let threshold = if success { self.success_threshold } else { self.failure_threshold };
        if self.run < threshold {
            return None;
        }
        self.verdict = Some(success);
        if !success && self.kind != Kind::Readiness {
            // The container will be restarted: further probes of this instance say nothing new.
            self.on_hold = true;
            self.run = 0;
        }
        self.verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(id: &str) -> View {
        View { container_id: Some(id.into()), running: true, started: true, ..View::default() }
    }

    #[test]
    fn thresholds_count_runs() {
        let mut machine = Machine::new(Kind::Readiness, 3, 2);
        assert_eq!(machine.observe(&view("a")), (Next::Probe, true));
        assert_eq!(machine.verdict(), Some(false));
        let outcomes = [true, true, false, false, true, false, false, false, true, true];
        let verdicts = outcomes.map(|outcome| machine.record(outcome));
        assert_eq!(verdicts, [None, Some(true), None, None, None, None, None, Some(false), None, Some(true)]);
    }

    #[test]
    fn a_failed_liveness_probe_rests_until_the_next_instance() {
        let mut machine = Machine::new(Kind::Liveness, 2, 1);
        machine.observe(&view("a"));
        assert_eq!(machine.verdict(), Some(true));
        assert_eq!([machine.record(false), machine.record(false)], [None, Some(false)]);
        assert_eq!(machine.observe(&view("a")), (Next::Idle, false));
        assert_eq!(machine.observe(&view("b")), (Next::Probe, true));
        assert_eq!(machine.verdict(), Some(true));
    }

    #[test]
    fn the_startup_probe_gates_the_others_and_ends() {
        let mut liveness = Machine::new(Kind::Liveness, 1, 1);
        assert_eq!(liveness.observe(&View { started: false, ..view("a") }), (Next::Idle, true));
        assert_eq!(liveness.observe(&view("a")), (Next::Probe, false));
        let mut startup = Machine::new(Kind::Startup, 1, 1);
        assert_eq!(startup.observe(&View { started: false, ..view("a") }), (Next::Probe, true));
        assert_eq!(startup.verdict(), None);
        assert_eq!(startup.record(true), Some(true));
        assert_eq!(startup.observe(&view("a")), (Next::Idle, false));
    }

    #[test]
    fn a_stopped_container_is_not_ready_and_a_deleted_pod_is_not_killed() {
        let mut readiness = Machine::new(Kind::Readiness, 1, 1);
        readiness.observe(&view("a"));
        readiness.record(true);
        let deleting = View { deleting: true, ..view("a") };
        assert_eq!(readiness.observe(&deleting), (Next::Probe, false));
        assert_eq!(readiness.observe(&View { running: false, ..deleting.clone() }), (Next::Idle, false));
        assert_eq!(readiness.verdict(), Some(false));
        for kind in [Kind::Liveness, Kind::Startup] {
            assert_eq!(Machine::new(kind, 1, 1).observe(&deleting).0, Next::Stop);
        }
    }

    #[test]
    fn a_restarted_kubelet_takes_over_what_was_known() {
        let known = View { was_good: true, ..view("a") };
        for (kind, next) in [(Kind::Readiness, Next::Probe), (Kind::Startup, Next::Idle)] {
            let mut machine = Machine::new(kind, 1, 1);
            assert_eq!(machine.observe(&known).0, next);
            assert_eq!(machine.verdict(), Some(true));
        }
    }
}
