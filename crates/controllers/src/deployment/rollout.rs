//! The next steps of a Deployment towards its template and size.
//! Reads and writes nothing. Invariant: pure; at no step are fewer pods available than maxUnavailable allows, nor more wanted
//! than maxSurge allows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::{revision, scale, status};
use crate::intstr;

/// A ReplicaSet with the size it has, or gets in this plan.
#[derive(Clone, Debug)]
pub struct Set {
    pub object: Arc<ReplicaSet>,
    pub replicas: i32,
}

impl Set {
    pub fn new(object: Arc<ReplicaSet>) -> Self {
        let replicas = object.spec.replicas.unwrap_or(1);
        Set { object, replicas }
    }

    pub fn status(&self) -> Option<&ReplicaSetStatus> {
        self.object.status.as_ref()
    }

    /// Pods there are.
    pub fn actual(&self) -> i32 {
        self.status().map_or(0, |status| status.replicas)
    }

    pub fn ready(&self) -> i32 {
        self.status().and_then(|status| status.ready_replicas).unwrap_or(0)
    }

    pub fn available(&self) -> i32 {
        self.status().and_then(|status| status.available_replicas).unwrap_or(0)
    }
}

/// A Deployment's size and how far a rollout may stray from it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub replicas: i32,
    pub surge: i32,
    pub unavailable: i32,
    pub rolling: bool,
}

pub fn limits(deployment: &Deployment) -> Limits {
    let replicas = deployment.spec.replicas.unwrap_or(1);
    let strategy = deployment.spec.strategy.as_ref();
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate") {
        return Limits { replicas, surge: 0, unavailable: 0, rolling: false };
    }
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let quarter = IntOrString::String("25%".to_string());
    let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref()).unwrap_or(&quarter);
    let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref()).unwrap_or(&quarter);
    let surge = intstr::resolve(surge, replicas, true);
    let mut unavailable = intstr::resolve(unavailable, replicas, false);
    if surge == 0 && unavailable == 0 {
        // otherwise it could never move
        unavailable = 1;
    }
    Limits { replicas, surge, unavailable: unavailable.min(replicas), rolling: true }
}

#[derive(Debug)]
pub enum Step {
    Create(Box<ReplicaSet>),
    /// Sets the annotations and minReadySeconds of the new set.
    Refresh {
        set: Arc<ReplicaSet>,
        annotations: Option<BTreeMap<String, String>>,
        min_ready_s: i32,
    },
    Scale {
        set: Arc<ReplicaSet>,
        from: i32,
        to: i32,
        annotations: [(&'static str, String); 2],
    },
    Delete(Arc<ReplicaSet>),
    /// Writes the revision on the Deployment.
    SetRevision(String),
}

#[derive(Debug)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub status: DeploymentStatus,
    pub look_again: Option<Duration>,
}

/// The plan while it is made.
pub struct Draft<'a> {
    pub deployment: &'a Deployment,
    pub limits: Limits,
    pub new: Option<Set>,
    pub old: Vec<Set>,
    pub steps: Vec<Step>,
}

impl Draft<'_> {
    pub fn all(&self) -> impl Iterator<Item = &Set> {
        self.new.iter().chain(&self.old)
    }

    fn wanted_total(&self) -> i32 {
        self.all().map(|set| set.replicas).sum()
    }

    /// Resizes a set; also when only the annotations about the Deployment's size are behind. True if the size changes.
    pub fn resize(&mut self, place: Place, to: i32) -> bool {
        let annotations = [
            (revision::DESIRED, self.limits.replicas.to_string()),
            (revision::MAX, (self.limits.replicas + self.limits.surge).to_string()),
        ];
        let set = match place {
            Place::New => self.new.as_mut(),
            Place::Old(index) => self.old.get_mut(index),
        };
        let Some(set) = set else { return false };
        let from = std::mem::replace(&mut set.replicas, to);
        let stale = annotations.iter().any(|(key, value)| set.object.annotations().get(*key) != Some(value));
        if from != to || stale {
            self.steps.push(Step::Scale { set: set.object.clone(), from, to, annotations });
        }
        from != to
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place {
    New,
    Old(usize),
}

/// `old_pods_running`: whether a pod of any set but the new one still runs; only Recreate asks.
pub fn plan(
    deployment: &Deployment,
    sets: &[Arc<ReplicaSet>],
    old_pods_running: impl Fn(&[Set]) -> bool,
    now: Timestamp,
) -> Plan {
    let new = revision::find_new(deployment, sets);
    let mut old: Vec<Arc<ReplicaSet>> = sets
        .iter()
        .filter(|set| new.as_ref().is_none_or(|new| new.metadata.uid != set.metadata.uid))
        .cloned()
        .collect();
    old.sort_by_key(|set| revision::age_order(set));
    let next_revision = revision::next_revision(&old);
    let mut draft = Draft {
        deployment,
        limits: limits(deployment),
        new: new.map(Set::new),
        old: old.into_iter().map(Set::new).collect(),
        steps: Vec::new(),
    };
    let mut copy = deployment.clone();
    if deployment.metadata.deletion_timestamp.is_some() {
        let status = status::calculate(deployment, draft.new.as_ref(), &draft.old, now);
        return Plan { steps: Vec::new(), status, look_again: None };
    }
    if let Some(condition) = status::paused(deployment, now) {
        status::set(copy.status.get_or_insert_default(), condition);
    }
    refresh_new(&mut draft, next_revision, &mut copy, now);
    let paused = deployment.spec.paused.unwrap_or(false);
    if paused || scale::is_due(&draft) {
        scale::plan(&mut draft);
        if paused {
            clean_up(&mut draft);
        }
        let status = status::calculate(&copy, draft.new.as_ref(), &draft.old, now);
        return finish(draft, &copy, status, now);
    }
    let moved = if draft.limits.rolling {
        roll(&mut draft, next_revision)
    } else {
        recreate(&mut draft, next_revision, old_pods_running)
    };
    created_condition(&draft, &mut copy, now);
    let status = status::progress(&copy, draft.new.as_ref(), &draft.old, now);
    if !moved && status::is_complete(deployment, &status) {
        clean_up(&mut draft);
    }
    finish(draft, &copy, status, now)
}

fn finish(draft: Draft, copy: &Deployment, status: DeploymentStatus, now: Timestamp) -> Plan {
    let look_again = status::look_again(copy, &status, now);
    Plan { steps: draft.steps, status, look_again }
}

/// Brings the annotations of the new set and the revision of the Deployment up to date.
fn refresh_new(draft: &mut Draft, revision: i64, copy: &mut Deployment, now: Timestamp) {
    let Some(new) = &draft.new else { return };
    let annotations = revision::annotations_for(draft.deployment, new.object.metadata.annotations.as_ref(), revision);
    let min_ready_s = draft.deployment.spec.min_ready_seconds.unwrap_or(0);
    let known_s = new.object.spec.min_ready_seconds.unwrap_or(0);
    let of_set = annotations.as_ref().or(new.object.metadata.annotations.as_ref());
    let number = revision::revision_of(of_set).to_string();
    if annotations.is_some() || min_ready_s != known_s {
        draft.steps.push(Step::Refresh { set: new.object.clone(), annotations, min_ready_s });
    }
    if draft.deployment.annotations().get(revision::REVISION) != Some(&number) {
        draft.steps.push(Step::SetRevision(number));
    }
    let status = copy.status.get_or_insert_default();
    if status::find(status, status::PROGRESSING).is_none() {
        let message = format!("Found new replica set \"{}\"", new.object.name_any());
        status::set(status, status::condition(status::PROGRESSING, "True", "FoundNewReplicaSet", message, now));
    }
}

fn created_condition(draft: &Draft, copy: &mut Deployment, now: Timestamp) {
    let created = draft.steps.iter().find_map(|step| match step {
        Step::Create(set) => Some(set.name_any()),
        _ => None,
    });
    if let Some(name) = created {
        let message = format!("Created new replica set \"{name}\"");
        let condition = status::condition(status::PROGRESSING, "True", "NewReplicaSetCreated", message, now);
        status::set(copy.status.get_or_insert_default(), condition);
    }
}

/// Adds the missing new set, at the size the rollout allows.
fn create_new(draft: &mut Draft, revision: i64) {
    let replicas = new_size(draft, 0);
    let max = draft.limits.replicas + draft.limits.surge;
    let set = revision::new_set(draft.deployment, revision, replicas, max);
    draft.steps.push(Step::Create(Box::new(set)));
    if draft.deployment.annotations().get(revision::REVISION) != Some(&revision.to_string()) {
        draft.steps.push(Step::SetRevision(revision.to_string()));
    }
}

/// How large the new set may be now, given that it wants `current`.
fn new_size(draft: &Draft, current: i32) -> i32 {
    let Limits { replicas, surge, rolling, .. } = draft.limits;
    if !rolling {
        return replicas;
    }
    let room = replicas + surge - draft.wanted_total();
    if room <= 0 {
        return current;
    }
    current + room.min(replicas - current)
}

/// One step of a rolling update: up with the new, else down with the old. True if anything moves.
fn roll(draft: &mut Draft, revision: i64) -> bool {
    let Some(new) = &draft.new else {
        create_new(draft, revision);
        return true;
    };
    let (current, wanted) = (new.replicas, draft.limits.replicas);
    let to = match current.cmp(&wanted) {
        std::cmp::Ordering::Equal => current,
        std::cmp::Ordering::Greater => wanted,
        std::cmp::Ordering::Less => new_size(draft, current),
    };
    if to != current {
        return draft.resize(Place::New, to);
    }
    shrink_old(draft)
}

fn shrink_old(draft: &mut Draft) -> bool {
    let Some(new) = draft.new.clone() else { return false };
    if draft.old.iter().all(|set| set.replicas == 0) {
        return false;
    }
    let min_available = draft.limits.replicas - draft.limits.unavailable;
    let new_unavailable = new.replicas - new.available();
    let spare = draft.wanted_total() - min_available - new_unavailable;
    if spare <= 0 {
        return false;
    }
    let mut moved = false;
    // pods that are not available go first: nobody misses them
    let mut left = spare;
    for index in 0..draft.old.len() {
        let set = &draft.old[index];
        let down = left.min(set.replicas - set.available()).max(0);
        if down > 0 {
            left -= down;
            let to = set.replicas - down;
            moved |= draft.resize(Place::Old(index), to);
        }
    }
    let available: i32 = draft.all().map(Set::available).sum();
    let mut left = available - min_available;
    for index in 0..draft.old.len() {
        let set = &draft.old[index];
        let down = left.min(set.replicas).max(0);
        if down > 0 {
            left -= down;
            let to = set.replicas - down;
            moved |= draft.resize(Place::Old(index), to);
        }
    }
    moved
}

fn recreate(draft: &mut Draft, revision: i64, old_pods_running: impl Fn(&[Set]) -> bool) -> bool {
    let mut moved = false;
    for index in 0..draft.old.len() {
        if draft.old[index].replicas > 0 {
            moved |= draft.resize(Place::Old(index), 0);
        }
    }
    if moved || old_pods_running(&draft.old) {
        return true;
    }
    match &draft.new {
        None => create_new(draft, revision),
        Some(new) if new.replicas != draft.limits.replicas => {
            draft.resize(Place::New, draft.limits.replicas);
        }
        Some(_) => return false,
    }
    true
}

/// Deletes the oldest revisions beyond the history limit.
fn clean_up(draft: &mut Draft) {
    let limit = draft.deployment.spec.revision_history_limit;
    let Some(limit) = limit.filter(|limit| *limit != i32::MAX) else { return };
    let mut alive: Vec<&Set> =
        draft.old.iter().filter(|set| set.object.metadata.deletion_timestamp.is_none()).collect();
    let Some(excess) = alive.len().checked_sub(usize::try_from(limit).unwrap_or(0)).filter(|excess| *excess > 0) else {
        return;
    };
    alive.sort_by_key(|set| revision::revision_of(set.object.metadata.annotations.as_ref()));
    let deletes: Vec<Step> = alive
        .iter()
        .take(excess)
        .filter(|set| {
            let observed = set.status().and_then(|status| status.observed_generation).unwrap_or(0);
            set.replicas == 0 && set.actual() == 0 && set.object.metadata.generation.unwrap_or(0) <= observed
        })
        .map(|set| Step::Delete(set.object.clone()))
        .collect();
    draft.steps.extend(deletes);
}

#[cfg(test)]
mod tests;
