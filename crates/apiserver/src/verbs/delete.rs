//! DELETE of one object: at once, gracefully, or when its finalizers are gone.
//!
//! Reads: the body's or the query's options. Invariant: an object with finalizers, or a pod whose node has still to stop
//! it, is marked and stays; everything else goes in one transaction.

use std::sync::Arc;

use jiff::SignedDuration;
use meta::{Status, Value, json, time};

use crate::admission::{self, Operation};
use crate::body::Response;
use crate::call::Call;
use crate::custom::{self, definitions};
use crate::object::Object;
use crate::options::{DeleteOptions, Propagation};
use crate::registry::Served;
use crate::storage::{Beside, Written};
use crate::{alloc, decode, metadata, reply, write};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
const DEFAULT_GRACE_SECONDS: i64 = 30;
const MAX_ATTEMPTS: usize = 16;

pub async fn delete(call: &Call, body: &[u8]) -> Result<Response, Status> {
    let options = options(call, body)?;
    warn_of_orphans(call, &options);
    let outcome = delete_key(call, &call.target, &call.key(), &call.path.name, &options).await?;
    // Compat: only who asked for a cascade in the old way learns that it is not over yet.
    let code = if !outcome.gone && options.cascades { 202 } else { 200 };
    if !outcome.gone || call.served.info.answers_deleted() {
        let object = custom::present(&call.shared, &call.served, outcome.object).await?;
        return Ok(reply::object(call, code, &object));
    }
    let served = &call.served;
    let mut details = json!({"name": call.path.name.as_str(), "kind": served.gr.resource.as_str(), "uid": outcome.object.uid.as_str()});
    if !served.gr.group.is_empty() {
        details.set(&["group"], &served.gr.group);
    }
    let accept_any = reply::success(details);
    Ok(reply::plain(&call.accept, &accept_any))
}

/// Pods of a job outlive it unless the client says otherwise, which few expect.
pub fn warn_of_orphans(call: &Call, options: &DeleteOptions) {
    if call.target.rules.orphans && call.target.kind == "Job" && options.propagation.is_none() {
        call.warn(
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them \
             or set propagationPolicy=Orphan to suppress this warning"
                .to_string(),
        );
    }
}

/// The options in the body, or the query.
pub fn options(call: &Call, body: &[u8]) -> Result<DeleteOptions, Status> {
    let body = if body.is_empty() {
        None
    } else {
        let ty = api::resource::root_type("", "v1", "DeleteOptions");
        let (mut value, _) = decode::parse(&call.headers, body).map_err(|failure| match failure {
            decode::ParseFailure::Status(status) => status,
            decode::ParseFailure::Text(text) => Status::bad_request(text),
        })?;
        if !value.as_object().is_some_and(|m| m.is_empty()) {
            let kind = value.str_at(&["kind"]).unwrap_or("DeleteOptions");
            if kind != "DeleteOptions" {
                let version = value.str_at(&["apiVersion"]).unwrap_or("meta.k8s.io/v1");
                return Err(Status::bad_request(decode::unknown_kind(version, kind)));
            }
        }
        if let Some(ty) = ty {
            ty.prune(&mut value).map_err(|e| Status::bad_request(e.0))?;
        }
        Some(value)
    };
    DeleteOptions::parse(&call.query, body.as_ref())
}

pub struct Outcome {
    pub object: Arc<Object>,
    /// The object is no more.
    pub gone: bool,
}

/// Deletes the object at `key`.
pub async fn delete_key(
    call: &Call,
    served: &Arc<Served>,
    key: &str,
    name: &str,
    options: &DeleteOptions,
) -> Result<Outcome, Status> {
    let storage = &call.shared.storage;
    let mut current = storage.get(served, key).await?;
    for _ in 0..MAX_ATTEMPTS {
        let Some(existing) = current else { return Err(Status::not_found(&write::judge(call, served).gr, name)) };
        if options.ignores_read_errors {
            // Compat: the words of upstream's storage layer.
            let why = "unsafe deletion is not allowed because the object is decodable from storage";
            return Err(Status::conflict(&served.gr, name, write::invalid_object(served, key, why)));
        }
        let old = existing.document();
        check_preconditions(served, name, &old, options)?;
        let mut asked = write::review(call, served, Operation::Delete, "", options.dry_run);
        asked.name = name.to_string();
        asked.deletion = Some(options);
        admission::outside::mutate(&mut asked, None, Some(&old)).await?;
        admission::validate(&mut asked, None, Some(&old)).await?;
        let step = plan(served, &old, options);
        if options.dry_run {
            let gone = matches!(step, Step::Delete(_));
            let object = match step {
                Step::Mark(mut marked) => write::stored_object(key, metadata::stored_bytes(&mut marked), existing.rv)?,
                _ => existing,
            };
            return Ok(Outcome { object, gone });
        }
        let written = match step {
            Step::Leave => return Ok(Outcome { object: existing, gone: false }),
            Step::Delete(last) => {
                let allocation = alloc::release(&call.shared, served, &existing).await?;
                match allocation.write(&call.shared, served, key, existing.rv, None).await? {
                    Written::At(revision) => {
                        let object = match last {
                            Some(mut last) => write::stored_object(key, metadata::stored_bytes(&mut last), revision)?,
                            None => Arc::new(existing.at_revision(revision)),
                        };
                        return Ok(Outcome { object, gone: true });
                    }
                    changed => changed,
                }
            }
            Step::Mark(mut marked) => {
                let value = metadata::stored_bytes(&mut marked);
                let lease = call.shared.leases.for_new(call, served).await?;
                let write = storage.write(served, key, existing.rv, Some((value.clone(), lease)), Beside::default());
                match write.await? {
                    Written::At(revision) => {
                        return Ok(Outcome { object: write::stored_object(key, value, revision)?, gone: false });
                    }
                    changed => changed,
                }
            }
        };
        current = match written {
            Written::Changed(newer) => newer,
            Written::Contended => Some(existing),
            Written::At(_) => None,
        };
    }
    Err(Status::modified(&served.gr, name))
}

pub fn check_preconditions(served: &Served, name: &str, old: &Value, options: &DeleteOptions) -> Result<(), Status> {
    // Compat: upstream names the kind here, where other conflicts name the resource (rest.BeforeDelete).
    let named = meta::GroupResource::new(&served.gr.group, &served.kind);
    if let Some(asked) = &options.uid {
        let uid = old.str_at(&["metadata", "uid"]).unwrap_or_default();
        if asked != uid {
            return Err(Status::conflict(
                &named,
                name,
                format!(
                    "the UID in the precondition ({asked}) does not match the UID in record ({uid}). The object might have \
                     been deleted and then recreated"
                ),
            ));
        }
    }
    if let Some(asked) = &options.resource_version {
        let version = metadata::version(old).unwrap_or_default();
        if asked != version {
            return Err(Status::conflict(
                &named,
                name,
                format!(
                    "the ResourceVersion in the precondition ({asked}) does not match the ResourceVersion in record \
                     ({version}). The object might have been modified"
                ),
            ));
        }
    }
    Ok(())
}

/// What a deletion does to the object.
#[derive(Debug, PartialEq)]
enum Step {
    /// It is being deleted already, and nothing of that changes.
    Leave,
    Mark(Value),
    /// With what is told of it, where that is not what it was.
    Delete(Option<Value>),
}

fn plan(served: &Served, old: &Value, options: &DeleteOptions) -> Step {
    // The kinds that go in a way of their own, by name: a custom resource may be called the same.
    let plural = if served.custom.is_none() { &*served.info.plural } else { "" };
    let mut options = options.clone();
    if served.rules.orphans && options.propagation.is_none() && !metadata::is_deleting(old) {
        options.propagation = Some(Propagation::Orphan);
    }
    plan_kind(plural, old, &options, time::now())
}

fn plan_kind(plural: &str, old: &Value, options: &DeleteOptions, now: time::Timestamp) -> Step {
    let mut new = old.clone();
    let mut finalizers = finalizers_for(old, options.propagation);
    if plural == "customresourcedefinitions" && !metadata::is_deleting(old) {
        definitions::terminate(&mut new, &mut finalizers, now);
    }
    if finalizers.is_empty() {
        new.remove(&["metadata", "finalizers"]);
    } else {
        new.set(&["metadata", "finalizers"], finalizers.clone());
    }
    let held = !finalizers.is_empty() || (plural == "namespaces" && !old.array_at(&["spec", "finalizers"]).is_empty());
    let grace = if plural == "pods" { pod_grace_seconds(old, options) } else { 0 };
    match old.int_at(&["metadata", "deletionGracePeriodSeconds"]).filter(|_| metadata::is_deleting(old)) {
        Some(period) if grace < period => shorten(&mut new, period, grace, now),
        // Without a shorter time nothing happens to a pod that is being stopped.
        Some(period) if period > 0 => return if new == *old { Step::Leave } else { Step::Mark(new) },
        _ if metadata::is_deleting(old) => {}
        // Compat: namespaces and definitions are marked by means of their own.
        _ if held && matches!(plural, "namespaces" | "customresourcedefinitions") => {
            new.set(&["metadata", "deletionTimestamp"], time::seconds(now));
        }
        _ if grace > 0 || held || plural == "pods" => mark(&mut new, grace, now),
        _ => {}
    }
    if plural == "namespaces" && held {
        new.set(&["status", "phase"], "Terminating");
    }
    if held || grace > 0 {
        return if new == *old { Step::Leave } else { Step::Mark(new) };
    }
    Step::Delete((plural == "pods").then_some(new))
}

/// Moves the end of the grace period nearer.
fn shorten(new: &mut Value, period: i64, grace_seconds: i64, now: time::Timestamp) {
    let was = new.str_at(&["metadata", "deletionTimestamp"]).and_then(time::parse).unwrap_or(now);
    let at = was - SignedDuration::from_secs(period) + SignedDuration::from_secs(grace_seconds);
    new.set(&["metadata", "deletionTimestamp"], time::seconds(at));
    new.set(&["metadata", "deletionGracePeriodSeconds"], grace_seconds);
}

fn mark(new: &mut Value, grace_seconds: i64, now: time::Timestamp) {
    let at = now + SignedDuration::from_secs(grace_seconds);
    new.set(&["metadata", "deletionTimestamp"], time::seconds(at));
    new.set(&["metadata", "deletionGracePeriodSeconds"], grace_seconds);
    if let Some(generation) = new.int_at(&["metadata", "generation"]).filter(|g| *g > 0) {
        new.set(&["metadata", "generation"], generation + 1);
    }
}

fn finalizers_for(old: &Value, propagation: Option<Propagation>) -> Vec<Value> {
    let own = metadata::finalizers(old);
    let has = |name: &str| own.iter().any(|f| f.as_str() == Some(name));
    // What was asked for earlier stays unless something else is asked for now.
    let (orphan, foreground) = match propagation {
        Some(Propagation::Orphan) => (true, false),
        Some(Propagation::Foreground) => (false, true),
        Some(Propagation::Background) => (false, false),
        None => (has(ORPHAN), has(FOREGROUND)),
    };
    let mut all: Vec<Value> = own.to_vec();
    all.retain(|f| match f.as_str() {
        Some(ORPHAN) => orphan,
        Some(FOREGROUND) => foreground,
        _ => true,
    });
    for (name, wanted) in [(ORPHAN, orphan), (FOREGROUND, foreground)] {
        if wanted && !has(name) {
            all.push(name.into());
        }
    }
    all
}

/// How long the kubelet has to stop the pod; 0 for one that it does not run.
fn pod_grace_seconds(pod: &Value, options: &DeleteOptions) -> i64 {
    if pod.str_at(&["spec", "nodeName"]).unwrap_or_default().is_empty() {
        return 0;
    }
    if matches!(pod.str_at(&["status", "phase"]), Some("Failed" | "Succeeded")) {
        return 0;
    }
    let asked = options.grace_seconds.or_else(|| pod.int_at(&["spec", "terminationGracePeriodSeconds"]));
    match asked.unwrap_or(DEFAULT_GRACE_SECONDS) {
        // Compat: a negative time means one second (upstream's pod strategy).
        negative if negative < 0 => 1,
        seconds => seconds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_deletion_does() {
        let now = time::parse("2026-01-01T00:00:00Z").expect("time");
        golden::check!("deletions.txt", |case| {
            let [plural, how, object] = case.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{case}") };
            let options = DeleteOptions {
                grace_seconds: (how == "now").then_some(0),
                propagation: (how == "foreground").then_some(Propagation::Foreground),
                ..DeleteOptions::default()
            };
            match plan_kind(plural, &meta::parse(object.as_bytes()).expect("JSON"), &options, now) {
                Step::Leave => "leave".into(),
                Step::Delete(_) => "delete".into(),
                Step::Mark(marked) => marked["metadata"].to_string(),
            }
        });
    }
}
