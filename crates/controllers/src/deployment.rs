//! Rolls a Deployment's template out over ReplicaSets.
//! Reads: Deployment, ReplicaSet, Pod. Writes: ReplicaSet, Deployment (status and revision), Event.
//! Invariant: touches only sets it owns, and every change of a set holds only for the version it was planned from.

pub mod revision;
pub mod rollout;
pub mod scale;
pub mod status;

use std::collections::HashMap;

use client::{Action, Informer, Key, Recorder};
use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::context::{Ctx, During, Error, Result, Work};
use crate::written::Written;
use crate::{clock, owner, pod, pod_batch, selector};
use rollout::{Plan, Set, Step};

struct Controller {
    ctx: Ctx,
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    recorder: Recorder,
    written: Written,
    /// Writes of the Deployment itself.
    own_written: Written,
}

pub fn start(ctx: Ctx) -> BoxFuture<'static, ()> {
    let deployments = ctx.informers.of::<Deployment>();
    let sets = ctx.informers.of::<ReplicaSet>();
    let pods = ctx.informers.of::<Pod>();
    let mut work = Work::new(&ctx);
    work.watch_own(&deployments);
    work.watch_dependents(&deployments, &sets, |deployment, labels| {
        selector::matches(&deployment.spec.selector, labels)
    });
    // Recreate waits for the last old pod
    let owners = sets.clone();
    work.watch(&pods, move |event| {
        let client::Event::Deleted(pod) = event else { return Vec::new() };
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let parent = owner::controller_of(&pod.metadata).filter(|owner| owner.kind == "ReplicaSet");
        let set = parent.and_then(|parent| owners.get(namespace, &parent.name));
        let grandparent = set.as_ref().and_then(|set| owner::controller_of(&set.metadata));
        grandparent.map(|owner| Key::new(namespace, owner.name.clone())).into_iter().collect()
    });
    let recorder = ctx.recorder("deployment-controller");
    let count = ctx.config.concurrency;
    let this = Controller {
        ctx,
        deployments,
        sets,
        pods,
        recorder,
        written: Written::default(),
        own_written: Written::default(),
    };
    work.start(count, this, |this, key| Box::pin(this.reconcile(key)))
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> Result<Action> {
        let Some(deployment) = self.deployments.get_key(key) else {
            self.written.forget(key);
            self.own_written.forget(key);
            return Ok(Action::Done);
        };
        let spec = &deployment.spec;
        if selector::is_empty(&spec.selector) {
            let message = "This deployment is selecting all pods. A non-empty selector is required.";
            self.recorder.event(&client::reference(deployment.as_ref()), "Warning", "SelectingAll", message);
            return Ok(Action::Done);
        }
        // what we just wrote must be in the cache, or the plan would count without it
        if !self.written.shown(key, self.sets.revision(), std::iter::empty())
            || !self.own_written.shown(key, self.deployments.revision(), std::iter::empty())
        {
            return Ok(Action::RequeueAfter(std::time::Duration::from_secs(2)));
        }
        let all = self.sets.list_in(&key.namespace);
        let sets = owner::claim(deployment.as_ref(), &self.api(key), &spec.selector, &self.api(key), all, None).await?;
        let plan = rollout::plan(&deployment, &sets, |old| self.any_running(old), clock::now());
        let look_again = plan.look_again;
        self.act(key, &deployment, plan).await?;
        Ok(look_again.map_or(Action::Done, Action::RequeueAfter))
    }

    fn api<K>(&self, key: &Key) -> Api<K>
    where
        K: client::Object + kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.ctx.client.clone(), &key.namespace)
    }

    fn any_running(&self, old: &[Set]) -> bool {
        old.iter()
            .filter_map(|set| set.object.metadata.uid.as_deref())
            .flat_map(|uid| self.pods.by_owner(uid))
            .any(|pod| !pod::is_finished(&pod))
    }

    async fn act(&self, key: &Key, deployment: &Deployment, plan: Plan) -> Result<()> {
        let mut status = plan.status;
        let mut versions: HashMap<String, Option<String>> = HashMap::new();
        let mut failure = None;
        let mut tells_failure = false;
        let mut version = deployment.resource_version();
        for step in plan.steps {
            let outcome = match step {
                Step::Create(set) => {
                    let outcome = self.create(key, deployment, &set, &mut status).await;
                    tells_failure = outcome.is_err();
                    outcome
                }
                Step::SetRevision(number) => match self.set_revision(key, &number, version.as_deref()).await {
                    Ok(patched) => {
                        version = patched.resource_version();
                        Ok(())
                    }
                    Err(error) => Err(error),
                },
                Step::Delete(set) => self.delete(key, &set).await,
                Step::Refresh { set, annotations, min_ready_s } => {
                    let patch =
                        json!({"metadata": {"annotations": annotations}, "spec": {"minReadySeconds": min_ready_s}});
                    let patch = match annotations {
                        Some(_) => patch,
                        None => json!({"spec": {"minReadySeconds": min_ready_s}}),
                    };
                    self.patch(key, &set, patch, &mut versions).await
                }
                Step::Scale { set, from, to, annotations } => {
                    let annotations: serde_json::Map<String, Value> =
                        annotations.into_iter().map(|(name, value)| (name.to_string(), Value::String(value))).collect();
                    let patch = json!({"metadata": {"annotations": annotations}, "spec": {"replicas": to}});
                    let outcome = self.patch(key, &set, patch, &mut versions).await;
                    if outcome.is_ok() && from != to {
                        self.scaled_event(deployment, &set.name_any(), from, to);
                    }
                    outcome
                }
            };
            if let Err(error) = outcome {
                failure = Some(error);
                break;
            }
        }
        // a plan that failed half-way was made from what is out of date: the status waits for the next one, unless it says why
        if failure.is_none() || tells_failure {
            self.write_status(key, deployment, status, version).await?;
        }
        failure.map_or(Ok(()), Err)
    }

    fn scaled_event(&self, deployment: &Deployment, set: &str, from: i32, to: i32) {
        let direction = if to > from { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {set} from {from} to {to}");
        self.recorder.event(&client::reference(deployment), "Normal", "ScalingReplicaSet", message);
    }

    /// Changes a set as it was when planned; a later version makes it fail and be planned anew.
    async fn patch(
        &self,
        key: &Key,
        set: &ReplicaSet,
        mut patch: Value,
        versions: &mut HashMap<String, Option<String>>,
    ) -> Result<()> {
        let name = set.name_any();
        let version = versions.get(&name).cloned().unwrap_or_else(|| set.resource_version());
        patch["metadata"]["resourceVersion"] = json!(version);
        let patched = self.api::<ReplicaSet>(key).patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
        let patched = patched.during(|| format!("cannot change ReplicaSet {}/{name}", key.namespace))?;
        self.written.wrote(key, client::revision_of(&patched));
        versions.insert(name, patched.resource_version());
        Ok(())
    }

    async fn create(
        &self,
        key: &Key,
        deployment: &Deployment,
        set: &ReplicaSet,
        status: &mut DeploymentStatus,
    ) -> Result<()> {
        let name = set.name_any();
        let api = self.api::<ReplicaSet>(key);
        match api.create(&PostParams::default(), set).await {
            Ok(created) => {
                self.written.wrote(key, client::revision_of(&created));
                let replicas = set.spec.replicas.unwrap_or(0);
                if replicas > 0 {
                    self.scaled_event(deployment, &name, 0, replicas);
                }
                Ok(())
            }
            Err(error) if client::is_already_exists(&error) => {
                let taken =
                    api.get(&name).await.during(|| format!("cannot read ReplicaSet {}/{name}", key.namespace))?;
                let template = |set: &ReplicaSet| set.spec.template.clone().unwrap_or_default();
                let ours = owner::is_controlled_by(&taken.metadata, deployment.uid().as_deref().unwrap_or_default());
                if ours && revision::same_template(&template(&taken), &template(set)) {
                    self.written.wrote(key, client::revision_of(&taken));
                    return Ok(());
                }
                // another template has the same hash: the next name is made with a higher count
                *status = deployment.status.clone().unwrap_or_default();
                status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
                Err(Error::Other(format!(
                    "the name {name} is taken by another ReplicaSet; the next try uses another name"
                )))
            }
            Err(error) if pod_batch::is_namespace_terminating(&error) => Ok(()),
            Err(error) => {
                let message = format!("Failed to create new replica set \"{name}\": {}", client::message(&error));
                let reference = client::reference(deployment);
                self.recorder.event(&reference, "Warning", "ReplicaSetCreateError", message.clone());
                *status = deployment.status.clone().unwrap_or_default();
                if deployment.spec.progress_deadline_seconds.is_some() {
                    let condition =
                        status::condition(status::PROGRESSING, "False", "ReplicaSetCreateError", message, clock::now());
                    status::set(status, condition);
                }
                Err(error).during(|| format!("cannot create ReplicaSet {}/{name}", key.namespace))
            }
        }
    }

    async fn set_revision(&self, key: &Key, number: &str, version: Option<&str>) -> Result<Deployment> {
        let annotations = json!({revision::REVISION: number});
        let patch = json!({"metadata": {"resourceVersion": version, "annotations": annotations}});
        let patched = self.api::<Deployment>(key).patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        let patched = patched.during(|| format!("cannot set the revision of Deployment {key}"))?;
        self.own_written.wrote(key, client::revision_of(&patched));
        Ok(patched)
    }

    async fn delete(&self, key: &Key, set: &ReplicaSet) -> Result<()> {
        let name = set.name_any();
        let preconditions = Preconditions { uid: set.uid(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        let outcome = self.api::<ReplicaSet>(key).delete(&name, &params).await;
        outcome.unless_changed(|| format!("cannot delete the old ReplicaSet {}/{name}", key.namespace)).map(drop)
    }

    async fn write_status(
        &self,
        key: &Key,
        deployment: &Deployment,
        status: DeploymentStatus,
        version: Option<String>,
    ) -> Result<()> {
        if deployment.status.as_ref() == Some(&status) {
            return Ok(());
        }
        // by version: conditions carry on from the status that was read, and must not follow upon another
        let patch = json!({"metadata": {"resourceVersion": version}, "status": full(&status)});
        let outcome =
            self.api::<Deployment>(key).patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        if let Some(patched) = outcome.unless_gone(|| format!("cannot write the status of Deployment {key}"))? {
            self.own_written.wrote(key, client::revision_of(&patched));
        }
        Ok(())
    }
}

/// The status with null for what it leaves out, so that a merge patch removes it.
fn full(status: &DeploymentStatus) -> Value {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    if let Value::Object(map) = &mut value {
        for field in [
            "replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas",
            "terminatingReplicas", "collisionCount", "conditions",
        ] {
            map.entry(field).or_insert(Value::Null);
        }
    }
    value
}
