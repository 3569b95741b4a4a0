//! Empties a namespace that is being deleted, then lets it go.
//! Reads: Namespace, discovery, everything in the namespace. Writes: deletes it; Namespace/status and /finalize.
//! Invariant: pods go first, and the namespace stays until nothing is left in it.

use std::collections::BTreeMap;
use std::time::Duration;

use client::{Action, Informer, Key};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Resource, ResourceExt};

use crate::clock;
use crate::context::{Ctx, During, Error, Result, Work};
use crate::discovery::{self, Discovered, Served};

const FINALIZER: &str = "kubernetes";
/// How soon to look again when what remains says nothing about how long it takes.
const RETRY: Duration = Duration::from_secs(5);

struct Controller {
    ctx: Ctx,
    namespaces: Informer<Namespace>,
}

pub fn start(ctx: Ctx) -> BoxFuture<'static, ()> {
    let namespaces = ctx.informers.of::<Namespace>();
    let mut work = Work::new(&ctx);
    work.watch(&namespaces, |event| {
        let deleting = event.object().metadata.deletion_timestamp.is_some();
        deleting.then(|| Key::of(event.object().as_ref())).into_iter().collect()
    });
    let count = ctx.config.concurrency * 2;
    let this = Controller { ctx, namespaces };
    work.start(count, this, |this, key| Box::pin(this.reconcile(key)))
}

/// What a pass over the content found.
#[derive(Debug, Default)]
struct Pass {
    /// `resource.group` to how many are left.
    remaining: BTreeMap<String, usize>,
    /// Finalizer to how many objects carry it.
    finalizers: BTreeMap<String, usize>,
    failures: Vec<String>,
    undiscovered: Vec<String>,
    /// Seconds until the slowest pod is gone.
    estimate_s: i64,
}

impl Pass {
    fn is_clean(&self) -> bool {
        self.remaining.is_empty() && self.failures.is_empty() && self.undiscovered.is_empty()
    }
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> Result<Action> {
        let Some(namespace) = self.namespaces.get_key(key) else { return Ok(Action::Done) };
        if namespace.metadata.deletion_timestamp.is_none() || !holds(&namespace) {
            return Ok(Action::Done);
        }
        // the cache may be behind: only the live object says what is left to do
        let namespaces: Api<Namespace> = Api::all(self.ctx.client.clone());
        let live = namespaces.get_opt(&key.name).await.during(|| format!("cannot read namespace {key}"))?;
        let Some(live) = live.filter(|live| live.metadata.uid == namespace.metadata.uid && holds(live)) else {
            return Ok(Action::Done);
        };
        let pass = self.empty(&key.name).await?;
        let clean = pass.is_clean();
        let conditions = conditions(&live, &pass, clock::now());
        let live = self.write_conditions(&namespaces, live, conditions).await?;
        if clean {
            self.finalize(&namespaces, live).await?;
            return Ok(Action::Done);
        }
        if let Some(failure) = pass.failures.first() {
            return Err(Error::Other(format!("namespace {key} is not empty yet: {failure}")));
        }
        // pods tell how long they need; half of it, since most are quicker
        let delay = Duration::from_secs(u64::try_from(pass.estimate_s / 2 + 1).unwrap_or(1)).min(RETRY * 3);
        Ok(Action::RequeueAfter(if pass.estimate_s > 0 { delay } else { RETRY.min(Duration::from_secs(1)) }))
    }

    async fn empty(&self, namespace: &str) -> Result<Pass> {
        let mut pass = Pass::default();
        let discovered = match discovery::discover(&self.ctx.client).await {
            Ok(discovered) => discovered,
            Err(error) => {
                pass.undiscovered.push(error.to_string());
                Discovered::default()
            }
        };
        pass.undiscovered
            .extend(discovered.failed.iter().map(|version| format!("{version}: stale GroupVersion discovery")));
        let deletable = |served: &&Served| served.namespaced && served.can("delete") && served.can("list");
        let is_pods = |served: &&Served| served.resource.group.is_empty() && served.resource.plural == "pods";
        for served in discovered.preferred().filter(deletable).filter(is_pods) {
            self.empty_kind(namespace, served, &mut pass).await;
        }
        if !pass.remaining.is_empty() {
            // nothing a running pod may rely on (its policies, its secrets) goes before it
            return Ok(pass);
        }
        for served in discovered.preferred().filter(deletable).filter(|served| !is_pods(served)) {
            self.empty_kind(namespace, served, &mut pass).await;
        }
        Ok(pass)
    }

    async fn empty_kind(&self, namespace: &str, served: &Served, pass: &mut Pass) {
        let resource = &served.resource;
        let name = format!("{}.{}", resource.plural, resource.group);
        let api: Api<PartialObjectMeta<DynamicObject>> =
            Api::namespaced_with(self.ctx.client.clone(), namespace, resource);
        match self.delete_all(&api, served).await {
            Ok(left) if left.is_empty() => {}
            Ok(left) => {
                pass.remaining.insert(name.clone(), left.len());
                for finalizer in left.iter().flat_map(|object| object.finalizers()) {
                    *pass.finalizers.entry(finalizer.clone()).or_default() += 1;
                }
                if name == "pods." {
                    let grace = left.iter().filter_map(|object| object.meta().deletion_grace_period_seconds).max();
                    pass.estimate_s = pass.estimate_s.max(grace.unwrap_or(30));
                }
            }
            // gone since discovery, as the kinds of a CRD being deleted are
            Err(error) if client::is_not_found(&error) || client::is_code(&error, 405) => {}
            Err(error) => pass.failures.push(format!("{name}: {}", client::message(&error))),
        }
    }

    /// Deletes what is there and returns what is still there.
    async fn delete_all(
        &self,
        api: &Api<PartialObjectMeta<DynamicObject>>,
        served: &Served,
    ) -> std::result::Result<Vec<PartialObjectMeta<DynamicObject>>, kube::Error> {
        let list = api.list(&ListParams::default()).await?.items;
        if list.is_empty() {
            return Ok(list);
        }
        if list.iter().any(|object| object.meta().deletion_timestamp.is_none()) {
            if served.can("deletecollection") {
                let whole: Api<DynamicObject> = Api::namespaced_with(
                    self.ctx.client.clone(),
                    api.namespace().unwrap_or_default(),
                    &served.resource,
                );
                whole.delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
            } else {
                for object in list.iter().filter(|object| object.meta().deletion_timestamp.is_none()) {
                    match api.delete(&object.name_any(), &DeleteParams::background()).await {
                        Err(error) if !client::is_not_found(&error) => return Err(error),
                        _ => {}
                    }
                }
            }
        }
        Ok(api.list(&ListParams::default()).await?.items)
    }

    async fn write_conditions(
        &self,
        namespaces: &Api<Namespace>,
        mut live: Namespace,
        conditions: Vec<NamespaceCondition>,
    ) -> Result<Namespace> {
        let status = live.status.get_or_insert_default();
        if status.conditions.as_deref().unwrap_or_default() == conditions {
            return Ok(live);
        }
        status.conditions = Some(conditions);
        let name = live.name_any();
        let written = namespaces.replace_status(&name, &PostParams::default(), &live).await;
        written.during(|| format!("cannot write the conditions of namespace {name}"))
    }

    async fn finalize(&self, namespaces: &Api<Namespace>, mut live: Namespace) -> Result<()> {
        if let Some(finalizers) = live.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        let name = live.name_any();
        let outcome = namespaces.replace_subresource("finalize", &name, &PostParams::default(), &live).await;
        outcome.unless_gone(|| format!("cannot finalize namespace {name}")).map(drop)
    }
}

/// Whether the namespace still waits for us.
fn holds(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
    finalizers.is_some_and(|finalizers| finalizers.iter().any(|finalizer| finalizer == FINALIZER))
}

fn conditions(namespace: &Namespace, pass: &Pass, now: Timestamp) -> Vec<NamespaceCondition> {
    let listed = |map: &BTreeMap<String, usize>, text: &str| {
        map.iter()
            .map(|(name, count)| format!("{name} {text}", text = text.replace("{}", &count.to_string())))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let counted = |what: &str, how: &str, all: &[String]| format!("{what}, {} {how}: {}", all.len(), all.join(", "));
    let wanted = [
        condition(
            "NamespaceDeletionDiscoveryFailure",
            !pass.undiscovered.is_empty(),
            ("DiscoveryFailed", counted("Discovery failed for some groups", "failing", &pass.undiscovered)),
            ("ResourcesDiscovered", "All resources successfully discovered"),
        ),
        condition(
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            ("GroupVersionParsingFailed", String::new()),
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        condition(
            "NamespaceDeletionContentFailure",
            !pass.failures.is_empty(),
            ("ContentDeletionFailed", counted("Failed to delete all resource types", "remaining", &pass.failures)),
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        condition(
            "NamespaceContentRemaining",
            !pass.remaining.is_empty(),
            (
                "SomeResourcesRemain",
                format!("Some resources are remaining: {}", listed(&pass.remaining, "has {} resource instances")),
            ),
            ("ContentRemoved", "All content successfully removed"),
        ),
        condition(
            "NamespaceFinalizersRemaining",
            !pass.finalizers.is_empty(),
            (
                "SomeFinalizersRemain",
                format!(
                    "Some content in the namespace has finalizers remaining: {}",
                    listed(&pass.finalizers, "in {} resource instances")
                ),
            ),
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    ];
    let mut conditions = namespace.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    for mut new in wanted {
        match conditions.iter_mut().find(|old| old.type_ == new.type_) {
            Some(old) => {
                let same = old.status == new.status;
                new.last_transition_time = if same { old.last_transition_time.clone() } else { Some(Time(now)) };
                *old = new;
            }
            None => {
                new.last_transition_time = Some(Time(now));
                conditions.push(new);
            }
        }
    }
    conditions
}

fn condition(kind: &str, bad: bool, when: (&str, String), otherwise: (&str, &str)) -> NamespaceCondition {
    let (status, reason, message) =
        if bad { ("True", when.0, when.1) } else { ("False", otherwise.0, otherwise.1.to_string()) };
    NamespaceCondition {
        type_: kind.to_string(),
        status: status.to_string(),
        reason: Some(reason.to_string()),
        message: Some(message),
        last_transition_time: None,
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn conditions_say_what_is_left() {
        let now: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let mut namespace = Namespace::default();
        let pass = Pass {
            remaining: [("pods.".to_string(), 2), ("widgets.example.com".to_string(), 1)].into(),
            finalizers: [("example.com/hold".to_string(), 1)].into(),
            failures: vec!["widgets.example.com: no".to_string()],
            ..Pass::default()
        };
        let mut out = String::new();
        for pass in [pass, Pass::default()] {
            let conditions = conditions(&namespace, &pass, now);
            for condition in &conditions {
                let reason = condition.reason.clone().unwrap_or_default();
                let message = condition.message.clone().unwrap_or_default();
                out.push_str(&format!("{}={} {reason}: {message}\n", condition.type_, condition.status));
            }
            namespace.status.get_or_insert_default().conditions = Some(conditions);
        }
        expect_test::expect_file!["namespace/conditions_say_what_is_left.txt"].assert_eq(&out);
    }
}
