//! Makes Jobs by the clock.
//! Reads: CronJob, Job. Writes: Job, CronJob/status, Event.
//! Invariant: a start has one name, so that no start makes two jobs, whatever is lost between two writes.

use std::sync::Arc;
use std::time::Duration;

use client::{Action, Informer, Key, Recorder};
use futures::future::BoxFuture;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::tz::TimeZone;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, ResourceExt};
use meta::cron::{self, Schedule};

use crate::context::{Ctx, During, Result, Work, owner_keys};
use crate::written::Written;
use crate::{clock, job, owner, pod_batch};

/// When the start was due, on each of the jobs.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

struct Controller {
    ctx: Ctx,
    crons: Informer<CronJob>,
    jobs: Informer<Job>,
    recorder: Recorder,
    written: Written,
    /// Writes of statuses.
    own_written: Written,
}

pub fn start(ctx: Ctx) -> BoxFuture<'static, ()> {
    let crons = ctx.informers.of::<CronJob>();
    let jobs = ctx.informers.of::<Job>();
    let mut work = Work::new(&ctx);
    work.watch_own(&crons);
    work.watch(&jobs, |event| owner_keys(event, "batch", "CronJob"));
    let recorder = ctx.recorder("cronjob-controller");
    let count = ctx.config.concurrency;
    let (written, own_written) = (Written::default(), Written::default());
    let this = Controller { ctx, crons, jobs, recorder, written, own_written };
    work.start(count, this, |this, key| Box::pin(this.reconcile(key)))
}

#[derive(Default)]
struct Plan {
    status: CronJobStatus,
    delete: Vec<Arc<Job>>,
    create: Option<Job>,
    /// Type, reason and message.
    events: Vec<(&'static str, &'static str, String)>,
    /// The next start.
    look_again: Option<Timestamp>,
}

fn plan(cron: &CronJob, jobs: &[Arc<Job>], now: Timestamp) -> Plan {
    let status = cron.status.clone().unwrap_or_default();
    let mut plan = Plan { status, ..Plan::default() };
    plan.see(jobs);
    plan.forget_history(cron, jobs);
    if cron.metadata.deletion_timestamp.is_none() && cron.spec.suspend != Some(true) {
        plan.schedule(cron, jobs, now);
    }
    if plan.status.active.as_ref().is_some_and(Vec::is_empty) {
        plan.status.active = None;
    }
    plan
}

fn name_of(reference: &ObjectReference) -> String {
    reference.name.clone().unwrap_or_default()
}

fn condition(job: &Job) -> Option<&str> {
    job::finished(job).map(|condition| condition.type_.as_str())
}

impl Plan {
    fn warn(&mut self, reason: &'static str, message: String) {
        self.events.push(("Warning", reason, message));
    }

    fn tell(&mut self, reason: &'static str, message: String) {
        self.events.push(("Normal", reason, message));
    }

    /// Brings the list of active jobs up to date.
    fn see(&mut self, jobs: &[Arc<Job>]) {
        for job in jobs {
            let (uid, name) = (job.uid(), job.name_any());
            let active = self.status.active.get_or_insert_default();
            let known = active.iter().position(|reference| reference.uid == uid);
            match (known, condition(job)) {
                (Some(at), Some(condition)) => {
                    active.remove(at);
                    self.tell("SawCompletedJob", format!("Saw completed job: {name}, condition: {condition}"));
                }
                (None, None) if job.annotations().contains_key(SCHEDULED) => {
                    active.push(client::reference(job.as_ref()))
                }
                (None, None) => {
                    self.warn(
                        "UnexpectedJob",
                        format!("Saw a job that the controller did not create or forgot: {name}"),
                    );
                }
                _ => {}
            }
            let done = job.status.as_ref().and_then(|status| status.completion_time.clone());
            if condition(job) == Some("Complete") && done > self.status.last_successful_time {
                self.status.last_successful_time = done;
            }
        }
        let active = self.status.active.take().unwrap_or_default();
        let (active, missing): (Vec<_>, Vec<_>) =
            active.into_iter().partition(|reference| jobs.iter().any(|job| job.uid() == reference.uid));
        self.status.active = Some(active);
        for reference in missing {
            self.tell("MissingJob", format!("Active job went missing: {}", name_of(&reference)));
        }
    }

    /// Of the finished jobs only the youngest are kept.
    fn forget_history(&mut self, cron: &CronJob, jobs: &[Arc<Job>]) {
        let limits =
            [("Complete", cron.spec.successful_jobs_history_limit), ("Failed", cron.spec.failed_jobs_history_limit)];
        for (kind, limit) in limits {
            let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { continue };
            let alive = jobs.iter().filter(|job| job.metadata.deletion_timestamp.is_none());
            let mut over: Vec<&Arc<Job>> = alive.filter(|job| condition(job) == Some(kind)).collect();
            over.sort_by_key(|job| (job.status.as_ref().and_then(|s| s.start_time.clone()), job.name_any()));
            let surplus = over.len().saturating_sub(limit);
            self.delete.extend(over.into_iter().take(surplus).cloned());
        }
    }

    fn schedule(&mut self, cron: &CronJob, jobs: &[Arc<Job>], now: Timestamp) {
        let spec = &cron.spec;
        let zone = match spec.time_zone.as_deref().map(|name| (name, cron::time_zone(name))) {
            Some((name, Err(why))) => {
                return self.warn("UnknownTimeZone", format!("invalid timeZone: {name:?}: {why}"));
            }
            Some((_, Ok(zone))) => zone,
            None => TimeZone::system(),
        };
        let schedule = match Schedule::parse(&spec.schedule) {
            Err(why) => {
                let message = format!("unparseable schedule: {:?} : {why}", spec.schedule);
                return self.warn("UnparseableSchedule", message);
            }
            Ok(schedule) => schedule,
        };
        self.look_again = schedule.next(now, &zone);
        let last = self.status.last_schedule_time.as_ref().or(cron.metadata.creation_timestamp.as_ref());
        let mut since = last.map_or(now, |time| time.0);
        if let Some(deadline_s) = spec.starting_deadline_seconds {
            since = since.max(clock::after_s(now, -deadline_s));
        }
        let Some((at, missed)) = schedule.latest(since, now, &zone) else { return };
        if missed > cron::MISSED_MAX {
            let message =
                "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.warn("TooManyMissedTimes", message.to_string());
        }
        let made = new_job(cron, at, &zone);
        let active: Vec<String> = self.status.active.iter().flatten().map(name_of).collect();
        let exists = jobs.iter().any(|job| job.metadata.name == made.metadata.name);
        if !exists && !active.is_empty() {
            match spec.concurrency_policy.as_deref() {
                Some("Forbid") => {
                    let why = "prior execution is running and concurrency policy is Forbid";
                    return self.tell("JobAlreadyActive", format!("Not starting job because {why}"));
                }
                Some("Replace") => {
                    let running = jobs.iter().filter(|job| active.contains(&job.name_any()));
                    self.delete.extend(running.cloned());
                    self.status.active = None;
                }
                _ => {}
            }
        }
        self.status.last_schedule_time = Some(Time(at));
        self.create = Some(made).filter(|_| !exists);
    }
}

/// The job of one start: the start is in its name, in minutes.
fn new_job(cron: &CronJob, at: Timestamp, zone: &TimeZone) -> Job {
    let template = cron.spec.job_template.metadata.clone().unwrap_or_default();
    let mut annotations = template.annotations.unwrap_or_default();
    let due = at.display_with_offset(zone.to_offset(at)).to_string();
    annotations.insert(SCHEDULED.to_string(), due.strip_suffix("+00:00").map_or(due.clone(), |utc| format!("{utc}Z")));
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", cron.name_any(), at.as_second() / 60)),
            namespace: cron.namespace(),
            labels: template.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![owner::reference(cron)]),
            ..ObjectMeta::default()
        },
        spec: cron.spec.job_template.spec.clone(),
        status: None,
    }
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> Result<Action> {
        let Some(cron) = self.crons.get_key(key) else {
            self.written.forget(key);
            self.own_written.forget(key);
            return Ok(Action::Done);
        };
        let uid = cron.uid().unwrap_or_default();
        let revision = self.jobs.revision();
        let jobs = self.jobs.by_owner(&uid);
        let alive = jobs.iter().filter(|job| job.metadata.deletion_timestamp.is_none());
        if !self.written.shown(key, revision, alive.filter_map(|job| job.metadata.uid.as_deref()))
            || !self.own_written.shown(key, self.crons.revision(), std::iter::empty())
        {
            return Ok(Action::RequeueAfter(Duration::from_secs(2)));
        }
        let now = clock::now();
        let plan = plan(&cron, &jobs, now);
        let delay = plan.look_again.map(|at| clock::until(now, at) + Duration::from_millis(1));
        self.act(key, &cron, plan).await?;
        Ok(delay.map_or(Action::Done, Action::RequeueAfter))
    }

    /// The job comes before the status: what is lost between the two is found again by its name.
    async fn act(&self, key: &Key, cron: &CronJob, mut plan: Plan) -> Result<()> {
        let api: Api<Job> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let reference = client::reference(cron);
        for (kind, reason, message) in plan.events {
            self.recorder.event(&reference, kind, reason, message);
        }
        for job in plan.delete {
            self.delete(key, &api, &reference, &job).await?;
        }
        if let Some(job) = plan.create {
            match api.create(&PostParams::default(), &job).await {
                Ok(created) => {
                    self.written.wrote(key, client::revision_of(&created));
                    let message = format!("Created job {}", created.name_any());
                    self.recorder.event(&reference, "Normal", "SuccessfulCreate", message);
                    plan.status.active.get_or_insert_default().push(client::reference(&created));
                }
                Err(error) if pod_batch::is_namespace_terminating(&error) => return Ok(()),
                Err(error) => {
                    let message = format!("Error creating job: {}", client::message(&error));
                    self.recorder.event(&reference, "Warning", "FailedCreate", message);
                    return Err(error).during(|| format!("cannot create a job for CronJob {key}"));
                }
            }
        }
        if cron.status.as_ref() == Some(&plan.status) {
            return Ok(());
        }
        let crons: Api<CronJob> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let mut changed = cron.clone();
        changed.status = Some(plan.status);
        let outcome = crons.replace_status(&key.name, &PostParams::default(), &changed).await;
        let written = outcome.during(|| format!("cannot write the status of CronJob {key}"))?;
        self.own_written.wrote(key, client::revision_of(&written));
        Ok(())
    }

    async fn delete(&self, key: &Key, api: &Api<Job>, about: &ObjectReference, job: &Job) -> Result<()> {
        let preconditions = Preconditions { uid: job.uid(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        let name = job.name_any();
        match api.delete(&name, &params).await {
            Ok(_) => {
                self.written.deleted(key, &job.uid().unwrap_or_default());
                self.recorder.event(about, "Normal", "SuccessfulDelete", format!("Deleted job {name}"));
                Ok(())
            }
            Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => Ok(()),
            Err(error) => {
                let message = format!("Deleted job: {}", client::message(&error));
                self.recorder.event(about, "Warning", "FailedDelete", message);
                Err(error).during(|| format!("cannot delete Job {}/{name}", key.namespace))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// `MINUTE STATE` of a job made at that minute of 2030, with `manual` for one that somebody else made.
    fn job(text: &str) -> Arc<Job> {
        let mut words = text.split(' ');
        let (minute, state) = (words.next().unwrap(), words.next().unwrap());
        let at = format!("2030-01-01T00:{minute}:00Z");
        let name = format!("c-{}", at.parse::<Timestamp>().unwrap().as_second() / 60);
        let annotations = if words.next() == Some("manual") { json!({}) } else { json!({SCHEDULED: at}) };
        let conditions = if state == "Running" { json!([]) } else { json!([{"type": state, "status": "True"}]) };
        let completed = if state == "Complete" { json!(at) } else { Value::Null };
        let job = json!({"metadata": {"name": name, "uid": name, "annotations": annotations}, "spec": {"template": {}},
            "status": {"startTime": at, "completionTime": completed, "conditions": conditions}});
        Arc::new(serde_json::from_value(job).unwrap())
    }

    #[test]
    fn plans() {
        golden::check!("cronjob.txt", |case| {
            let [spec, active, now, jobs] = case.splitn(4, " | ").collect::<Vec<_>>()[..] else { panic!("{case}") };
            let jobs_of =
                |text: &str| -> Vec<Arc<Job>> { text.split(", ").filter(|text| !text.is_empty()).map(job).collect() };
            let mut cron = json!({"metadata": {"name": "c", "uid": "c", "creationTimestamp": "2030-01-01T00:00:30Z"},
                "spec": {"schedule": "*/5 * * * *", "timeZone": "Etc/UTC", "jobTemplate": {"spec": {"template": {}}}}});
            let active: Vec<_> = jobs_of(active).iter().map(|job| client::reference(job.as_ref())).collect();
            cron["status"] = json!({"active": active});
            let spec: serde_json::Map<String, Value> = serde_json::from_str(spec).unwrap();
            cron["spec"].as_object_mut().unwrap().extend(spec);
            let cron: CronJob = serde_json::from_value(cron).unwrap();
            let plan = plan(&cron, &jobs_of(jobs), format!("2030-01-01T{now}Z").parse().unwrap());
            let mut out = now.to_string();
            for job in &plan.delete {
                out += &format!("; delete {}", job.name_any());
            }
            if let Some(job) = &plan.create {
                out += &format!("; create {} {}", job.name_any(), job.annotations()[SCHEDULED]);
            }
            for (_, reason, message) in &plan.events {
                out += &format!("; {reason}: {message}");
            }
            for reference in plan.status.active.iter().flatten() {
                out += &format!("; active {}", name_of(reference));
            }
            let [last, success] =
                [plan.status.last_schedule_time, plan.status.last_successful_time].map(|t| t.map(|t| t.0));
            for (what, time) in [("last", last), ("success", success), ("again", plan.look_again)] {
                out += &time.map(|time| format!("; {what} {}", time.strftime("%T"))).unwrap_or_default();
            }
            out
        });
    }
}
