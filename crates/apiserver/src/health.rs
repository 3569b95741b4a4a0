//! /healthz, /livez and /readyz, with their single checks, and what they said over time (/metrics/slis).
//!
//! Invariant: a check answers from what the process knows; none writes.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use http::header::{CACHE_CONTROL, HeaderValue, X_CONTENT_TYPE_OPTIONS};

use crate::body::Response;
use crate::metrics::Page;
use crate::reply;
use crate::request::Query;
use crate::shared::Shared;

pub const ROOTS: [&str; 3] = ["healthz", "livez", "readyz"];
/// What the default objects and their first reading are, one by one, under upstream's names.
const HOOKS: [&str; 7] = [
    "poststarthook/apiservice-registration-controller", "poststarthook/bootstrap-controller",
    "poststarthook/priority-and-fairness-config-consumer", "poststarthook/priority-and-fairness-config-producer",
    "poststarthook/scheduling/bootstrap-system-priority-classes", "poststarthook/start-apiextensions-controllers",
    "poststarthook/start-system-namespaces-controller",
];

type Check = (&'static str, Result<(), String>);

/// What a check last said, and how often it failed and passed.
type Said = (bool, [u64; 2]);

/// By root and name.
#[derive(Default)]
pub struct Checks(Mutex<BTreeMap<(String, &'static str), Said>>);

impl Checks {
    fn record(&self, root: &str, name: &'static str, ok: bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, counts) = all.entry((root.to_string(), name)).or_default();
        *last = ok;
        counts[usize::from(ok)] += 1;
    }

    /// The page at /metrics/slis.
    pub fn render(&self) -> String {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut page, mut totals) = (Page::default(), Page::default());
        page.head("kubernetes_healthcheck", "gauge", "This metric records the result of a single healthcheck.");
        totals.head("kubernetes_healthchecks_total", "counter", "This metric records the results of all healthcheck.");
        for ((root, name), (last, counts)) in all.iter() {
            page.line(format_args!("kubernetes_healthcheck{{name=\"{name}\",type=\"{root}\"}} {}", u8::from(*last)));
            for (status, count) in ["error", "success"].iter().zip(counts).filter(|(_, count)| **count > 0) {
                let labels = format_args!("name=\"{name}\",status=\"{status}\",type=\"{root}\"");
                totals.line(format_args!("kubernetes_healthchecks_total{{{labels}}} {count}"));
            }
        }
        page.0 + &totals.0
    }
}

/// The paths of the roots and of all their checks.
pub fn paths() -> impl Iterator<Item = String> {
    ROOTS.iter().flat_map(|root| {
        let checks = names(root).map(move |name| format!("/{root}/{name}"));
        checks.chain([format!("/{root}")])
    })
}

fn names(root: &str) -> impl Iterator<Item = &'static str> + use<> {
    let own: &[&str] = if root == "readyz" { &["etcd-readiness", "informer-sync", "shutdown"] } else { &[] };
    ["ping", "log", "etcd"].into_iter().chain(HOOKS).chain(own.iter().copied())
}

/// Answers a path below one of the three roots.
pub async fn answer(shared: &Shared, path: &str, query: &Query) -> Response {
    let mut segments = path.trim_matches('/').splitn(2, '/');
    let root = segments.next().unwrap_or_default();
    let single = segments.next();
    let checks = checks(shared, root, single).await;
    let mut response = match (single, &checks[..]) {
        (Some(_), [(_, Ok(())), ..]) => reply::text(200, "ok"),
        (Some(_), [(_, Err(why)), ..]) => reply::text(500, format!("internal server error: {why}\n")),
        (Some(_), []) => reply::text(404, "404 page not found\n"),
        (None, checks) => {
            let (code, page) = report(root, checks, query.all("exclude").collect(), query.has("verbose"));
            reply::text(code, page)
        }
    };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn report(root: &str, checks: &[Check], excluded: Vec<&str>, verbose: bool) -> (u16, String) {
    let mut page = String::new();
    let mut failed = false;
    for (name, result) in checks {
        page.push_str(&match result {
            _ if excluded.contains(name) => format!("[+]{name} excluded: ok\n"),
            Ok(()) => format!("[+]{name} ok\n"),
            Err(why) => {
                failed = true;
                tracing::warn!("{root}: {name}: {why}");
                format!("[-]{name} failed: reason withheld\n")
            }
        });
    }
    let mut unknown: Vec<String> =
        excluded.iter().filter(|e| checks.iter().all(|(n, _)| n != *e)).map(|e| format!("{e:?}")).collect();
    unknown.sort();
    unknown.dedup();
    if !unknown.is_empty() {
        page.push_str(&format!("warn: some health checks cannot be excluded: no matches for {}\n", unknown.join(", ")));
    }
    match (failed, verbose) {
        (true, _) => (500, format!("{page}{root} check failed\n")),
        (false, true) => (200, format!("{page}{root} check passed\n")),
        (false, false) => (200, "ok".to_string()),
    }
}

/// Asks all checks of a root, or one.
async fn checks(shared: &Shared, root: &str, single: Option<&str>) -> Vec<Check> {
    let store = &shared.storage.store;
    let mut all = Vec::new();
    for name in names(root).filter(|name| single.is_none_or(|single| single == *name)) {
        let result = match name {
            "etcd" | "etcd-readiness" => store.revision().await.map(|_| ()).map_err(|e| e.to_string()),
            "informer-sync" => shared.storage.fresh().await.map_err(|e| e.to_string()),
            "shutdown" if shared.shutdown.is_cancelled() => Err("process is shutting down".to_string()),
            _ if HOOKS.contains(&name) && !shared.ready.load(Ordering::Acquire) => Err("not finished".to_string()),
            _ => Ok(()),
        };
        shared.metrics.checks.record(root, name, result.is_ok());
        all.push((name, result));
    }
    all
}
