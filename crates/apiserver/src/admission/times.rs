//! How long admission took, and what came of it: of plugins, of steps, of webhooks.
//!
//! Writes: metrics under upstream's names. Invariant: counting a plugin or a step allocates nothing.

use std::time::{Duration, Instant};

use super::{Checks, Operation, PLUGINS};
use crate::metrics::{Labelled, Page, Series};

/// Upper bounds of the times of plugins and steps, and of webhooks, in seconds.
const BOUNDS_S: [f64; 8] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
const OWN_BOUNDS_S: &[f64] = BOUNDS_S.split_at(6).0;
const OPERATIONS: [Operation; 4] = [Operation::Create, Operation::Update, Operation::Delete, Operation::Connect];

/// What follows the list of plugins, and whether it changes documents.
pub const FURTHER: [(&str, bool); 5] = [
    ("MutatingAdmissionPolicy", true),
    ("MutatingAdmissionWebhook", true),
    ("ValidatingAdmissionPolicy", false),
    ("ValidatingAdmissionWebhook", false),
    ("ResourceQuota", false),
];
pub const MUTATING_POLICIES: usize = PLUGINS.len();
pub const MUTATING_WEBHOOKS: usize = PLUGINS.len() + 1;
pub const VALIDATING_POLICIES: usize = PLUGINS.len() + 2;
pub const VALIDATING_WEBHOOKS: usize = PLUGINS.len() + 3;
pub const RESOURCE_QUOTA: usize = PLUGINS.len() + 4;

pub struct Times {
    /// By plugin, operation, and whether it refused.
    plugins: Vec<Series>,
    /// By whether documents are changed, operation, and whether the write was refused.
    steps: Vec<Series>,
    hooks: Labelled,
    hook_requests: Labelled,
    hook_rejections: Labelled,
    hook_failures: Labelled,
}

impl Default for Times {
    fn default() -> Times {
        let series = |count: usize| (0..count * 8).map(|_| Series::new(OWN_BOUNDS_S)).collect();
        Times {
            plugins: series(PLUGINS.len() + FURTHER.len()),
            steps: series(2),
            hooks: Labelled::new(&BOUNDS_S),
            hook_requests: Labelled::new(&[]),
            hook_rejections: Labelled::new(&[]),
            hook_failures: Labelled::new(&[]),
        }
    }
}

/// How a webhook's call ended.
pub struct Called<'a> {
    pub name: &'a str,
    pub operation: Operation,
    pub mutating: bool,
    pub code: u16,
    /// The webhook did not answer, or answered nonsense.
    pub failed: bool,
    pub rejected: bool,
    pub took: Duration,
}

impl Times {
    pub fn record(&self, plugin: usize, operation: Operation, refused: bool, since: &mut Instant) {
        let now = Instant::now();
        let series = &self.plugins[(plugin * 4 + operation as usize) * 2 + usize::from(refused)];
        series.observe(OWN_BOUNDS_S, (now - *since).as_secs_f64());
        *since = now;
    }

    /// All of one write's changes, or all of its checks.
    pub fn step(&self, mutating: bool, operation: Operation, refused: bool, since: Instant) {
        let series = &self.steps[(usize::from(!mutating) * 4 + operation as usize) * 2 + usize::from(refused)];
        series.observe(OWN_BOUNDS_S, since.elapsed().as_secs_f64());
    }

    pub fn called(&self, call: &Called<'_>) {
        let Called { name, code, rejected, .. } = call;
        let (operation, ty) = (call.operation.as_str(), if call.mutating { "admit" } else { "validating" });
        let labels = format!("name=\"{name}\",operation=\"{operation}\",rejected=\"{rejected}\",type=\"{ty}\"");
        self.hook_requests.observe(format!("code=\"{code}\",{labels}"), 0.0);
        self.hooks.observe(labels, call.took.as_secs_f64());
        if *rejected {
            let error = if call.failed { "calling_webhook_error" } else { "no_error" };
            let labels = format!(
                "error_type=\"{error}\",name=\"{name}\",operation=\"{operation}\",rejection_code=\"{code}\",type=\"{ty}\""
            );
            self.hook_rejections.observe(labels, 0.0);
        } else if call.failed {
            self.hook_failures.observe(format!("name=\"{name}\",type=\"{ty}\""), 0.0);
        }
    }

    pub fn write(&self, page: &mut Page) {
        let plugins = PLUGINS.iter().map(|(name, part)| (*name, !matches!(part, Checks(_))));
        let plugins = plugins.chain(FURTHER).map(|(name, mutating)| (format!("name=\"{name}\","), mutating));
        let name = "apiserver_admission_controller_admission_duration_seconds";
        let help = "Admission controller latency histogram in seconds, identified by name and broken out for each \
                    operation and API resource and type (validate or admit).";
        histograms(page, name, help, plugins, &self.plugins);
        let name = "apiserver_admission_step_admission_duration_seconds";
        let help = "Admission sub-step latency histogram in seconds, broken out for each operation and API resource and \
                    step type (validate or admit).";
        histograms(page, name, help, [(String::new(), true), (String::new(), false)].into_iter(), &self.steps);
        let by = "identified by name and broken out for each";
        for (name, metric, help) in [
            (
                "admission_duration_seconds",
                &self.hooks,
                format!("latency histogram in seconds, {by} operation and API resource and type (validate or admit)."),
            ),
            (
                "request_total",
                &self.hook_requests,
                format!("request total, {by} admission type (validating or admit) and operation."),
            ),
            (
                "rejection_count",
                &self.hook_rejections,
                format!("rejection count, {by} admission type (validating or admit) and operation."),
            ),
            (
                "fail_open_count",
                &self.hook_failures,
                format!("fail open count, {by} admission type (validating or admit)."),
            ),
        ] {
            metric.write(page, &format!("apiserver_admission_webhook_{name}"), &format!("Admission webhook {help}"));
        }
    }
}

fn histograms(page: &mut Page, name: &str, help: &str, all: impl Iterator<Item = (String, bool)>, series: &[Series]) {
    page.head(name, "histogram", help);
    let mut series = series.iter();
    for (start, mutating) in all {
        let ty = if mutating { "admit" } else { "validate" };
        for (operation, rejected) in OPERATIONS.iter().flat_map(|o| [(o.as_str(), false), (o.as_str(), true)]) {
            let labels = format!("{start}operation=\"{operation}\",rejected=\"{rejected}\",type=\"{ty}\"");
            page.histogram(name, &labels, OWN_BOUNDS_S, series.next());
        }
    }
}
