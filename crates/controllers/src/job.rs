//! Runs the pods of Jobs to completion.
//! Reads: Job, Pod. Writes: Pod, Job/status, Event.
//! Invariant: the status is written before any pod it speaks of is let go, and nothing is planned from caches that lack what
//! was written. Pods that lost their job are let go too.

mod failure;
mod plan;

use std::sync::Arc;
use std::time::Duration;

use client::{Action, Informer, Key, Recorder};
use futures::future::{BoxFuture, join_all};
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::context::{Ctx, During, Result, Work};
use crate::pod_batch::PodBatch;
use crate::selector::{self, Labels};
use crate::written::Written;
use crate::{clock, owner, pod};
pub use plan::finished;
use plan::{FINALIZER, Plan, is_tracked};

/// The value of `managedBy` that means this controller.
const OURSELVES: &str = "kubernetes.io/job-controller";

struct Controller {
    ctx: Ctx,
    jobs: Informer<Job>,
    pods: Informer<Pod>,
    recorder: Recorder,
    written: Written,
    /// Writes of statuses.
    own_written: Written,
}

pub fn start(ctx: Ctx) -> BoxFuture<'static, ()> {
    let jobs = ctx.informers.of::<Job>();
    let pods = ctx.informers.of::<Pod>();
    let mut work = Work::new(&ctx);
    work.watch_own(&jobs);
    work.watch_dependents(&jobs, &pods, wants);
    work.watch(&pods, |event| {
        let pod = event.object();
        let is_orphan = is_tracked(pod) && owner::controller_of(&pod.metadata).is_none();
        // the key without a name stands for the namespace's orphans
        is_orphan.then(|| Key::new(pod.namespace().unwrap_or_default(), "")).into_iter().collect()
    });
    let recorder = ctx.recorder("job-controller");
    let count = ctx.config.concurrency;
    let (written, own_written) = (Written::default(), Written::default());
    let this = Controller { ctx, jobs, pods, recorder, written, own_written };
    work.start(count, this, |this, key| Box::pin(this.reconcile(key)))
}

/// Whether the job's selector fits a pod of these labels.
fn wants(job: &Job, labels: Option<&Labels>) -> bool {
    let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|wanted| selector::matches(wanted, labels))
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> Result<Action> {
        let job = self.jobs.get_key(key);
        self.release_strays(key, job.as_deref()).await?;
        let Some(job) = job else {
            self.written.forget(key);
            self.own_written.forget(key);
            return Ok(Action::Done);
        };
        let Some(spec) = &job.spec else { return Ok(Action::Done) };
        if spec.managed_by.as_deref().is_some_and(|name| name != OURSELVES) {
            return Ok(Action::Done);
        }
        let uid = job.uid().unwrap_or_default();
        let revision = self.pods.revision();
        let all = self.pods.list_in(&key.namespace);
        let alive = all.iter().filter(|pod| !pod::is_deleting(pod)).filter_map(|pod| pod.metadata.uid.as_deref());
        if !self.written.shown(key, revision, alive)
            || !self.own_written.shown(key, self.jobs.revision(), std::iter::empty())
        {
            return Ok(Action::RequeueAfter(Duration::from_secs(2)));
        }
        let jobs: Api<Job> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let pods: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let selector = spec.selector.clone().unwrap_or_default();
        let claimed = match plan::finished(&job) {
            // what is over adopts nothing
            Some(_) => all.into_iter().filter(|pod| owner::is_controlled_by(&pod.metadata, &uid)).collect(),
            None => owner::claim(job.as_ref(), &jobs, &selector, &pods, all, Some(FINALIZER)).await?,
        };
        let now = clock::now();
        let plan = plan::plan(&job, &claimed, now);
        let delay = plan.look_again.map(|at| clock::until(now, at) + Duration::from_millis(1));
        self.act(key, &jobs, &job, plan).await?;
        Ok(delay.map_or(Action::Done, Action::RequeueAfter))
    }

    async fn act(&self, key: &Key, jobs: &Api<Job>, job: &Job, plan: Plan) -> Result<()> {
        self.write_status(key, jobs, job, plan.status).await?;
        let reference = client::reference(job);
        for (kind, reason, message) in plan.events {
            self.recorder.event(&reference, kind, &reason, message);
        }
        let let_go = plan.release.iter().chain(plan.drop.iter().filter(|pod| is_tracked(pod)));
        let outcomes = join_all(let_go.map(|pod| self.release(key, pod, None))).await;
        outcomes.into_iter().collect::<Result<()>>()?;
        let batch = PodBatch {
            client: &self.ctx.client,
            recorder: &self.recorder,
            written: &self.written,
            key,
            owner: &reference,
        };
        batch.delete(&plan.drop).await?;
        batch.delete(&plan.delete).await?;
        batch.create(plan.create).await
    }

    async fn write_status(&self, key: &Key, jobs: &Api<Job>, job: &Job, status: JobStatus) -> Result<()> {
        if job.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let mut changed = job.clone();
        changed.status = Some(status);
        let outcome = jobs.replace_status(&key.name, &PostParams::default(), &changed).await;
        let written = outcome.during(|| format!("cannot write the status of Job {key}"))?;
        self.own_written.wrote(key, client::revision_of(&written));
        Ok(())
    }

    /// Takes the finalizer off a pod; with a version, only if the pod still has it.
    async fn release(&self, key: &Key, pod: &Pod, version: Option<String>) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let name = pod.name_any();
        let mut patch =
            json!({"metadata": {"uid": pod.metadata.uid, "$deleteFromPrimitiveList/finalizers": [FINALIZER]}});
        if let Some(version) = version {
            patch["metadata"]["resourceVersion"] = version.into();
        }
        let outcome = pods.patch(&name, &PatchParams::default(), &Patch::Strategic(patch)).await;
        let what = || format!("cannot take the finalizer off pod {}/{name}", key.namespace);
        if let Some(written) = outcome.unless_gone(what)? {
            self.written.wrote(key, client::revision_of(&written));
        }
        Ok(())
    }

    /// Lets go of pods whose job is gone, and of those that nobody owns or wants.
    async fn release_strays(&self, key: &Key, job: Option<&Job>) -> Result<()> {
        let jobs = self.jobs.list_in(&key.namespace);
        let is_stray = |pod: &&Arc<Pod>| match owner::controller_of(&pod.metadata) {
            Some(owner) => {
                let by_name = owner.kind == "Job" && owner::group_of(owner) == "batch" && owner.name == key.name;
                by_name && job.is_none_or(|job| job.uid().as_ref() != Some(&owner.uid))
            }
            None => !jobs
                .iter()
                .any(|job| job.metadata.deletion_timestamp.is_none() && wants(job, pod.metadata.labels.as_ref())),
        };
        let pods = self.pods.list_in(&key.namespace);
        for pod in pods.iter().filter(|pod| is_tracked(pod)).filter(is_stray) {
            self.release(key, pod, pod.resource_version()).await?;
        }
        Ok(())
    }
}
