//! Deletes Jobs some time after they finished.
//! Reads: Job, once live before a deletion. Writes: Job. Invariant: a job is deleted only in the version in which its time is
//! over.

use std::time::Duration;

use client::{Action, Informer, Key};
use futures::future::BoxFuture;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, ResourceExt};

use crate::context::{Ctx, During, Result, Work};
use crate::{clock, job};

struct Controller {
    ctx: Ctx,
    jobs: Informer<Job>,
}

pub fn start(ctx: Ctx) -> BoxFuture<'static, ()> {
    let jobs = ctx.informers.of::<Job>();
    let mut work = Work::new(&ctx);
    work.watch_own(&jobs);
    let count = ctx.config.concurrency;
    let this = Controller { ctx, jobs };
    work.start(count, this, |this, key| Box::pin(this.reconcile(key)))
}

/// When the job is to go.
fn expires_at(job: &Job) -> Option<Timestamp> {
    let ttl_s = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let finished = job::finished(job).filter(|_| job.metadata.deletion_timestamp.is_none())?;
    Some(clock::after_s(finished.last_transition_time.as_ref()?.0, ttl_s.into()))
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> Result<Action> {
        let wait = |job: &Job| expires_at(job).map(|at| clock::until(clock::now(), at));
        let cached = self.jobs.get_key(key).as_deref().and_then(wait);
        match cached {
            None => return Ok(Action::Done),
            Some(wait) if !wait.is_zero() => return Ok(Action::RequeueAfter(wait + Duration::from_millis(1))),
            Some(_) => {}
        }
        let api: Api<Job> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let live = api.get_opt(&key.name).await.during(|| format!("cannot read Job {key}"))?;
        // a change of the job comes back as an event
        let Some(live) = live.filter(|live| wait(live) == Some(Duration::ZERO)) else { return Ok(Action::Done) };
        let preconditions = Preconditions { uid: live.uid(), resource_version: live.resource_version() };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        let outcome = api.delete(&key.name, &params).await;
        outcome.unless_gone(|| format!("cannot delete finished Job {key}")).map(|_| Action::Done)
    }
}
