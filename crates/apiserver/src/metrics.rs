//! Counts and times, in the Prometheus text format under upstream's names.
//!
//! Invariant: what is counted has a bounded set of labels: unknown resources are counted without their name.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{Display, Write};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use api::resource::Resource;
use compact_str::CompactString;

use crate::admission;
use crate::aggregate;
use crate::call::Call;
use crate::health::Checks;
use crate::registry::Served;
use crate::request::Verb;
use crate::shared::Shared;

/// Upper bounds of the histograms of requests and of the store, in seconds.
const BOUNDS_S: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];

/// Upper bounds of the sizes of answers.
const BOUNDS_BYTES: [f64; 7] = [1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

#[derive(Clone)]
struct Key {
    verb: Verb,
    info: Arc<Resource>,
    subresource: CompactString,
    code: u16,
    dry_run: bool,
    /// Asked for within one namespace.
    within: bool,
}

/// Resources are told apart by name: a custom one may go and come again.
impl Key {
    fn parts(&self) -> (Verb, &str, &str, &str, &str, u16, bool, bool) {
        let Resource { group, version, plural, .. } = &*self.info;
        (self.verb, group, version, plural, &self.subresource, self.code, self.dry_run, self.within)
    }

    /// What the metrics of requests have in common, sorted.
    fn labels(&self) -> String {
        let scope = match self.verb {
            Verb::List | Verb::Watch | Verb::DeleteCollection if self.within => "namespace",
            Verb::List | Verb::Watch | Verb::DeleteCollection => "cluster",
            _ => "resource",
        };
        let Resource { group, version, plural: resource, .. } = &*self.info;
        let (verb, subresource) = (self.verb.metric(), &self.subresource);
        format!(
            "group=\"{group}\",resource=\"{resource}\",scope=\"{scope}\",subresource=\"{subresource}\",verb=\"{verb}\",version=\"{version}\""
        )
    }

    fn dry_run(&self) -> &'static str {
        if self.dry_run { "All" } else { "" }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

/// A number, or a histogram of times.
#[derive(Debug)]
pub struct Series {
    pub count: AtomicU64,
    nanos: AtomicU64,
    buckets: Box<[AtomicU64]>,
}

impl Series {
    pub fn new(bounds_s: &[f64]) -> Series {
        let buckets = bounds_s.iter().map(|_| AtomicU64::new(0)).collect();
        Series { count: AtomicU64::new(0), nanos: AtomicU64::new(0), buckets }
    }

    pub fn observe(&self, bounds_s: &[f64], seconds: f64) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add((seconds * 1e9) as u64, Ordering::Relaxed);
        if let Some(bucket) = self.buckets.get(bounds_s.partition_point(|bound| *bound < seconds)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// One metric whose labels come from the cluster, such as the names of webhooks; by its labels, sorted.
pub struct Labelled {
    bounds_s: &'static [f64],
    series: RwLock<BTreeMap<String, Arc<Series>>>,
}

/// Sets of labels of one metric that are told apart; what comes later is not counted.
const MAX_LABELS: usize = 4096;

impl Labelled {
    pub const fn new(bounds_s: &'static [f64]) -> Labelled {
        Labelled { bounds_s, series: RwLock::new(BTreeMap::new()) }
    }

    pub fn observe(&self, labels: String, seconds: f64) {
        let found = self.series.read().unwrap_or_else(PoisonError::into_inner).get(&labels).cloned();
        let series = found.or_else(|| {
            let mut all = self.series.write().unwrap_or_else(PoisonError::into_inner);
            let room = all.len() < MAX_LABELS;
            room.then(|| all.entry(labels).or_insert_with(|| Arc::new(Series::new(self.bounds_s))).clone())
        });
        series.into_iter().for_each(|series| series.observe(self.bounds_s, seconds));
    }

    /// Where there are bounds, a histogram, else a counter.
    pub fn write(&self, page: &mut Page, name: &str, help: &str) {
        let all = self.series.read().unwrap_or_else(PoisonError::into_inner);
        page.head(name, if self.bounds_s.is_empty() { "counter" } else { "histogram" }, help);
        for (labels, series) in all.iter() {
            match self.bounds_s {
                [] => page.line(format_args!("{name}{{{labels}}} {}", series.count.load(Ordering::Relaxed))),
                bounds_s => page.histogram(name, labels, bounds_s, [&**series]),
            }
        }
    }
}

/// One metric of all resources.
pub struct Family {
    bounds_s: &'static [f64],
    series: RwLock<HashMap<Key, Arc<Series>>>,
}

impl Family {
    fn new(bounds_s: &'static [f64]) -> Family {
        Family { bounds_s, series: RwLock::default() }
    }

    /// Of the store's operations on resources.
    pub fn of_store() -> Family {
        Family::new(&BOUNDS_S)
    }

    fn at(&self, key: Key) -> Arc<Series> {
        let found = self.series.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        found.unwrap_or_else(|| {
            let mut all = self.series.write().unwrap_or_else(PoisonError::into_inner);
            all.entry(key).or_insert_with(|| Arc::new(Series::new(self.bounds_s))).clone()
        })
    }

    /// That of a verb on a resource.
    pub fn of(&self, verb: Verb, served: &Served) -> Arc<Series> {
        self.within(verb, served, false)
    }

    pub fn within(&self, verb: Verb, served: &Served, within: bool) -> Arc<Series> {
        self.at(Key { verb, info: served.info.clone(), subresource: "".into(), code: 0, dry_run: false, within })
    }

    pub fn observe(&self, verb: Verb, served: &Served, took: Duration) {
        self.of(verb, served).observe(self.bounds_s, took.as_secs_f64());
    }

    /// All series by their labels; those that have the same ones together.
    fn by(&self, labels: impl Fn(&Key) -> String) -> BTreeMap<String, Vec<Arc<Series>>> {
        let mut all: BTreeMap<String, Vec<Arc<Series>>> = BTreeMap::new();
        for (key, series) in self.series.read().unwrap_or_else(PoisonError::into_inner).iter() {
            all.entry(labels(key)).or_default().push(series.clone());
        }
        all
    }
}

pub struct Metrics {
    requests: Family,
    /// Without what webhooks and queues took.
    own_times: Family,
    sizes: Family,
    /// Watches under way.
    pub running: Family,
    pub watch_events: Family,
    pub admission: admission::Times,
    pub checks: Checks,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            requests: Family::new(&BOUNDS_S),
            own_times: Family::new(&BOUNDS_S[2..]),
            sizes: Family::new(&BOUNDS_BYTES),
            running: Family::new(&[]),
            watch_events: Family::new(&[]),
            admission: admission::Times::default(),
            checks: Checks::default(),
        }
    }
}

impl Metrics {
    /// Counts a finished request, whose answer has this size if it is known.
    pub fn record(&self, call: &Call, code: u16, took: Duration, size_bytes: Option<u64>) {
        let known = call.served.info.subresource(&call.path.subresource).map_or("", |s| &*s.name);
        let (verb, dry_run) = (call.verb, call.query.has("dryRun"));
        let within = !call.path.namespace.is_empty();
        let key = Key { verb, info: call.served.info.clone(), subresource: known.into(), code, dry_run, within };
        let plain = Key { code: 0, dry_run: false, ..key.clone() };
        self.requests.at(key).observe(&BOUNDS_S, took.as_secs_f64());
        if let (Verb::Get | Verb::List, Some(bytes)) = (verb, size_bytes) {
            self.sizes.at(plain.clone()).observe(&BOUNDS_BYTES, bytes as f64);
        }
        if !matches!(verb, Verb::Watch | Verb::Connect) {
            let own = took.saturating_sub(call.elsewhere());
            self.own_times.at(plain).observe(&BOUNDS_S[2..], own.as_secs_f64());
        }
    }
}

/// A page of metrics that is being written.
#[derive(Default)]
pub struct Page(pub String);

impl Page {
    pub fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    pub fn line(&mut self, text: impl Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{text}");
    }

    /// A metric without buckets.
    fn numbers(&mut self, name: &str, kind: &str, help: &str, all: BTreeMap<String, Vec<Arc<Series>>>) {
        self.head(name, kind, help);
        for (labels, series) in all {
            let count: u64 = series.iter().map(|s| s.count.load(Ordering::Relaxed)).sum();
            self.line(format_args!("{name}{{{labels}}} {count}"));
        }
    }

    fn histograms(&mut self, name: &str, help: &str, bounds_s: &[f64], all: BTreeMap<String, Vec<Arc<Series>>>) {
        self.head(name, "histogram", help);
        for (labels, series) in all {
            self.histogram(name, &labels, bounds_s, series.iter().map(|s| &**s));
        }
    }

    /// The sum of the series under one set of labels; nothing where nothing was observed.
    pub fn histogram<'s>(
        &mut self,
        name: &str,
        labels: &str,
        bounds_s: &[f64],
        series: impl IntoIterator<Item = &'s Series>,
    ) {
        let (mut counts, mut nanos, mut count) = (vec![0; bounds_s.len()], 0, 0);
        for series in series {
            counts.iter_mut().zip(&series.buckets).for_each(|(sum, bucket)| *sum += bucket.load(Ordering::Relaxed));
            nanos += series.nanos.load(Ordering::Relaxed);
            count += series.count.load(Ordering::Relaxed);
        }
        if count == 0 {
            return;
        }
        let mut sum = 0;
        for (bound, in_bucket) in bounds_s.iter().zip(counts) {
            sum += in_bucket;
            self.line(format_args!("{name}_bucket{{{labels},le=\"{bound}\"}} {sum}"));
        }
        self.line(format_args!("{name}_bucket{{{labels},le=\"+Inf\"}} {count}"));
        self.line(format_args!("{name}_sum{{{labels}}} {}", nanos as f64 / 1e9));
        self.line(format_args!("{name}_count{{{labels}}} {count}"));
    }
}

/// The page at /metrics.
pub fn render(shared: &Shared) -> String {
    let mut page = Page::default();
    requests(&mut page, shared);
    shared.metrics.admission.write(&mut page);
    shared.flow.write_metrics(&mut page);
    let of_store = |key: &Key| {
        let Resource { group, plural, .. } = &*key.info;
        format!("group=\"{group}\",operation=\"{}\",resource=\"{plural}\"", key.verb.as_str())
    };
    let help = "Etcd request counts for each operation and object type.";
    page.numbers("etcd_requests_total", "counter", help, shared.storage.times.by(of_store));
    page.histograms(
        "etcd_request_duration_seconds",
        "Etcd request latency in seconds for each operation and object type.",
        &BOUNDS_S,
        shared.storage.times.by(of_store),
    );
    objects(&mut page, shared);
    let name = "aggregator_unavailable_apiservice";
    page.head(name, "gauge", "Gauge of APIServices which are marked as unavailable broken down by APIService name.");
    let services = shared.registry.stored(aggregate::GROUP, aggregate::RESOURCE);
    for object in services.map(|s| s.cache.snapshot("", "", 0, false, |_| true).objects).unwrap_or_default() {
        let lost = aggregate::is_unavailable(&object.stored_document());
        page.line(format_args!("{name}{{name=\"{}\"}} {}", object.name, u8::from(lost)));
    }
    let name = "kubernetes_feature_enabled";
    page.head(name, "gauge", "This metric records the data about the stage and enablement of a k8s feature.");
    for (gate, stage, on) in shared.config.feature_gates.all() {
        page.line(format_args!("{name}{{name=\"{gate}\",stage=\"{stage}\"}} {}", u8::from(on)));
    }
    if let Some(tracer) = &shared.config.tracer {
        const NAME: &str = "knarr_tracing_spans_dropped_total";
        page.head(NAME, "counter", "Number of spans that were not delivered to the collector.");
        page.line(format_args!("{NAME} {}", tracer.dropped()));
    }
    process(&mut page);
    page.0
}

fn requests(page: &mut Page, shared: &Shared) {
    let metrics = &shared.metrics;
    page.numbers(
        "apiserver_request_total",
        "counter",
        "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
        metrics.requests.by(|key| {
            format!("code=\"{}\",component=\"apiserver\",dry_run=\"{}\",{}", key.code, key.dry_run(), key.labels())
        }),
    );
    let mut times = metrics.requests.by(|key| match key.verb {
        Verb::Watch | Verb::Connect => String::new(),
        _ => format!("component=\"apiserver\",dry_run=\"{}\",{}", key.dry_run(), key.labels()),
    });
    times.remove("");
    page.histograms(
        "apiserver_request_duration_seconds",
        "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
        &BOUNDS_S,
        times,
    );
    let plain = |key: &Key| format!("component=\"apiserver\",{}", key.labels());
    page.histograms(
        "apiserver_request_sli_duration_seconds",
        "Response latency distribution (not counting webhook duration and priority & fairness queue wait times) in seconds for each verb, group, version, resource, subresource, scope and component.",
        &BOUNDS_S[2..],
        metrics.own_times.by(plain),
    );
    page.histograms(
        "apiserver_response_sizes",
        "Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.",
        &BOUNDS_BYTES,
        metrics.sizes.by(plain),
    );
    page.head(
        "apiserver_current_inflight_requests",
        "gauge",
        "Maximal number of currently used inflight request limit of this apiserver per request kind in last second.",
    );
    let (reads, writes) = shared.flow.inflight();
    for (kind, count) in [("mutating", writes), ("readOnly", reads)] {
        page.line(format_args!("apiserver_current_inflight_requests{{request_kind=\"{kind}\"}} {count}"));
    }
    page.numbers(
        "apiserver_longrunning_requests",
        "gauge",
        "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.",
        metrics.running.by(plain),
    );
    page.numbers(
        "apiserver_watch_events_total",
        "counter",
        "Number of events sent in watch clients",
        metrics.watch_events.by(|key| {
            let Resource { group, version, plural, .. } = &*key.info;
            format!("group=\"{group}\",resource=\"{plural}\",version=\"{version}\"")
        }),
    );
}

fn objects(page: &mut Page, shared: &Shared) {
    let mut resources = shared.registry.all_stored();
    resources.sort_by(|a, b| a.prefix.cmp(&b.prefix));
    let help = "Number of stored objects at the time of last check split by kind.";
    page.head("apiserver_resource_objects", "gauge", help);
    for served in &resources {
        let (group, resource, count) = (&served.gr.group, &served.gr.resource, served.cache.len());
        page.line(format_args!("apiserver_resource_objects{{group=\"{group}\",resource=\"{resource}\"}} {count}"));
    }
    let help = "[DEPRECATED, consider using apiserver_resource_objects instead] Number of stored objects at the time of last check split by kind.";
    page.head("apiserver_storage_objects", "gauge", help);
    for served in &resources {
        page.line(format_args!("apiserver_storage_objects{{resource=\"{}\"}} {}", served.gr, served.cache.len()));
    }
}

/// What the system knows of this process. Source: proc(5).
fn process(page: &mut Page) {
    /// Compat: the kernel tells times to programs in this unit on all architectures.
    const TICKS_PER_S: f64 = 100.0;
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let stat = read("/proc/self/stat");
    // The name, in parentheses, may hold anything.
    let stat: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| stat.get(index).and_then(|t| t.parse::<f64>().ok()).unwrap_or_default() / TICKS_PER_S;
    let (status, limits, system) = (read("/proc/self/status"), read("/proc/self/limits"), read("/proc/stat"));
    let number = |text: &str, start: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(start)).unwrap_or_default();
        rest.split_whitespace().next().and_then(|n| n.parse::<f64>().ok()).unwrap_or_default()
    };
    // Compat: -1 of 64 bits where there is no limit (Prometheus' client library for Go).
    let space = Some(number(&limits, "Max address space")).filter(|n| *n > 0.0).unwrap_or(u64::MAX as f64);
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as f64;
    for (name, kind, help, value) in [
        ("cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", ticks(11) + ticks(12)),
        ("max_fds", "gauge", "Maximum number of open file descriptors.", number(&limits, "Max open files")),
        ("open_fds", "gauge", "Number of open file descriptors.", open),
        ("resident_memory_bytes", "gauge", "Resident memory size in bytes.", number(&status, "VmRSS:") * 1024.0),
        (
            "start_time_seconds",
            "gauge",
            "Start time of the process since unix epoch in seconds.",
            number(&system, "btime") + ticks(19),
        ),
        ("virtual_memory_max_bytes", "gauge", "Maximum amount of virtual memory available in bytes.", space),
        ("virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", number(&status, "VmSize:") * 1024.0),
    ] {
        page.head(&format!("process_{name}"), kind, help);
        page.line(format_args!("process_{name} {value}"));
    }
}
