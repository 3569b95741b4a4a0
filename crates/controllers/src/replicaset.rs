//! Keeps a ReplicaSet or a ReplicationController at its replica count. One code for both: the older kind is seen as the newer.
//! Reads: the sets, Pod. Writes: Pod, the sets' status, Event.
//! Invariant: never deletes a Pod it does not own, and never creates while its cache lacks what it wrote.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use client::{Action, Informer, Key, Recorder};
use futures::future::BoxFuture;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::{Ctx, During, Result, Work};
use crate::pod_batch::{self, PodBatch};
use crate::selector::{self, Labels};
use crate::written::Written;
use crate::{clock, owner, pod, pod_rank};

/// A kind that keeps so many pods of one template.
trait Replicas: client::Object + Serialize + Resource<Scope = NamespaceResourceScope> {
    /// The source of its events.
    const COMPONENT: &str;
    fn view(&self) -> Cow<'_, ReplicaSet>;
    fn wants(&self, labels: Option<&Labels>) -> bool;
    fn set_status(&mut self, status: ReplicaSetStatus);
}

impl Replicas for ReplicaSet {
    const COMPONENT: &str = "replicaset-controller";

    fn view(&self) -> Cow<'_, ReplicaSet> {
        Cow::Borrowed(self)
    }

    fn wants(&self, labels: Option<&Labels>) -> bool {
        selector::matches(&self.spec.selector, labels)
    }

    fn set_status(&mut self, status: ReplicaSetStatus) {
        self.status = Some(status);
    }
}

impl Replicas for ReplicationController {
    const COMPONENT: &str = "replication-controller";

    fn view(&self) -> Cow<'_, ReplicaSet> {
        let spec = self.spec.clone().unwrap_or_default();
        Cow::Owned(ReplicaSet {
            metadata: self.metadata.clone(),
            spec: ReplicaSetSpec {
                min_ready_seconds: spec.min_ready_seconds,
                replicas: spec.replicas,
                selector: LabelSelector { match_labels: spec.selector, match_expressions: None },
                template: spec.template,
            },
            status: self.status.as_ref().and_then(same_fields),
        })
    }

    fn wants(&self, labels: Option<&Labels>) -> bool {
        let chosen = self.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        chosen.is_some_and(|chosen| selector::matches_map(chosen, labels))
    }

    fn set_status(&mut self, status: ReplicaSetStatus) {
        self.status = same_fields(&status);
    }
}

/// The other kind's status with the fields that both have.
fn same_fields<T: DeserializeOwned>(status: &impl Serialize) -> Option<T> {
    serde_json::from_value(serde_json::to_value(status).ok()?).ok()
}

struct Controller<K> {
    ctx: Ctx,
    sets: Informer<K>,
    pods: Informer<Pod>,
    recorder: Recorder,
    written: Written,
    /// Writes of statuses.
    own_written: Written,
}

pub fn start(ctx: Ctx) -> BoxFuture<'static, ()> {
    run::<ReplicaSet>(ctx)
}

pub fn start_replication_controllers(ctx: Ctx) -> BoxFuture<'static, ()> {
    run::<ReplicationController>(ctx)
}

fn run<K: Replicas>(ctx: Ctx) -> BoxFuture<'static, ()> {
    let sets = ctx.informers.of::<K>();
    let pods = ctx.informers.of::<Pod>();
    let mut work = Work::new(&ctx);
    work.watch_own(&sets);
    work.watch_dependents(&sets, &pods, K::wants);
    let recorder = ctx.recorder(K::COMPONENT);
    let count = ctx.config.concurrency;
    let (written, own_written) = (Written::default(), Written::default());
    let this = Controller { ctx, sets, pods, recorder, written, own_written };
    work.start(count, this, |this, key| Box::pin(this.reconcile(key)))
}

impl<K: Replicas> Controller<K> {
    async fn reconcile(&self, key: &Key) -> Result<Action> {
        let Some(object) = self.sets.get_key(key) else {
            self.written.forget(key);
            self.own_written.forget(key);
            return Ok(Action::Done);
        };
        let set = object.view();
        let revision = self.pods.revision();
        let all = self.pods.list_in(&key.namespace);
        let alive = all.iter().filter(|pod| !pod::is_deleting(pod)).filter_map(|pod| pod.metadata.uid.as_deref());
        let fresh = self.written.shown(key, revision, alive);
        let sets: Api<K> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let pods: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let claimed = owner::claim(object.as_ref(), &sets, &set.spec.selector, &pods, all, None).await?;
        let now = clock::now();
        let plan = plan(&set, &claimed, &self.neighbours(&set, &claimed), now);
        let failure = match fresh && set.metadata.deletion_timestamp.is_none() {
            true => self.act(key, &object, &set, &plan).await.err(),
            false => None,
        };
        let status = status(&set, &claimed, plan.difference, failure.as_ref().map(pod_batch::api_message), now);
        self.write_status(key, &sets, &object, status).await?;
        if let Some(error) = failure {
            return Err(error);
        }
        Ok(match (fresh, plan.look_again) {
            (false, _) => Action::RequeueAfter(Duration::from_secs(2)),
            (true, Some(delay)) => Action::RequeueAfter(delay),
            (true, None) => Action::Done,
        })
    }

    /// The pods of all sets of the same deployment, for ranking.
    fn neighbours(&self, set: &ReplicaSet, own: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
        let Some(parent) = owner::controller_of(&set.metadata) else { return own.to_vec() };
        self.sets
            .by_owner(&parent.uid)
            .iter()
            .filter_map(|sibling| sibling.meta().uid.as_deref())
            .flat_map(|uid| self.pods.by_owner(uid))
            .collect()
    }

    async fn act(&self, key: &Key, object: &K, set: &ReplicaSet, plan: &Plan) -> Result<()> {
        let reference = client::reference(object);
        let batch = PodBatch {
            client: &self.ctx.client,
            recorder: &self.recorder,
            written: &self.written,
            key,
            owner: &reference,
        };
        let template = set.spec.template.clone().unwrap_or_default();
        let new = || pod::from_template(&template, &key.namespace, &key.name, owner::reference(object));
        batch.create((0..plan.create).map(|_| new()).collect()).await?;
        batch.delete(&plan.delete).await
    }

    async fn write_status(&self, key: &Key, sets: &Api<K>, set: &K, status: ReplicaSetStatus) -> Result<()> {
        let mut changed = set.clone();
        changed.set_status(status);
        // while the cache lacks our last status, another could only conflict; its event brings us back
        let shown = self.own_written.shown(key, self.sets.revision(), std::iter::empty());
        if !shown || changed.view().status == set.view().status {
            return Ok(());
        }
        let outcome = sets.replace_status(&key.name, &PostParams::default(), &changed).await;
        if let Some(written) = outcome.unless_gone(|| format!("cannot write the status of {} {key}", K::kind(&())))? {
            self.own_written.wrote(key, client::revision_of(&written));
        }
        Ok(())
    }
}

struct Plan {
    create: usize,
    delete: Vec<Arc<Pod>>,
    /// Active pods less wanted ones.
    difference: i64,
    /// When the next pod becomes available without any event.
    look_again: Option<Duration>,
}

fn plan(set: &ReplicaSet, pods: &[Arc<Pod>], neighbours: &[Arc<Pod>], now: Timestamp) -> Plan {
    let active: Vec<Arc<Pod>> = pods.iter().filter(|pod| pod::is_active(pod)).cloned().collect();
    let wanted = set.spec.replicas.unwrap_or(1);
    let difference = active.len() as i64 - i64::from(wanted);
    let excess = usize::try_from(difference).unwrap_or(0).min(pod_batch::BURST);
    let create = usize::try_from(-difference).unwrap_or(0).min(pod_batch::BURST);
    let min_ready_s = min_ready_s(set);
    let look_again = active
        .iter()
        .filter_map(|pod| pod::available_at(pod, min_ready_s))
        .filter(|at| *at > now)
        .min()
        .map(|at| clock::until(now, at) + Duration::from_millis(10));
    Plan { create, delete: pod_rank::first_to_go(&active, neighbours, excess, now), difference, look_again }
}

fn min_ready_s(set: &ReplicaSet) -> i32 {
    set.spec.min_ready_seconds.unwrap_or(0)
}

fn count(pods: &[Arc<Pod>], test: impl Fn(&Pod) -> bool) -> i32 {
    i32::try_from(pods.iter().filter(|pod| test(pod)).count()).unwrap_or(i32::MAX)
}

fn status(
    set: &ReplicaSet,
    pods: &[Arc<Pod>],
    difference: i64,
    failure: Option<String>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let active: Vec<Arc<Pod>> = pods.iter().filter(|pod| pod::is_active(pod)).cloned().collect();
    let template = set.spec.template.as_ref();
    let labels = template.and_then(|template| template.metadata.as_ref()).and_then(|meta| meta.labels.clone());
    let labels = labels.unwrap_or_default();
    let some = |count: i32| (count != 0).then_some(count);
    let old = set.status.clone().unwrap_or_default();
    ReplicaSetStatus {
        replicas: i32::try_from(active.len()).unwrap_or(i32::MAX),
        fully_labeled_replicas: some(count(&active, |pod| {
            selector::matches_map(&labels, pod.metadata.labels.as_ref())
        })),
        ready_replicas: some(count(&active, pod::is_ready)),
        available_replicas: some(count(&active, |pod| pod::is_available(pod, min_ready_s(set), now))),
        terminating_replicas: Some(count(pods, pod::is_terminating)),
        observed_generation: set.metadata.generation,
        conditions: failure_condition(old.conditions, difference, failure, now),
    }
}

fn failure_condition(
    old: Option<Vec<ReplicaSetCondition>>,
    difference: i64,
    failure: Option<String>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = old.unwrap_or_default();
    let known = conditions.iter().any(|condition| condition.type_.as_deref() == Some("ReplicaFailure"));
    match failure {
        None => conditions.retain(|condition| condition.type_.as_deref() != Some("ReplicaFailure")),
        Some(_) if known => {}
        Some(message) => conditions.push(ReplicaSetCondition {
            type_: Some("ReplicaFailure".to_string()),
            status: Some("True".to_string()),
            reason: Some(if difference < 0 { "FailedCreate" } else { "FailedDelete" }.to_string()),
            message: Some(message),
            last_transition_time: Some(Time(now)),
        }),
    }
    (!conditions.is_empty()).then_some(conditions)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::{Value, json};

    use kube::ResourceExt;

    use super::*;

    fn set(replicas: i32, min_ready_s: i32) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": "web", "uid": "u", "generation": 4},
            "spec": {"replicas": replicas, "minReadySeconds": min_ready_s, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web", "tier": "front"}}, "spec": {"containers": []}}}
        }))
        .unwrap()
    }

    fn pod(name: &str, phase: &str, ready_at: Option<&str>, deleting: bool, tier: &str) -> Arc<Pod> {
        let conditions: Vec<Value> =
            ready_at.iter().map(|at| json!({"type": "Ready", "status": "True", "lastTransitionTime": at})).collect();
        let mut value = json!({
            "metadata": {"namespace": "ns", "name": name, "uid": name, "labels": {"app": "web", "tier": tier}},
            "spec": {"nodeName": "n", "containers": []}, "status": {"phase": phase, "conditions": conditions}});
        if deleting {
            value["metadata"]["deletionTimestamp"] = json!("2030-01-01T00:00:00Z");
        }
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn show(set: &ReplicaSet, pods: &[Arc<Pod>], failure: Option<&str>) -> String {
        let now: Timestamp = "2030-01-01T00:01:00Z".parse().unwrap();
        let plan = plan(set, pods, pods, now);
        let status = status(set, pods, plan.difference, failure.map(String::from), now);
        let names: Vec<String> = plan.delete.iter().map(|pod| pod.name_any()).collect();
        format!(
            "create {} delete {names:?} look again {:?}\n{}\n",
            plan.create,
            plan.look_again,
            serde_json::to_string(&status).unwrap()
        )
    }

    #[test]
    fn a_replication_controller_is_seen_as_a_set() {
        let mut old: ReplicationController = serde_json::from_value(json!({"metadata": {"name": "web"},
            "spec": {"replicas": 2, "selector": {"app": "web"}}, "status": {"replicas": 1, "readyReplicas": 1}}))
        .unwrap();
        let set = old.view().into_owned();
        assert_eq!((set.spec.replicas, set.status.as_ref().map(|status| status.replicas)), (Some(2), Some(1)));
        let labels = |app: &str| Some(Labels::from([("app".to_string(), app.to_string())]));
        for (labels, wanted) in [(labels("web"), true), (labels("db"), false), (None, false)] {
            assert_eq!((old.wants(labels.as_ref()), set.wants(labels.as_ref())), (wanted, wanted));
        }
        old.set_status(status(&set, &[], -2, Some("quota".to_string()), Timestamp::UNIX_EPOCH));
        expect![[r#"{"conditions":[{"lastTransitionTime":"1970-01-01T00:00:00Z","message":"quota","reason":"FailedCreate","status":"True","type":"ReplicaFailure"}],"replicas":0}"#]]
            .assert_eq(&serde_json::to_string(&old.status).unwrap());
    }

    #[test]
    fn plans() {
        let early = Some("2030-01-01T00:00:00Z");
        let late = Some("2030-01-01T00:00:55Z");
        let pods = [
            pod("a", "Running", early, false, "front"),
            pod("b", "Running", late, false, "front"),
            pod("c", "Pending", None, false, "other"),
            pod("d", "Running", early, true, "front"),
            pod("e", "Succeeded", None, false, "front"),
        ];
        let out = [
            show(&set(3, 0), &[], Some("exceeded quota")),
            show(&set(5, 10), &pods, None),
            show(&set(1, 0), &pods, None),
            show(&set(0, 0), &pods, Some("no")),
        ];
        expect_test::expect_file!["replicaset/plans.txt"].assert_eq(&out.concat());
    }
}
