//! Counts what is used of every resource quota, and keeps its status.
//! Reads: ResourceQuota, discovery, everything that quotas count. Writes: ResourceQuota/status. Invariant: a quota and what
//! it counts are read as of one revision (where there may be other servers' kinds, what it counts as of that or later), and
//! what admission charged since then stays charged.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::quota::{self, Amounts};
use client::watch::{self, Sink};
use client::{Action, Event, Informer, Key, WorkQueue};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota, ResourceQuotaStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use kube::api::{ApiResource, DynamicObject, ListParams, PostParams, VersionMatch};
use kube::core::{PartialObjectMeta, Request};
use kube::{Api, Resource, ResourceExt};
use meta::Value;
use meta::quantity::{Format, Quantity};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::context::{Ctx, During, Error, Result};
use crate::discovery::{self, Discovered, Served};
use crate::{clock, pod};

/// What was deleted is counted out after this many times the time that the last count took, so that counting many pods
/// again and again leaves the machine to others.
const PAUSE_FACTOR: u64 = 10;
const PAUSE_MS: std::ops::RangeInclusive<u64> = 100..=10_000;
/// A write that did not know of a new quota yet is done by then.
const SETTLE: Duration = Duration::from_secs(5);
/// Discovery that lacks a counted kind is not asked more often.
const DISCOVERY_MIN: Duration = Duration::from_secs(1);
const WRITES_MAX: usize = 8;
const PAGE_SIZE: u32 = 500;
/// Kinds whose objects use more than their number, and free some of it by a change.
const MEASURED: [(&str, &str); 4] =
    [("", "pods"), ("", "services"), ("", "persistentvolumeclaims"), ("resource.k8s.io", "resourceclaims")];

/// Has quotas counted anew.
#[derive(Clone)]
struct Wake {
    queue: WorkQueue<Key>,
    quotas: Informer<ResourceQuota>,
    pause_ms: Arc<AtomicU64>,
}

impl Wake {
    /// Those that count this resource: of one namespace, or all.
    fn wake(&self, namespace: Option<&str>, group: &str, resource: &str) {
        let pause = Duration::from_millis(self.pause_ms.load(Ordering::Relaxed));
        for quota in namespace.map_or_else(|| self.quotas.list(), |name| self.quotas.list_in(name)) {
            if hard(&quota).iter().any(|name| quota::counts(group, resource, name)) {
                self.queue.add_after(Key::of(quota.as_ref()), pause);
            }
        }
    }
}

fn hard(quota: &ResourceQuota) -> Vec<&String> {
    quota.spec.iter().flat_map(|spec| spec.hard.iter().flat_map(|hard| hard.keys())).collect()
}

/// The kinds that there are, and those whose objects are watched because a quota counts them.
#[derive(Default)]
struct Kinds {
    discovered: Discovered,
    asked: Option<Instant>,
    watched: HashMap<ApiResource, CancellationToken>,
}

struct Controller {
    ctx: Ctx,
    wake: Wake,
    kinds: Mutex<Kinds>,
    tasks: TaskTracker,
}

pub fn start(ctx: Ctx) -> BoxFuture<'static, ()> {
    let (quotas, pods) = (ctx.informers.of::<ResourceQuota>(), ctx.informers.of::<Pod>());
    let queue = WorkQueue::new();
    let pause_ms = Arc::new(AtomicU64::new(*PAUSE_MS.start()));
    let wake = Wake { queue: queue.clone(), quotas: quotas.clone(), pause_ms };
    let into = queue.clone();
    quotas.on_event(move |event| {
        // The status changes with every charge, which is right as it is.
        if !matches!(event, Event::Modified { old, new } if old.spec == new.spec) {
            into.add(Key::of(event.object().as_ref()));
        }
    });
    let freed = wake.clone();
    pods.on_event(move |event| {
        let lighter = match event {
            Event::Added(_) => false,
            Event::Modified { old, new } => weight(old) != weight(new),
            Event::Deleted(_) => true,
        };
        if lighter {
            freed.wake(event.object().metadata.namespace.as_deref(), "", "pods");
        }
    });
    Box::pin(async move {
        let (shutdown, count) = (ctx.shutdown.clone(), ctx.config.concurrency);
        let tasks = TaskTracker::new();
        let this = Arc::new(Controller { ctx, wake, kinds: Mutex::default(), tasks: tasks.clone() });
        client::run_workers(queue, count, shutdown, move |key: Key| {
            let this = this.clone();
            async move { this.reconcile(&key).await }
        })
        .await;
        tasks.close();
        tasks.wait().await;
    })
}

/// What of a pod can lower its charge by changing.
fn weight(pod: &Pod) -> (bool, Option<i64>, bool) {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let resizes = conditions.into_iter().any(|condition| condition.type_.starts_with("PodResize"));
    (pod::is_finished(pod), pod.metadata.generation, resizes)
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> Result<Action> {
        let started = Instant::now();
        let quotas: Api<ResourceQuota> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        // A list, since it tells the revision that it is of.
        let named = ListParams::default().fields(&format!("metadata.name={}", key.name));
        let mut list = quotas.list(&named).await.during(|| format!("cannot read resource quota {key}"))?;
        let Some(seen) = list.items.pop() else { return Ok(Action::Done) };
        let revision = list.metadata.resource_version.unwrap_or_default();
        let counted = self.count(&seen, &key.namespace, &revision).await?;
        let exact = write(&quotas, &seen, &counted).await?;
        let pause_ms = started.elapsed().as_millis() as u64 * PAUSE_FACTOR;
        let pause_ms = pause_ms.clamp(*PAUSE_MS.start(), *PAUSE_MS.end());
        self.wake.pause_ms.store(pause_ms, Ordering::Relaxed);
        let complete = hard(&seen).iter().all(|name| counted.contains_key(*name));
        let again = [
            Some(self.ctx.config.quota_resync_period),
            (!exact).then_some(Duration::from_millis(pause_ms)),
            (!is_settled(&seen)).then_some(SETTLE),
            // Of a kind that is not served yet.
            (!complete).then_some(self.ctx.config.discovery_period),
        ];
        Ok(Action::RequeueAfter(again.into_iter().flatten().min().unwrap_or(SETTLE)))
    }

    /// What is used of the quota's names, but of those whose kind is not served.
    async fn count(&self, seen: &ResourceQuota, namespace: &str, revision: &str) -> Result<Amounts> {
        let document = serde_json::to_value(seen).map_err(|error| Error::Other(error.to_string()))?;
        let document = Value::from(document);
        let names = hard(seen);
        let mut counted = Amounts::new();
        for served in self.kinds(&names).await? {
            let resource = &served.resource;
            for name in names.iter().filter(|name| quota::counts(&resource.group, &resource.plural, name)) {
                counted.entry(name.to_string()).or_default();
            }
            self.count_kind(&document, namespace, revision, resource, &mut counted).await?;
        }
        Ok(counted)
    }

    /// Adds what the objects of one kind use. The list is of the revision at which the quota was read, so that nothing is in
    /// it that was charged later; of kinds that may be another server's, with revisions of its own, it is of the newest.
    async fn count_kind(
        &self,
        quota: &Value,
        namespace: &str,
        revision: &str,
        of: &ApiResource,
        counted: &mut Amounts,
    ) -> Result<()> {
        let (group, plural) = (of.group.as_str(), of.plural.as_str());
        let measured = MEASURED.contains(&(group, plural));
        // Of the others only the number is wanted, which comes with any page. No scope selects them.
        if !measured && !quota::selects(quota, group, plural, &Value::Null) {
            return Ok(());
        }
        let now = clock::now();
        let mut page_size = if measured { PAGE_SIZE } else { 1 };
        let mut token = String::new();
        loop {
            let params = ListParams::default().limit(page_size);
            let params = match (token.is_empty(), group.contains('.')) {
                (true, false) => params.at(revision).matching(VersionMatch::Exact),
                (true, true) => params,
                (false, _) => params.continue_token(&token),
            };
            let request = Request::new(DynamicObject::url_path(of, Some(namespace))).list(&params);
            let page = match request.map_err(kube::Error::BuildRequest) {
                Ok(request) => self.ctx.client.request::<Value>(request).await,
                Err(error) => Err(error),
            };
            let page = match page {
                // Gone since discovery.
                Err(error) if client::is_not_found(&error) => return Ok(()),
                page => page.during(|| format!("cannot list {plural} in namespace {namespace}"))?,
            };
            let items = page.array_at(&["items"]);
            let rest = page.int_at(&["metadata", "remainingItemCount"]).filter(|_| !measured);
            let mut add = |mut used: Amounts| {
                used.retain(|name, _| counted.contains_key(name));
                quota::add(counted, &used);
            };
            if measured {
                let selected = items.iter().filter(|object| quota::selects(quota, group, plural, object));
                selected.for_each(|object| add(quota::usage(group, plural, object, now)));
            } else {
                let number = Quantity::from_i64(items.len() as i64 + rest.unwrap_or(0), Format::DecimalSI);
                let names = quota::usage(group, plural, &Value::Null, now).into_keys();
                add(names.map(|name| (name, number)).collect());
            }
            token = page.str_at(&["metadata", "continue"]).unwrap_or_default().to_string();
            if token.is_empty() || rest.is_some() {
                return Ok(());
            }
            page_size = PAGE_SIZE;
        }
    }

    /// The kinds that these names count. From now on their objects are watched.
    async fn kinds(&self, names: &[&String]) -> Result<Vec<Served>> {
        let mut kinds = self.kinds.lock().await;
        let counts = |served: &Served, name: &str| quota::counts(&served.resource.group, &served.resource.plural, name);
        let is_known = |name: &&&String| kinds.discovered.served.iter().any(|served| counts(served, name));
        let age = kinds.asked.map_or(Duration::MAX, |asked| asked.elapsed());
        let unknown = names.iter().filter(|name| !is_known(name)).count();
        if age > self.ctx.config.discovery_period || (unknown > 0 && age > DISCOVERY_MIN) {
            let discovered = discovery::discover(&self.ctx.client).await?;
            let is_gone = |resource: &ApiResource, _: &mut _| {
                discovered.failed.is_empty() && !discovered.served.iter().any(|served| served.resource == *resource)
            };
            kinds.watched.extract_if(is_gone).for_each(|(_, stop)| stop.cancel());
            (kinds.discovered, kinds.asked) = (discovered, Some(Instant::now()));
        }
        let wanted = |served: &&Served| {
            served.namespaced
                && served.can("list")
                && served.can("watch")
                && names.iter().any(|name| counts(served, name))
        };
        let found: Vec<Served> = kinds.discovered.preferred().filter(wanted).cloned().collect();
        for served in &found {
            let resource = &served.resource;
            // Pods have an informer, which knows more of them.
            let is_pods = resource.group.is_empty() && resource.plural == "pods";
            if is_pods || kinds.watched.contains_key(resource) {
                continue;
            }
            let stop = self.ctx.shutdown.child_token();
            let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(self.ctx.client.clone(), resource);
            let sink = Watched { of: resource.clone(), wake: self.wake.clone() };
            self.tasks.spawn(watch::follow(api, watch::config(None, None), sink, stop.clone()));
            kinds.watched.insert(resource.clone(), stop);
        }
        Ok(found)
    }
}

/// Wakes the quotas that count a kind when its objects go, and where they can shrink, when they change.
struct Watched {
    of: ApiResource,
    wake: Wake,
}

impl Sink<PartialObjectMeta<DynamicObject>> for Watched {
    fn replace(&mut self, _: Vec<PartialObjectMeta<DynamicObject>>) {
        self.wake.wake(None, &self.of.group, &self.of.plural);
    }

    fn apply(&mut self, object: PartialObjectMeta<DynamicObject>) {
        if MEASURED.contains(&(&self.of.group, &self.of.plural)) {
            self.delete(object);
        }
    }

    fn delete(&mut self, object: PartialObjectMeta<DynamicObject>) {
        self.wake.wake(object.metadata.namespace.as_deref(), &self.of.group, &self.of.plural);
    }
}

/// Writes the count onto the quota as it is now. Answers whether nobody else wrote since the quota was seen.
async fn write(quotas: &Api<ResourceQuota>, seen: &ResourceQuota, counted: &Amounts) -> Result<bool> {
    let name = seen.name_any();
    let mut live = seen.clone();
    for _ in 0..WRITES_MAX {
        let Some(status) = plan(seen, &live, counted) else { break };
        let exact = live.metadata.resource_version == seen.metadata.resource_version;
        if live.status.clone().unwrap_or_default() == status {
            return Ok(exact);
        }
        live.status = Some(status);
        match quotas.replace_status(&name, &PostParams::default(), &live).await {
            Ok(_) => return Ok(exact),
            Err(error) if client::is_not_found(&error) => return Ok(true),
            Err(error) if client::is_conflict(&error) => {
                let newer = quotas.get_opt(&name).await.during(|| format!("cannot read resource quota {name}"))?;
                let Some(newer) = newer else { return Ok(true) };
                live = newer;
            }
            Err(error) => return Err(error).during(|| format!("cannot write the status of resource quota {name}")),
        }
    }
    Err(Error::Other(format!("resource quota {name} changed while it was counted")))
}

fn is_settled(quota: &ResourceQuota) -> bool {
    quota.spec.as_ref().and_then(|spec| spec.hard.as_ref()) == quota.status.as_ref().and_then(|s| s.hard.as_ref())
}

/// The status of `live` when `counted` was found at or after the version `seen`: what was charged in between is on top of
/// it, and perhaps in it too, which is the safe side. `None`: what was charged in between cannot be told.
fn plan(seen: &ResourceQuota, live: &ResourceQuota, counted: &Amounts) -> Option<ResourceQuotaStatus> {
    let same = seen.metadata.resource_version == live.metadata.resource_version;
    let comparable = seen.spec == live.spec && is_settled(seen) && is_settled(live);
    if !same && !comparable {
        return None;
    }
    let used_of = |quota: &ResourceQuota, name: &String| {
        let text = &quota.status.as_ref()?.used.as_ref()?.get(name)?.0;
        Quantity::parse(text).ok()
    };
    let used = hard(live).into_iter().filter_map(|name| {
        let now = used_of(live, name);
        let amount = match counted.get(name) {
            Some(counted) => {
                let charged = now.unwrap_or_default().sub(used_of(seen, name).unwrap_or_default());
                counted.add(charged).max(Quantity::default())
            }
            // Of a kind that is not served now.
            None => now?,
        };
        Some((name.clone(), Text(amount.to_string())))
    });
    let used = Some(used.collect()).filter(|used: &std::collections::BTreeMap<_, _>| !used.is_empty());
    Some(ResourceQuotaStatus { hard: live.spec.as_ref().and_then(|spec| spec.hard.clone()), used })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_charged_meanwhile_stays() {
        let quota = |version: &str, hard: &str, status: serde_json::Value| -> ResourceQuota {
            let value = json!({"metadata": {"name": "q", "resourceVersion": version},
                "spec": {"hard": {"pods": hard, "count/x.io": "1"}}, "status": status});
            serde_json::from_value(value).unwrap()
        };
        let status = |used: &str| json!({"hard": {"pods": "9", "count/x.io": "1"}, "used": {"pods": used}});
        let counted = Amounts::from([("pods".to_string(), Quantity::parse("4").unwrap())]);
        for (seen, live, want) in [
            (quota("1", "9", json!({})), quota("1", "9", json!({})), Some("4")),
            (quota("1", "9", status("7")), quota("1", "9", status("7")), Some("4")),
            (quota("1", "9", status("7")), quota("2", "9", status("8")), Some("5")),
            (quota("1", "9", status("7")), quota("2", "9", status("1")), Some("0")),
            (quota("1", "9", status("7")), quota("2", "8", status("8")), None),
            (quota("1", "9", json!({})), quota("2", "9", json!({})), None),
        ] {
            let got = plan(&seen, &live, &counted);
            let got = got.map(|status| {
                assert_eq!(status.hard, live.spec.clone().and_then(|spec| spec.hard));
                status.used.unwrap_or_default().into_iter().map(|(k, v)| format!("{k}={}", v.0)).collect::<Vec<_>>()
            });
            assert_eq!(got, want.map(|pods| vec![format!("pods={pods}")]));
        }
    }
}
