//! What a job needs next, from the job, its pods and the time.
//! Reads and writes nothing. Invariant: a pod's end is in the status before its finalizer is taken off, and it goes from the
//! uncounted ones into the count only when the finalizer is off: so it counts once, whenever the controller stops.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::{EnvVar, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use meta::indexes::Indexes;
use serde_json::json;

use super::failure::{self, Action};
use crate::{clock, owner, pod, pod_batch, pod_rank};

pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Ends of pods that one status holds before they are counted.
const UNCOUNTED_MAX: usize = 500;
/// What the server leaves of `generateName` before its random end.
const NAME_MAX_BYTES: usize = 58;

#[derive(Default)]
pub struct Plan {
    /// To be written before anything else is done.
    pub status: JobStatus,
    /// Pods whose finalizer may go.
    pub release: Vec<Arc<Pod>>,
    /// Pods to delete; they count as failed.
    pub delete: Vec<Arc<Pod>>,
    /// Pods to delete that do not count: their finalizer goes first.
    pub drop: Vec<Arc<Pod>>,
    pub create: Vec<Pod>,
    /// Type, reason and message.
    pub events: Vec<(&'static str, String, String)>,
    pub look_again: Option<Timestamp>,
}

pub fn is_tracked(pod: &Pod) -> bool {
    pod.finalizers().iter().any(|name| name == FINALIZER)
}

/// The condition of this type, if it is true.
pub fn condition<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind && condition.status == "True")
}

/// The condition that says that a job is over.
pub fn finished(job: &Job) -> Option<&JobCondition> {
    let status = job.status.as_ref()?;
    condition(status, "Complete").or_else(|| condition(status, "Failed"))
}

struct Verdict {
    complete: bool,
    reason: String,
    message: String,
}

/// The state while it is being planned.
struct Run<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    pods: &'a [Arc<Pod>],
    now: Timestamp,
    indexed: bool,
    per_index: bool,
    completed: Indexes,
    failed_indexes: Indexes,
    /// Uids of pods whose end is in the status and whose finalizer is still on.
    uncounted_succeeded: Vec<String>,
    uncounted_failed: Vec<String>,
    plan: Plan,
}

pub fn plan(job: &Job, pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let status = job.status.clone().unwrap_or_default();
    if finished(job).is_some() || job.metadata.deletion_timestamp.is_some() {
        let release = pods.iter().filter(|pod| is_tracked(pod)).cloned().collect();
        return Plan { status, release, ..Plan::default() };
    }
    let Some(spec) = &job.spec else { return Plan { status, ..Plan::default() } };
    let indexed = spec.completion_mode.as_deref() == Some("Indexed");
    let end = spec.completions.unwrap_or(i32::MAX);
    let indexes = |text: &Option<String>| {
        let set = text.as_deref().map(Indexes::parse).and_then(Result::ok).unwrap_or_default();
        if indexed { set.below(end) } else { set }
    };
    let mut run = Run {
        job,
        spec,
        pods,
        now,
        indexed,
        per_index: indexed && spec.backoff_limit_per_index.is_some(),
        completed: indexes(&status.completed_indexes),
        failed_indexes: indexes(&status.failed_indexes),
        uncounted_succeeded: Vec::new(),
        uncounted_failed: Vec::new(),
        plan: Plan { status, ..Plan::default() },
    };
    run.count();
    if !run.suspended() {
        run.plan.status.start_time.get_or_insert(Time(now));
    }
    match run.verdict() {
        Some(verdict) => run.finish(&verdict),
        None => run.go_on(),
    }
    run.observe();
    run.plan
}

fn some(count: usize) -> Option<i32> {
    i32::try_from(count).ok().filter(|count| *count != 0)
}

impl Run<'_> {
    fn suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    /// The completion index of a pod, if the job has such an index.
    fn index(&self, pod: &Pod) -> Option<i32> {
        let index: i32 = pod.annotations().get(INDEX)?.parse().ok()?;
        (0..self.spec.completions.unwrap_or(0)).contains(&index).then_some(index)
    }

    fn active(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.iter().filter(|pod| pod::is_active(pod))
    }

    fn succeeded(&self) -> i32 {
        let counted = self.plan.status.succeeded.unwrap_or(0);
        if self.indexed { self.completed.len() } else { counted + self.uncounted_succeeded.len() as i32 }
    }

    fn failed(&self) -> i32 {
        self.plan.status.failed.unwrap_or(0) + self.uncounted_failed.len() as i32
    }

    /// Moves ends of pods from the pods to the status, and from there to the counts.
    fn count(&mut self) {
        let tracked: Vec<&Arc<Pod>> = self.pods.iter().filter(|pod| is_tracked(pod)).collect();
        let uids: HashSet<&str> = tracked.iter().filter_map(|pod| pod.metadata.uid.as_deref()).collect();
        let status = &mut self.plan.status;
        let known = status.uncounted_terminated_pods.take().unwrap_or_default();
        let settle = |list: Option<Vec<String>>, count: &mut Option<i32>| {
            let (still, gone): (Vec<_>, Vec<_>) =
                list.unwrap_or_default().into_iter().partition(|uid| uids.contains(uid.as_str()));
            *count = some(count.unwrap_or(0) as usize + gone.len());
            still
        };
        self.uncounted_succeeded = settle(known.succeeded, &mut status.succeeded);
        self.uncounted_failed = settle(known.failed, &mut status.failed);
        if self.indexed {
            tracked.iter().for_each(|pod| self.mark_index(pod));
        }
        let held = self.held();
        for pod in tracked {
            let uid = pod.uid().unwrap_or_default();
            let succeeded = pod::phase(pod) == "Succeeded";
            if held.contains(&uid) || !(succeeded || failure::has_failed(self.spec, pod)) {
                continue;
            }
            let list = if succeeded { &mut self.uncounted_succeeded } else { &mut self.uncounted_failed };
            // an index counts by itself, and once
            let counts = match (succeeded, self.indexed) {
                (true, indexed) => !indexed,
                (false, indexed) => {
                    let ignored = pod::is_finished(pod) && failure::action(self.spec, pod) == Action::Ignore;
                    !ignored && (!indexed || pod.annotations().contains_key(INDEX))
                }
            };
            if counts && !list.contains(&uid) {
                if list.len() >= UNCOUNTED_MAX {
                    continue;
                }
                list.push(uid);
            }
            self.plan.release.push(pod.clone());
        }
    }

    fn mark_index(&mut self, pod: &Pod) {
        let Some(index) = self.index(pod) else { return };
        if pod::phase(pod) == "Succeeded" {
            self.completed.insert(index);
        } else if self.per_index && !self.completed.contains(index) && failure::has_failed(self.spec, pod) {
            let over = failure::tally(self.spec, pod).0 > self.spec.backoff_limit_per_index.unwrap_or(0);
            if over || failure::action(self.spec, pod) == Action::FailIndex {
                self.failed_indexes.insert(index);
            }
        }
    }

    /// The last failed pod of each index that is to be tried again: it remembers the failures until its replacement does.
    fn last_failed(&self) -> HashMap<i32, &Arc<Pod>> {
        let mut last: HashMap<i32, &Arc<Pod>> = HashMap::new();
        for pod in self.pods.iter().filter(|pod| self.per_index && failure::has_failed(self.spec, pod)) {
            let Some(index) = self.index(pod).filter(|index| !self.is_settled(*index)) else { continue };
            let tally = |pod: &Pod| failure::tally(self.spec, pod);
            if last.get(&index).is_none_or(|known| tally(known) < tally(pod)) {
                last.insert(index, pod);
            }
        }
        last
    }

    fn held(&self) -> HashSet<String> {
        let status = &self.plan.status;
        if condition(status, "FailureTarget").or_else(|| condition(status, "SuccessCriteriaMet")).is_some() {
            return HashSet::new();
        }
        let mut last = self.last_failed();
        for index in self.active().filter_map(|pod| self.index(pod)) {
            last.remove(&index);
        }
        last.values().filter_map(|pod| pod.uid()).collect()
    }

    fn is_settled(&self, index: i32) -> bool {
        self.completed.contains(index) || self.failed_indexes.contains(index)
    }

    fn verdict(&mut self) -> Option<Verdict> {
        let status = &self.plan.status;
        for (kind, complete) in [("SuccessCriteriaMet", true), ("FailureTarget", false)] {
            if let Some(known) = condition(status, kind) {
                let (reason, message) = (known.reason.clone(), known.message.clone());
                return Some(Verdict {
                    complete,
                    reason: reason.unwrap_or_default(),
                    message: message.unwrap_or_default(),
                });
            }
        }
        let fail = |reason: &str, message: &str| {
            Some(Verdict { complete: false, reason: reason.into(), message: message.into() })
        };
        for pod in self.pods.iter().filter(|pod| pod::phase(pod) == "Failed") {
            if let Action::FailJob(message) = failure::action(self.spec, pod) {
                return fail("PodFailurePolicy", &message);
            }
        }
        if self.failed() > self.spec.backoff_limit.unwrap_or(6) || failure::too_many_restarts(self.spec, self.pods) {
            return fail("BackoffLimitExceeded", "Job has reached the specified backoff limit");
        }
        let start = status.start_time.as_ref().filter(|_| !self.suspended());
        if let (Some(limit_s), Some(start)) = (self.spec.active_deadline_seconds, start) {
            let end = clock::after_s(start.0, limit_s);
            if end <= self.now {
                return fail("DeadlineExceeded", "Job was active longer than specified deadline");
            }
            self.plan.look_again = Some(end);
        }
        let too_many = self.spec.max_failed_indexes.is_some_and(|max| self.failed_indexes.len() > max);
        if self.per_index && too_many {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return fail("MaxFailedIndexesExceeded", message);
        }
        if let Some(rule) = self.success_rule() {
            let message = format!("Matched rules at index {rule}");
            return Some(Verdict { complete: true, reason: "SuccessPolicy".into(), message });
        }
        let done = match self.spec.completions {
            None => self.succeeded() > 0 && self.active().next().is_none(),
            Some(wanted) => self.succeeded() + self.failed_indexes.len() >= wanted,
        };
        if done && !self.failed_indexes.is_empty() {
            return fail("FailedIndexes", "Job has failed indexes");
        }
        let message = "Reached expected number of succeeded pods".to_string();
        done.then(|| Verdict { complete: true, reason: "CompletionsReached".into(), message })
    }

    fn success_rule(&self) -> Option<usize> {
        let rules = self.spec.success_policy.as_ref().filter(|_| self.indexed)?;
        rules.rules.iter().position(|rule| {
            let among = rule.succeeded_indexes.as_deref().and_then(|text| Indexes::parse(text).ok());
            let (all, done) = match &among {
                Some(among) => (Some(among.len()), among.common(&self.completed)),
                None => (None, self.completed.len()),
            };
            rule.succeeded_count.or(all).is_some_and(|wanted| done >= wanted)
        })
    }

    /// True if the condition is new or has another status.
    fn set_condition(&mut self, kind: &str, status: &str, reason: &str, message: &str) -> bool {
        let conditions = self.plan.status.conditions.get_or_insert_default();
        let known = conditions.iter().position(|condition| condition.type_ == kind);
        if known.is_some_and(|at| conditions[at].status == status) {
            return false;
        }
        let condition = JobCondition {
            type_: kind.to_string(),
            status: status.to_string(),
            reason: Some(reason.to_string()),
            message: Some(message.to_string()),
            last_probe_time: Some(Time(self.now)),
            last_transition_time: Some(Time(self.now)),
        };
        match known {
            Some(at) => conditions[at] = condition,
            None => conditions.push(condition),
        }
        true
    }

    fn event(&mut self, kind: &'static str, reason: &str, message: &str) {
        self.plan.events.push((kind, reason.to_string(), message.to_string()));
    }

    /// Ends what runs; the last word is said when nothing runs and all is counted.
    fn finish(&mut self, verdict: &Verdict) {
        let (before, end) =
            if verdict.complete { ("SuccessCriteriaMet", "Complete") } else { ("FailureTarget", "Failed") };
        self.set_condition(before, "True", &verdict.reason, &verdict.message);
        self.plan.delete = self.active().cloned().collect();
        self.plan.look_again = None;
        let uncounted = self.uncounted_succeeded.len() + self.uncounted_failed.len();
        if uncounted > 0 || self.pods.iter().any(|pod| !pod::is_finished(pod) || is_tracked(pod)) {
            return;
        }
        self.set_condition(end, "True", &verdict.reason, &verdict.message);
        self.plan.status.start_time.get_or_insert(Time(self.now));
        if verdict.complete {
            self.plan.status.completion_time = Some(Time(self.now));
            self.event("Normal", "Completed", "Job completed");
        } else {
            self.event("Warning", &verdict.reason, &verdict.message);
        }
    }

    fn go_on(&mut self) {
        let was_suspended = condition(&self.plan.status, "Suspended").is_some();
        if self.suspended() {
            self.plan.drop = self.active().cloned().collect();
            self.plan.status.start_time = None;
            if self.set_condition("Suspended", "True", "JobSuspended", "Job suspended") {
                self.event("Normal", "Suspended", "Job suspended");
            }
            return;
        }
        if was_suspended && self.set_condition("Suspended", "False", "JobResumed", "Job resumed") {
            self.plan.status.start_time = Some(Time(self.now));
            self.event("Normal", "Resumed", "Job resumed");
        }
        let mut order: Vec<Arc<Pod>> = self.active().cloned().collect();
        order.sort_by_key(|pod| !pod::is_ready(pod));
        let mut seen = HashSet::new();
        let (kept, excess): (Vec<_>, Vec<_>) = order.into_iter().partition(|pod| {
            let fits = |index: i32| !self.is_settled(index) && seen.insert(index);
            // without a finalizer nobody would count it
            is_tracked(pod) && (!self.indexed || self.index(pod).is_some_and(fits))
        });
        self.plan.drop = excess;
        let parallelism = self.spec.parallelism.unwrap_or(1).max(0);
        let active = kept.len() as i32;
        let goal = match self.spec.completions {
            None if self.succeeded() > 0 => active.min(parallelism),
            None => parallelism,
            Some(wanted) => (wanted - self.succeeded() - self.failed_indexes.len()).clamp(0, parallelism),
        };
        let too_many = usize::try_from(active - goal).unwrap_or(0);
        self.plan.drop.extend(pod_rank::first_to_go(&kept, &kept, too_many, self.now));
        self.grow(&kept, goal - active);
    }

    /// Plans up to `count` new pods, as far as failures and terminating pods let it.
    fn grow(&mut self, kept: &[Arc<Pod>], count: i32) {
        let waits = failure::waits_for_the_end(self.spec);
        let terminating: Vec<&Arc<Pod>> = self.pods.iter().filter(|pod| waits && pod::is_terminating(pod)).collect();
        let count = usize::try_from(count - terminating.len() as i32).unwrap_or(0).min(pod_batch::BURST);
        if count == 0 {
            return;
        }
        if !self.per_index
            && let Some(until) = failure::wait(self.spec, self.pods).filter(|until| *until > self.now)
        {
            return self.look_again(until);
        }
        if !self.indexed {
            self.plan.create = (0..count).map(|_| self.new_pod(None, None)).collect();
            return;
        }
        let busy: HashSet<i32> = kept.iter().chain(terminating).filter_map(|pod| self.index(pod)).collect();
        let last = self.last_failed();
        let mut soonest: Option<Timestamp> = None;
        let mut create = Vec::new();
        for index in 0..self.spec.completions.unwrap_or(0) {
            if create.len() == count {
                break;
            }
            if busy.contains(&index) || self.is_settled(index) {
                continue;
            }
            let last = last.get(&index).copied();
            let until = last.and_then(|pod| failure::wait_of_index(self.spec, pod)).filter(|until| *until > self.now);
            match until {
                Some(until) => soonest = Some(soonest.map_or(until, |known| known.min(until))),
                None => create.push(self.new_pod(Some(index), last)),
            }
        }
        self.plan.create = create;
        if let Some(until) = soonest {
            self.look_again(until);
        }
    }

    fn look_again(&mut self, at: Timestamp) {
        self.plan.look_again = Some(self.plan.look_again.map_or(at, |known| known.min(at)));
    }

    fn new_pod(&self, index: Option<i32>, last: Option<&Arc<Pod>>) -> Pod {
        let name = self.job.name_any();
        let namespace = self.job.namespace().unwrap_or_default();
        let mut pod = pod::from_template(&self.spec.template, &namespace, &name, owner::reference(self.job));
        pod.metadata.finalizers.get_or_insert_default().push(FINALIZER.to_string());
        let Some(index) = index else { return pod };
        let end = format!("-{index}-");
        let start: String = name.chars().take(NAME_MAX_BYTES - end.len()).collect();
        pod.metadata.generate_name = Some(start + &end);
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(INDEX.to_string(), index.to_string());
        if self.per_index {
            let (failures, ignored) = last.map_or((0, 0), |last| failure::tally(self.spec, last));
            annotations.insert(failure::FAILURES.to_string(), failures.to_string());
            if ignored > 0 {
                annotations.insert(failure::IGNORED.to_string(), ignored.to_string());
            }
        }
        pod.metadata.labels.get_or_insert_default().insert(INDEX.to_string(), index.to_string());
        let Some(spec) = &mut pod.spec else { return pod };
        spec.hostname = Some(format!("{name}-{index}"));
        let variable = json!({"name": "JOB_COMPLETION_INDEX",
            "valueFrom": {"fieldRef": {"fieldPath": format!("metadata.labels['{INDEX}']")}}});
        for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            let env = container.env.get_or_insert_default();
            let given = env.iter().any(|known| known.name == "JOB_COMPLETION_INDEX");
            env.extend(serde_json::from_value::<EnvVar>(variable.clone()).ok().filter(|_| !given));
        }
        pod
    }

    /// Writes what was seen into the status.
    fn observe(&mut self) {
        let ready = self.active().filter(|pod| pod::is_ready(pod)).count();
        let (active, succeeded) = (some(self.active().count()), self.succeeded());
        let terminating = self.pods.iter().filter(|pod| pod::is_terminating(pod)).count();
        let listed = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
        let status = &mut self.plan.status;
        status.active = active;
        status.ready = Some(ready as i32);
        status.terminating = Some(terminating as i32);
        status.uncounted_terminated_pods = Some(UncountedTerminatedPods {
            succeeded: listed(&self.uncounted_succeeded),
            failed: listed(&self.uncounted_failed),
        });
        if self.indexed {
            status.succeeded = some(succeeded as usize);
            status.completed_indexes = Some(self.completed.to_string()).filter(|text| !text.is_empty());
            status.failed_indexes = self.per_index.then(|| self.failed_indexes.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// `NAME PHASE` and any of: `i=INDEX`, `f=FAILURES`, `at=SECOND` of its end, `code=EXIT`, `deleting`, `loose` (without the
    /// finalizer), `ready`.
    fn pod(text: &str) -> Arc<Pod> {
        let mut words = text.split(' ');
        let (name, phase) = (words.next().unwrap(), words.next().unwrap());
        let mut pod = json!({"metadata": {"namespace": "ns", "name": name, "uid": name, "finalizers": [FINALIZER],
            "annotations": {}}, "status": {"phase": phase}});
        let mut ended = json!({"exitCode": 1});
        for word in words {
            match word.split_once('=').unwrap_or((word, "")) {
                ("i", index) => pod["metadata"]["annotations"][INDEX] = index.into(),
                ("f", count) => pod["metadata"]["annotations"][failure::FAILURES] = count.into(),
                ("at", second) => ended["finishedAt"] = format!("2030-01-01T00:00:{second}Z").into(),
                ("code", code) => ended["exitCode"] = code.parse::<i32>().unwrap().into(),
                ("deleting", _) => pod["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z".into(),
                ("loose", _) => pod["metadata"]["finalizers"] = json!([]),
                ("ready", _) => pod["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]),
                other => panic!("{other:?}"),
            }
        }
        if matches!(phase, "Failed" | "Succeeded") {
            pod["status"]["containerStatuses"] = json!([{"name": "c", "image": "", "imageID": "", "ready": false,
                "restartCount": 0, "state": {"terminated": ended}}]);
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn job(spec: Value, status: Value) -> Job {
        let mut job = json!({"metadata": {"namespace": "ns", "name": "j", "uid": "j"}, "spec": {"template": {"spec":
            {"containers": [{"name": "c"}]}}}, "status": {"startTime": "2030-01-01T00:00:00Z"}});
        for (into, from) in [("spec", spec), ("status", status)] {
            for (key, value) in from.as_object().unwrap() {
                job[into][key] = value.clone();
            }
        }
        serde_json::from_value(job).unwrap()
    }

    /// The plan at half a minute past midnight.
    fn told(job: &Job, pods: &str) -> String {
        let pods: Vec<Arc<Pod>> = pods.split(", ").filter(|text| !text.is_empty()).map(pod).collect();
        let plan = plan(job, &pods, "2030-01-01T00:00:30Z".parse().unwrap());
        let mut out = String::new();
        for (what, pods) in [("release", &plan.release), ("drop", &plan.drop), ("delete", &plan.delete)] {
            let names: Vec<String> = pods.iter().map(|pod| format!(" {}", pod.name_any())).collect();
            out += &if pods.is_empty() { String::new() } else { format!("{what}{}; ", names.concat()) };
        }
        for pod in &plan.create {
            let note = |name: &str| pod.annotations().get(name).map_or("-", String::as_str);
            out += &format!("create {}/{}; ", note(INDEX), note(failure::FAILURES));
        }
        for (_, reason, message) in &plan.events {
            out += &format!("{reason}: {message}; ");
        }
        out += &plan.look_again.map(|at| format!("again {}; ", at.strftime("%M:%S"))).unwrap_or_default();
        let mut status = serde_json::to_value(&plan.status).unwrap();
        let conditions = status["conditions"].take();
        status.as_object_mut().unwrap().retain(|key, value| {
            let dull = [json!(0), json!({}), Value::Null].contains(value);
            !dull && !["startTime", "completionTime"].contains(&key.as_str())
        });
        out += &status.to_string().replace('"', "");
        for condition in conditions.as_array().into_iter().flatten() {
            let word = |field: &str| condition[field].as_str().unwrap().to_string();
            out += &format!(" {}={}/{}", word("type"), word("status"), word("reason"));
        }
        out
    }

    #[test]
    fn plans() {
        golden::check!("plans.txt", |case| {
            let [spec, status, pods] = case.splitn(3, " | ").collect::<Vec<_>>()[..] else { panic!("{case}") };
            let [spec, status] = [spec, status].map(|text| serde_json::from_str(text).unwrap());
            told(&job(spec, status), pods)
        });
        let indexed = json!({"completionMode": "Indexed", "parallelism": 3, "completions": 4});
        let pod = plan(&job(indexed, json!({})), &[], Timestamp::UNIX_EPOCH).create.remove(1);
        let made = json!([pod.metadata.generate_name, pod.metadata.labels, pod.metadata.finalizers, pod.spec]);
        expect_test::expect_file!["plan/indexed_pod.txt"].assert_eq(&made.to_string());
    }
}
