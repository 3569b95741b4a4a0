//! /healthz, /livez and /readyz, with their single checks.
//!
//! Invariant: a check answers from what the process knows; none writes.

use std::sync::atomic::Ordering;

use crate::body::Response;
use crate::reply;
use crate::request::Query;
use crate::shared::Shared;

type Check = (&'static str, Result<(), String>);

/// Answers a path below one of the three roots.
pub async fn answer(shared: &Shared, path: &str, query: &Query) -> Response {
    let mut segments = path.trim_matches('/').splitn(2, '/');
    let root = segments.next().unwrap_or_default();
    let checks = checks(shared, root).await;
    if let Some(name) = segments.next() {
        return match checks.iter().find(|(n, _)| *n == name) {
            Some((_, Ok(()))) => reply::text(200, "ok"),
            Some((_, Err(why))) => reply::text(500, format!("internal server error: {why}\n")),
            None => reply::text(404, "404 page not found\n"),
        };
    }
    let excluded: Vec<&str> = query.all("exclude").collect();
    let mut page = String::new();
    let mut failed = false;
    for (name, result) in &checks {
        if excluded.contains(name) {
            page.push_str(&format!("[+]{name} excluded: ok\n"));
            continue;
        }
        match result {
            Ok(()) => page.push_str(&format!("[+]{name} ok\n")),
            Err(_) => {
                failed = true;
                page.push_str(&format!("[-]{name} failed: reason withheld\n"));
            }
        }
    }
    if failed {
        page.push_str(&format!("{root} check failed\n"));
        return reply::text(500, page);
    }
    if query.has("verbose") {
        page.push_str(&format!("{root} check passed\n"));
        return reply::text(200, page);
    }
    reply::text(200, "ok")
}

async fn checks(shared: &Shared, root: &str) -> Vec<Check> {
    let store = shared.storage.store.revision().await.map(|_| ()).map_err(|e| e.to_string());
    let started = match shared.ready.load(Ordering::Acquire) {
        true => Ok(()),
        false => Err("the default objects are not there yet".to_string()),
    };
    let mut all: Vec<Check> = vec![("ping", Ok(())), ("log", Ok(())), ("etcd", store)];
    if root != "livez" {
        all.push(("poststarthook/bootstrap-default-objects", started));
    }
    if root == "readyz" {
        let behind = match &shared.storage.store.revision().await {
            Ok(revision) if shared.storage.feed.applied() < *revision => {
                shared.storage.fresh().await.map_err(|e| e.to_string())
            }
            _ => Ok(()),
        };
        all.push(("informer-sync", behind));
        let stopping = if shared.shutdown.is_cancelled() { Err("the server is stopping".to_string()) } else { Ok(()) };
        all.push(("shutdown", stopping));
    }
    all
}
