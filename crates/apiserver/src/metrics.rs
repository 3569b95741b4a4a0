//! Counts and times of requests, in the Prometheus text format under upstream's names.
//!
//! Invariant: what is counted has a bounded set of labels: unknown resources are counted without their name.

use std::collections::HashMap;
use std::fmt::Write;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use api::resource::Resource;
use compact_str::CompactString;

use crate::registry::Served;
use crate::request::Verb;
use crate::shared::Shared;

/// Upper bounds of the duration histogram, in seconds.
const BOUNDS_S: [f64; 12] = [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 15.0, 60.0];

#[derive(Clone)]
struct Key {
    verb: Verb,
    info: Arc<Resource>,
    subresource: CompactString,
    code: u16,
}

/// Resources are told apart by name: a custom one may go and come again.
impl Key {
    fn parts(&self) -> (Verb, &str, &str, &str, &str, u16) {
        let Resource { group, version, plural, .. } = &*self.info;
        (self.verb, group, version, plural, &self.subresource, self.code)
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

#[derive(Default)]
struct Series {
    count: AtomicU64,
    micros: AtomicU64,
    buckets: [AtomicU64; BOUNDS_S.len()],
}

#[derive(Default)]
pub struct Metrics {
    series: RwLock<HashMap<Key, Arc<Series>>>,
    pub long_running: AtomicU64,
    pub rejected: AtomicU64,
}

impl Metrics {
    /// Counts a finished request.
    pub fn record(&self, verb: Verb, served: &Served, subresource: &str, code: u16, took: Duration) {
        let known = served.info.subresource(subresource).map_or("", |s| &*s.name);
        let key = Key { verb, info: served.info.clone(), subresource: known.into(), code };
        let found = self.series.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let series = found.unwrap_or_else(|| {
            self.series.write().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone()
        });
        series.count.fetch_add(1, Ordering::Relaxed);
        series.micros.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
        let at = BOUNDS_S.partition_point(|bound| *bound < took.as_secs_f64());
        if let Some(bucket) = series.buckets.get(at) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The page at /metrics.
pub fn render(shared: &Shared) -> String {
    let metrics = &shared.metrics;
    let mut all: Vec<(Key, Arc<Series>)> = {
        let series = metrics.series.read().unwrap_or_else(PoisonError::into_inner);
        series.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    let order = |k: &Key| (k.info.gvr().to_string(), k.subresource.clone(), k.verb.metric(), k.code);
    all.sort_by_cached_key(|(k, _)| order(k));
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_all(&mut out, shared, &all);
    out
}

fn write_all(out: &mut String, shared: &Shared, all: &[(Key, Arc<Series>)]) -> std::fmt::Result {
    head(
        out,
        "apiserver_request_total",
        "counter",
        "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
    )?;
    for (key, series) in all {
        let labels = labels(key);
        writeln!(
            out,
            "apiserver_request_total{{code=\"{}\",component=\"apiserver\",dry_run=\"\",{labels}}} {}",
            key.code,
            series.count.load(Ordering::Relaxed)
        )?;
    }
    head(
        out,
        "apiserver_request_duration_seconds",
        "histogram",
        "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
    )?;
    for (key, series) in all.iter().filter(|(k, _)| !matches!(k.verb, Verb::Watch | Verb::Connect)) {
        let labels = format!("code=\"{}\",component=\"apiserver\",dry_run=\"\",{}", key.code, labels(key));
        let mut sum = 0;
        for (bound, bucket) in BOUNDS_S.iter().zip(&series.buckets) {
            sum += bucket.load(Ordering::Relaxed);
            writeln!(out, "apiserver_request_duration_seconds_bucket{{{labels},le=\"{bound}\"}} {sum}")?;
        }
        let count = series.count.load(Ordering::Relaxed);
        writeln!(out, "apiserver_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} {count}")?;
        let seconds = series.micros.load(Ordering::Relaxed) as f64 / 1e6;
        writeln!(out, "apiserver_request_duration_seconds_sum{{{labels}}} {seconds}")?;
        writeln!(out, "apiserver_request_duration_seconds_count{{{labels}}} {count}")?;
    }
    let (reads, writes) = shared.flow.inflight();
    head(
        out,
        "apiserver_current_inflight_requests",
        "gauge",
        "Maximal number of currently used inflight request limit of this apiserver per request kind in last second.",
    )?;
    writeln!(out, "apiserver_current_inflight_requests{{request_kind=\"readOnly\"}} {reads}")?;
    writeln!(out, "apiserver_current_inflight_requests{{request_kind=\"mutating\"}} {writes}")?;
    head(out, "apiserver_longrunning_requests", "gauge", "Gauge of all active long-running apiserver requests.")?;
    writeln!(out, "apiserver_longrunning_requests {}", shared.metrics.long_running.load(Ordering::Relaxed))?;
    head(
        out,
        "apiserver_rejected_requests_total",
        "counter",
        "Requests answered with 429 because too many were under way.",
    )?;
    writeln!(out, "apiserver_rejected_requests_total {}", shared.metrics.rejected.load(Ordering::Relaxed))?;
    shared.flow.write_metrics(out)?;
    head(
        out,
        "apiserver_resource_objects",
        "gauge",
        "Number of stored objects at the time of last check split by kind.",
    )?;
    let mut resources = shared.registry.all_stored();
    resources.sort_by(|a, b| a.prefix.cmp(&b.prefix));
    for served in &resources {
        let count = served.cache.len();
        writeln!(
            out,
            "apiserver_resource_objects{{group=\"{}\",resource=\"{}\"}} {count}",
            served.gr.group, served.gr.resource
        )?;
    }
    head(out, "apiserver_storage_revision", "gauge", "The store's revision that all caches have reached.")?;
    writeln!(out, "apiserver_storage_revision {}", shared.storage.feed.applied())
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

fn labels(key: &Key) -> String {
    let scope = match key.verb {
        Verb::List | Verb::Watch | Verb::DeleteCollection if key.info.namespaced => "namespace",
        Verb::List | Verb::Watch | Verb::DeleteCollection => "cluster",
        _ => "resource",
    };
    let Resource { group, version, plural: resource, .. } = &*key.info;
    let (verb, subresource) = (key.verb.metric(), &key.subresource);
    format!(
        "group=\"{group}\",resource=\"{resource}\",scope=\"{scope}\",subresource=\"{subresource}\",verb=\"{verb}\",version=\"{version}\""
    )
}
