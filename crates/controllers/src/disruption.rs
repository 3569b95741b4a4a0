//! Counts how many pods every PodDisruptionBudget lets go, and takes back a pod's mark of a disruption that never came.
//! Reads: PodDisruptionBudget, Pod, their controllers' scale. Writes: PodDisruptionBudget/status, Pod/status, Event.
//! Invariant: a budget whose pods cannot be counted allows nothing, and a status follows only upon the one it was made from.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use client::{Action, Event, Informer, Key, Recorder};
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::context::{Ctx, During, Error, Result, Work, wanting};
use crate::selector::{self, Labels};
use crate::{clock, intstr, owner, pod};

/// A pod that was evicted, or marked to be, is expected to be gone after this long.
const PATIENCE_S: i64 = 120;
const ALLOWED: &str = "DisruptionAllowed";

struct Controller {
    ctx: Ctx,
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    sets: Informer<ReplicaSet>,
    deployments: Informer<Deployment>,
    recorder: Recorder,
}

pub fn start(ctx: Ctx) -> BoxFuture<'static, ()> {
    let budgets = ctx.informers.of::<PodDisruptionBudget>();
    let pods = ctx.informers.of::<Pod>();
    let sets = ctx.informers.of::<ReplicaSet>();
    let deployments = ctx.informers.of::<Deployment>();
    let (mut work, mut marks) = (Work::new(&ctx), Work::new(&ctx));
    work.watch_own(&budgets);
    work.needs(&sets);
    work.needs(&deployments);
    let all = budgets.clone();
    work.watch(&pods, move |event| match event {
        Event::Modified { old, new } if facts(old) == facts(new) => Vec::new(),
        _ => wanting(event, &all, covers),
    });
    marks
        .watch(&pods, |event| stale_at(event.object()).map(|_| Key::of(event.object().as_ref())).into_iter().collect());
    let recorder = ctx.recorder("controllermanager");
    let count = ctx.config.concurrency;
    let this = Arc::new(Controller { ctx, budgets, pods, sets, deployments, recorder });
    let other = this.clone();
    let work = work.run(count, move |key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    });
    let marks = marks.run(1, move |key| {
        let this = other.clone();
        async move { this.unmark(&key).await }
    });
    Box::pin(futures::future::join(work, marks).map(drop))
}

/// All of a pod that a budget counts by.
fn facts(pod: &Pod) -> impl PartialEq + '_ {
    (&pod.metadata.labels, &pod.metadata.owner_references, pod::is_ready(pod), pod::is_deleting(pod))
}

fn covers(budget: &PodDisruptionBudget, labels: Option<&Labels>) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| selector::matches(selector, labels))
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> Result<Action> {
        let Some(budget) = self.budgets.get_key(key) else { return Ok(Action::Done) };
        let mut pods = self.pods.list_in(&key.namespace);
        pods.retain(|pod| covers(&budget, pod.metadata.labels.as_ref()));
        let about = client::reference(budget.as_ref());
        if pods.is_empty() {
            self.recorder.event(&about, "Normal", "NoPods", "No matching pods found");
        }
        let now = clock::now();
        let failure = match self.scale(&budget, &pods).await {
            Ok(scale) => {
                let plan = plan(&budget, &pods, scale, now);
                for pod in plan.overdue {
                    let message = format!("Pod was expected by PDB {key} to be deleted but it wasn't");
                    self.recorder.event(&client::reference(pod.as_ref()), "Warning", "NotDeleted", message);
                }
                self.write(key, &budget, plan.status).await?;
                return Ok(plan.look_again.map_or(Action::Done, Action::RequeueAfter));
            }
            Err(error) => error,
        };
        let message = format!("Failed to calculate the number of expected pods: {failure}");
        self.recorder.event(&about, "Warning", "CalculateExpectedPodCountFailed", message);
        let mut status = budget.status.clone().unwrap_or_default();
        status.disruptions_allowed = Some(0);
        set_condition(&mut status, "False", "SyncFailed", &failure.to_string(), now);
        self.write(key, &budget, status).await?;
        Err(failure)
    }

    /// How many pods the controllers of these pods want altogether, if the budget is a part of that.
    async fn scale(&self, budget: &PodDisruptionBudget, pods: &[Arc<Pod>]) -> Result<i32> {
        let spec = budget.spec.clone().unwrap_or_default();
        if spec.max_unavailable.is_none() && !matches!(spec.min_available, Some(IntOrString::String(_))) {
            return Ok(0);
        }
        let namespace = budget.metadata.namespace.as_deref().unwrap_or_default();
        let mut known: HashMap<String, i32> = HashMap::new();
        let mut unmanaged = false;
        for pod in pods {
            let Some(owner) = owner::controller_of(&pod.metadata) else {
                unmanaged = true;
                continue;
            };
            if known.contains_key(&owner.uid) {
                continue;
            }
            let found = self.scale_of(namespace, owner).await?;
            let (uid, replicas) =
                found.ok_or_else(|| Error::Other(format!("found no controllers for pod {:?}", pod.name_any())))?;
            known.insert(uid, replicas);
        }
        if unmanaged {
            let message = "Pods selected by this PodDisruptionBudget were found to be unmanaged. As a result, the status \
                of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these \
                pods please set \".spec.minAvailable\" field of the PDB to an integer value.";
            self.recorder.event(&client::reference(budget), "Warning", "UnmanagedPods", message);
        }
        Ok(known.into_values().fold(0, i32::saturating_add))
    }

    /// The uid of what scales the owner's pods, and how many of them it wants.
    async fn scale_of(&self, namespace: &str, owner: &OwnerReference) -> Result<Option<(String, i32)>> {
        if owner.kind == "ReplicaSet" && owner::group_of(owner) == "apps" {
            let set = self.sets.get(namespace, &owner.name).filter(|set| set.metadata.uid.as_ref() == Some(&owner.uid));
            let Some(set) = set else { return Ok(None) };
            let Some(parent) = owner::controller_of(&set.metadata).filter(|parent| parent.kind == "Deployment") else {
                return Ok(Some((owner.uid.clone(), set.spec.replicas.unwrap_or(1))));
            };
            let deployment = self.deployments.get(namespace, &parent.name);
            let deployment = deployment.filter(|found| found.metadata.uid.as_ref() == Some(&parent.uid));
            return Ok(deployment.map(|found| (parent.uid.clone(), found.spec.replicas.unwrap_or(1))));
        }
        let gvk = match owner.api_version.split_once('/') {
            Some((group, version)) => GroupVersionKind::gvk(group, version, &owner.kind),
            None => GroupVersionKind::gvk("", &owner.api_version, &owner.kind),
        };
        let what = || format!("cannot look for the scale of {} {namespace}/{}", owner.kind, owner.name);
        let (resource, can) = kube::discovery::pinned_kind(&self.ctx.client, &gvk).await.during(what)?;
        if !can.subresources.iter().any(|(part, _)| part.plural == "scale") {
            let dot = if gvk.group.is_empty() { "" } else { "." };
            let what = format!("{}{dot}{} does not implement the scale subresource", resource.plural, gvk.group);
            return Err(Error::Other(what));
        }
        let api: Api<DynamicObject> = Api::namespaced_with(self.ctx.client.clone(), namespace, &resource);
        match api.get_scale(&owner.name).await {
            Ok(scale) if scale.metadata.uid.as_ref() == Some(&owner.uid) => {
                let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
                Ok(Some((owner.uid.clone(), replicas)))
            }
            Ok(_) => Ok(None),
            Err(error) if client::is_not_found(&error) => Ok(None),
            Err(error) => Err(error).during(what),
        }
    }

    async fn write(&self, key: &Key, budget: &PodDisruptionBudget, status: PodDisruptionBudgetStatus) -> Result<()> {
        if budget.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api: Api<PodDisruptionBudget> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        // by version: an eviction that the cache does not show yet makes it fail, and be counted again
        let changed = PodDisruptionBudget { status: Some(status), ..budget.clone() };
        let outcome = api.replace_status(&key.name, &PostParams::default(), &changed).await;
        outcome.unless_gone(|| format!("cannot write the status of PodDisruptionBudget {key}")).map(drop)
    }

    /// Takes the mark from a pod that nobody deleted after all.
    async fn unmark(&self, key: &Key) -> Result<Action> {
        let Some(pod) = self.pods.get_key(key) else { return Ok(Action::Done) };
        let Some(at) = stale_at(&pod) else { return Ok(Action::Done) };
        let now = clock::now();
        if at > now {
            return Ok(Action::RequeueAfter(clock::until(now, at)));
        }
        let api: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let condition = json!({"type": "DisruptionTarget", "status": "False", "reason": null, "message": null,
            "lastTransitionTime": Time(now), "observedGeneration": pod.metadata.generation});
        let meta = json!({"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version});
        let patch = json!({"metadata": meta, "status": {"conditions": [condition]}});
        let outcome = api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await;
        outcome.unless_gone(|| format!("cannot take the disruption condition from pod {key}")).map(|_| Action::Done)
    }
}

/// When the mark of a pod's disruption is to be taken back; None if it has none, or if it will end that way.
fn stale_at(pod: &Pod) -> Option<Timestamp> {
    let mark = pod::condition(pod, "DisruptionTarget").filter(|mark| mark.status == "True")?;
    if !pod::is_active(pod) || mark.reason.as_deref() == Some("TerminationByKubelet") {
        return None;
    }
    mark.last_transition_time.as_ref().map(|since| clock::after_s(since.0, PATIENCE_S))
}

struct Plan {
    status: PodDisruptionBudgetStatus,
    /// Pods that were evicted and are still there.
    overdue: Vec<Arc<Pod>>,
    /// When the next evicted pod will be overdue.
    look_again: Option<Duration>,
}

/// `scale` is how many pods their controllers want.
fn plan(budget: &PodDisruptionBudget, pods: &[Arc<Pod>], scale: i32, now: Timestamp) -> Plan {
    let old = budget.status.clone().unwrap_or_default();
    let (expected, desired) = wanted(&budget.spec.clone().unwrap_or_default(), pods.len(), scale);
    let mut disrupted: BTreeMap<String, Time> = BTreeMap::new();
    let mut plan = Plan { status: old.clone(), overdue: Vec::new(), look_again: None };
    let mut healthy = 0;
    for pod in pods.iter().filter(|pod| !pod::is_deleting(pod)) {
        if let Some((name, since)) = old.disrupted_pods.iter().flatten().find(|(name, _)| **name == pod.name_any()) {
            let end = clock::after_s(since.0, PATIENCE_S);
            if end > now {
                disrupted.insert(name.clone(), since.clone());
                let left = clock::until(now, end);
                plan.look_again = Some(plan.look_again.map_or(left, |earlier| earlier.min(left)));
                continue;
            }
            plan.overdue.push(pod.clone());
        }
        healthy += i32::from(pod::is_ready(pod));
    }
    // where nothing is expected, nothing is allowed: the first pods may come before this controller sees them
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    let status = &mut plan.status;
    status.current_healthy = Some(healthy);
    status.desired_healthy = Some(desired);
    status.expected_pods = Some(expected);
    status.disruptions_allowed = Some(allowed);
    status.disrupted_pods = (!disrupted.is_empty()).then_some(disrupted);
    status.observed_generation = budget.metadata.generation;
    match allowed {
        0 => set_condition(status, "False", "InsufficientPods", "", now),
        _ => set_condition(status, "True", "SufficientPods", "", now),
    }
    plan
}

/// How many pods there should be, and how many of them healthy.
fn wanted(spec: &PodDisruptionBudgetSpec, pods: usize, scale: i32) -> (i32, i32) {
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(max), _) => (scale, (scale - intstr::resolve(max, scale, true)).max(0)),
        (None, Some(IntOrString::Int(min))) => (i32::try_from(pods).unwrap_or(i32::MAX), *min),
        (None, Some(min)) => (scale, intstr::resolve(min, scale, true)),
        (None, None) => (0, 0),
    }
}

fn set_condition(status: &mut PodDisruptionBudgetStatus, value: &str, reason: &str, message: &str, now: Timestamp) {
    let mut new = Condition {
        type_: ALLOWED.to_string(),
        status: value.to_string(),
        reason: reason.to_string(),
        message: message.to_string(),
        observed_generation: status.observed_generation,
        last_transition_time: Time(now),
    };
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|known| known.type_ == ALLOWED) {
        Some(known) => {
            if known.status == value {
                new.last_transition_time.clone_from(&known.last_transition_time);
            }
            *known = new;
        }
        None => conditions.push(new),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const NOW: &str = "2030-01-01T00:10:00Z";

    fn pod(name: &str, ready: bool, deleting: bool) -> Arc<Pod> {
        let ready = if ready { "True" } else { "False" };
        let mut value = json!({"metadata": {"namespace": "ns", "name": name}, "spec": {"containers": []},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
        if deleting {
            value["metadata"]["deletionTimestamp"] = json!(NOW);
        }
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn counts() {
        let pods = [pod("a", true, false), pod("b", true, false), pod("c", false, false), pod("d", true, true)];
        golden::check!("disruption.txt", |case| {
            let [scale, count, spec, status] = case.splitn(4, ' ').collect::<Vec<_>>()[..] else { panic!("{case}") };
            let [spec, status] = [spec, status].map(|text| serde_json::from_str::<Value>(text).unwrap());
            let pods = &pods[..count.parse().unwrap()];
            let budget = json!({"metadata": {"name": "b", "generation": 2}, "spec": spec, "status": status});
            let budget: PodDisruptionBudget = serde_json::from_value(budget).unwrap();
            let plan = plan(&budget, pods, scale.parse().unwrap(), NOW.parse().unwrap());
            let status = serde_json::to_value(&plan.status).unwrap();
            let n = |field: &str| status[field].as_i64().unwrap();
            let overdue: Vec<String> = plan.overdue.iter().map(|pod| pod.name_any()).collect();
            let condition = &status["conditions"][0];
            format!(
                "expected {} desired {} current {} allowed {} disrupted {} overdue {overdue:?} again {:?}\n{} {} {}\n",
                n("expectedPods"),
                n("desiredHealthy"),
                n("currentHealthy"),
                n("disruptionsAllowed"),
                status.get("disruptedPods").unwrap_or(&Value::Null),
                plan.look_again,
                condition["status"],
                condition["reason"],
                condition["lastTransitionTime"],
            )
        });
    }

    #[test]
    fn marks() {
        let mark = |phase: &str, status: &str, reason: &str| -> Pod {
            let condition =
                json!({"type": "DisruptionTarget", "status": status, "reason": reason, "lastTransitionTime": NOW});
            serde_json::from_value(json!({"status": {"phase": phase, "conditions": [condition]}})).unwrap()
        };
        for (pod, stale) in [
            (mark("Running", "True", "EvictionByEvictionAPI"), true),
            (mark("Running", "False", "EvictionByEvictionAPI"), false),
            (mark("Running", "True", "TerminationByKubelet"), false),
            (mark("Failed", "True", "EvictionByEvictionAPI"), false),
        ] {
            let at = stale.then(|| "2030-01-01T00:12:00Z".parse().unwrap());
            assert_eq!(stale_at(&pod), at, "{pod:?}");
        }
    }
}
