//! What became of requests, by flow schema and priority level.
//!
//! Invariant: what is under way or waiting is counted by a guard, so that it ends with the request whatever happens to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::level::Refusal;
use crate::metrics::{Page, Series};

/// Upper bounds of how long requests wait and are executed, in seconds.
const BOUNDS_S: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];

/// One of the numbers.
type Number = fn(&Counts) -> &AtomicUsize;

#[derive(Debug)]
pub struct Counts {
    pub schema: String,
    pub level: Arc<str>,
    executing: AtomicUsize,
    seats: AtomicUsize,
    waiting: AtomicUsize,
    dispatched: AtomicUsize,
    refused: [AtomicUsize; 3],
    execution: Series,
    /// Those that were refused in the end, and those that were executed.
    waits: [Series; 2],
}

/// A number that is there until this drops.
#[derive(Debug)]
pub struct Held {
    counts: Arc<Counts>,
    which: Number,
    by: usize,
}

impl Held {
    fn new(counts: &Arc<Counts>, which: Number, by: usize) -> Held {
        which(counts).fetch_add(by, Ordering::Relaxed);
        Held { counts: counts.clone(), which, by }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        (self.which)(&self.counts).fetch_sub(self.by, Ordering::Relaxed);
    }
}

impl Counts {
    pub fn new(schema: &str, level: &Arc<str>) -> Counts {
        let series = || Series::new(&BOUNDS_S);
        Counts {
            schema: schema.to_string(),
            level: level.clone(),
            executing: AtomicUsize::new(0),
            seats: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            dispatched: AtomicUsize::new(0),
            refused: Default::default(),
            execution: series(),
            waits: [series(), series()],
        }
    }

    /// A request begins to be executed.
    pub fn begin(self: &Arc<Self>, seats: usize) -> [Held; 2] {
        self.dispatched.fetch_add(1, Ordering::Relaxed);
        [Held::new(self, |c| &c.executing, 1), Held::new(self, |c| &c.seats, seats)]
    }

    pub fn end(&self, took: Duration) {
        self.execution.observe(&BOUNDS_S, took.as_secs_f64());
    }

    pub fn wait(self: &Arc<Self>) -> Held {
        Held::new(self, |c| &c.waiting, 1)
    }

    /// What came after this wait.
    pub fn waited(&self, took: Duration, refusal: Option<Refusal>) {
        self.waits[usize::from(refusal.is_none())].observe(&BOUNDS_S, took.as_secs_f64());
        if let Some(refusal) = refusal {
            self.refused[refusal as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn labels(&self) -> String {
        format!("flow_schema=\"{}\",priority_level=\"{}\"", self.schema, self.level)
    }
}

/// Appends the metrics, under upstream's names.
pub fn write(all: &[Arc<Counts>], page: &mut Page) {
    let metrics: [(&str, &str, &str, Number); 4] = [
        (
            "current_executing_requests",
            "gauge",
            "Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API Priority and Fairness subsystem",
            |c| &c.executing,
        ),
        (
            "current_executing_seats",
            "gauge",
            "Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem",
            |c| &c.seats,
        ),
        (
            "current_inqueue_requests",
            "gauge",
            "Number of requests currently pending in queues of the API Priority and Fairness subsystem",
            |c| &c.waiting,
        ),
        (
            "dispatched_requests_total",
            "counter",
            "Number of requests executed by API Priority and Fairness subsystem",
            |c| &c.dispatched,
        ),
    ];
    for (name, kind, help, which) in metrics {
        let name = format!("apiserver_flowcontrol_{name}");
        page.head(&name, kind, help);
        for counts in all {
            page.line(format_args!("{name}{{{}}} {}", counts.labels(), which(counts).load(Ordering::Relaxed)));
        }
    }
    let name = "apiserver_flowcontrol_rejected_requests_total";
    page.head(name, "counter", "Number of requests rejected by API Priority and Fairness subsystem");
    for counts in all {
        for refusal in [Refusal::QueueFull, Refusal::Limit, Refusal::TimeOut] {
            let (reason, count) = (refusal.reason(), counts.refused[refusal as usize].load(Ordering::Relaxed));
            if count > 0 {
                page.line(format_args!("{name}{{{},reason=\"{reason}\"}} {count}", counts.labels()));
            }
        }
    }
    let name = "apiserver_flowcontrol_request_wait_duration_seconds";
    page.head(name, "histogram", "Length of time a request spent waiting in its queue");
    for counts in all {
        for (execute, series) in [false, true].iter().zip(&counts.waits) {
            let labels = format!("execute=\"{execute}\",{}", counts.labels());
            page.histogram(name, &labels, &BOUNDS_S, [series]);
        }
    }
    let name = "apiserver_flowcontrol_request_execution_seconds";
    let help = "Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in the API \
                Priority and Fairness subsystem";
    page.head(name, "histogram", help);
    for counts in all {
        page.histogram(name, &format!("{},type=\"regular\"", counts.labels()), &BOUNDS_S, [&counts.execution]);
    }
}
