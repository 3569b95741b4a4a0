//! pods/eviction: deletes a pod if its disruption budget allows that.
//!
//! Reads: disruption budgets. Changes: the budget's count, the pod's condition, then the pod. Invariant: no more healthy pods
//! are evicted than the budget's `disruptionsAllowed` says, whatever happens to budget or pod meanwhile.

use std::sync::Arc;

use meta::selector::LabelSelector;
use meta::status::Cause;
use meta::{GroupResource, Reason, Status, Value, json, time};

use crate::admission::{Operation, outside};
use crate::body::Response;
use crate::call::Call;
use crate::object::Object;
use crate::options::{DeleteOptions, WriteOptions};
use crate::request::Query;
use crate::verbs::{delete, get};
use crate::write::{self, Endpoint};
use crate::{decode, metadata, reply};

/// Evictions that a budget's controller has not confirmed yet. Source: the eviction API's own bound.
const DISRUPTED_MAX: usize = 2000;
/// A pod starts to run once, so that a second look settles it; the third is for a pod made anew.
const ATTEMPTS_MAX: usize = 3;

/// Why a pod may be deleted; it has to hold until the deletion.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Basis {
    /// No budget covers it, a budget was spent for it, or it has ended or is ending.
    Settled,
    /// It does not run yet.
    Pending,
    /// It is not ready, and its budget does not count such a pod.
    Unhealthy,
}

impl Basis {
    fn holds(self, pod: &Value) -> bool {
        match self {
            Basis::Settled => true,
            Basis::Pending => before_budget(pod).is_some(),
            Basis::Unhealthy => !is_ready(pod),
        }
    }
}

pub async fn create(call: &Call, body: &[u8]) -> Result<Response, Status> {
    let options = WriteOptions::parse(call, "CreateOptions")?;
    let ty = api::resource::root_type("policy", "v1", "Eviction");
    // Compat: clients from before policy/v1 say the version that is no longer served elsewhere.
    let api_versions = ["policy/v1", "policy/v1beta1"];
    let mut eviction = decode::typed(call, body, options.validation, &api_versions, "Eviction", ty)?;
    let named = metadata::name(&eviction);
    if !named.is_empty() && named != call.path.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    outside::examine(call, Operation::Create, &mut eviction, options.dry_run).await?;
    let mut deletion = DeleteOptions::parse(&Query::default(), eviction.get("deleteOptions"))?;
    deletion.dry_run |= options.dry_run;
    for attempt in 1.. {
        let pod = get::find(call).await?;
        delete::check_preconditions(&call.target, &call.path.name, &pod.document(), &deletion)?;
        let (basis, budget) = allow(call, &pod, deletion.dry_run).await?;
        match remove(call, basis, deletion.clone()).await {
            Ok(()) => break,
            Err(status) if status.reason != Reason::Conflict || deletion.resource_version.is_some() => {
                return Err(status);
            }
            Err(_) if basis == Basis::Pending && attempt < ATTEMPTS_MAX => {}
            Err(_) if basis == Basis::Unhealthy => return Err(unsettled(&budget)),
            Err(status) => return Err(status),
        }
    }
    let answer = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(reply::document(call, 201, &answer))
}

/// A pod that does not run, or goes already, disrupts nothing.
fn before_budget(pod: &Value) -> Option<Basis> {
    match pod.str_at(&["status", "phase"]).unwrap_or_default() {
        _ if metadata::is_deleting(pod) => Some(Basis::Settled),
        "Succeeded" | "Failed" => Some(Basis::Settled),
        "Pending" => Some(Basis::Pending),
        _ => None,
    }
}

fn is_ready(pod: &Value) -> bool {
    pod.array_at(&["status", "conditions"]).iter().any(|c| c["type"] == "Ready".into() && c["status"] == "True".into())
}

/// Why the pod may go, and its budget's name if it has one; spends the budget.
async fn allow(call: &Call, pod: &Object, dry_run: bool) -> Result<(Basis, String), Status> {
    let document = pod.document();
    if let Some(basis) = before_budget(&document) {
        return Ok((basis, String::new()));
    }
    let none = (Basis::Settled, String::new());
    let Some(budgets) = call.shared.registry.stored("policy", "poddisruptionbudgets") else { return Ok(none) };
    let prefix = format!("{}/", call.path.namespace);
    let all = budgets.cache.snapshot(&prefix, "", 0, false, |_| true).objects;
    let meant: Vec<&Arc<Object>> = all.iter().filter(|b| covers(b, pod)).collect();
    let budget = match meant.as_slice() {
        [] => return Ok(none),
        [one] => *one,
        _ => {
            let why =
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Status::new(500, Reason::Unknown, why));
        }
    };
    let name = budget.name.to_string();
    if !is_ready(&document) && lets_unhealthy_go(&budget.document()) {
        return Ok((Basis::Unhealthy, name));
    }
    let mut options = WriteOptions::own("apiserver");
    options.dry_run = dry_run;
    let take = |old: &Value| take_one(old, &pod.name);
    match write::update_key(call, &budgets, &budget.key, &name, Endpoint::Sub("status"), &options, take).await {
        Err(status) if status.reason == Reason::Conflict => {
            let why = format!("Timeout: couldn't update PodDisruptionBudget {name:?} due to conflicts");
            Err(Status::timeout(why).with_retry_after(10))
        }
        spent => spent.map(|_| (Basis::Settled, name)),
    }
}

fn covers(budget: &Object, pod: &Object) -> bool {
    let selector = LabelSelector::from_valid_object(&budget.stored_document()["spec"]["selector"]);
    selector.matches_with(|key| pod.label(key))
}

/// Whether a pod that is not ready may go without being counted.
fn lets_unhealthy_go(budget: &Value) -> bool {
    let [desired, current] =
        ["desiredHealthy", "currentHealthy"].map(|field| budget.int_at(&["status", field]).unwrap_or(0));
    budget.str_at(&["spec", "unhealthyPodEvictionPolicy"]) == Some("AlwaysAllow") || (current >= desired && desired > 0)
}

/// Says in the pod why it goes, and deletes it if the reason for that still holds.
async fn remove(call: &Call, basis: Basis, mut deletion: DeleteOptions) -> Result<(), Status> {
    let (served, name) = (&call.target, &call.path.name);
    let mut options = WriteOptions::own("apiserver");
    options.dry_run = deletion.dry_run;
    let now = time::seconds(time::now());
    let marked = write::update_key(call, served, &call.key(), name, Endpoint::Sub("status"), &options, |old| {
        delete::check_preconditions(served, name, old, &deletion)?;
        if !basis.holds(old) {
            return Err(Status::modified(&served.gr, name));
        }
        Ok(marked(old, &now))
    })
    .await?
    .object();
    if !deletion.dry_run && (deletion.resource_version.is_some() || basis != Basis::Settled) {
        deletion.resource_version = Some(marked.rv.to_string());
    }
    delete::delete_key(call, served, &call.key(), name, &deletion).await.map(drop)
}

fn marked(pod: &Value, now: &str) -> Value {
    let mut condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": now});
    if let Some(generation) = pod.int_at(&["metadata", "generation"]) {
        condition.set(&["observedGeneration"], generation);
    }
    let mut conditions = pod.array_at(&["status", "conditions"]).to_vec();
    match conditions.iter_mut().find(|c| c["type"] == condition["type"]) {
        Some(old) => {
            if old["status"] == condition["status"] {
                condition.set(&["lastTransitionTime"], old["lastTransitionTime"].clone());
            }
            *old = condition;
        }
        None => conditions.push(condition),
    }
    let mut new = pod.clone();
    new.set(&["status", "conditions"], conditions);
    new
}

fn refused(why: &str) -> Status {
    let cause = Cause { reason: "DisruptionBudget".into(), message: why.into(), field: String::new() };
    Status::too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", 0)
        .with_causes(vec![cause])
}

fn unsettled(budget: &str) -> Status {
    refused(&format!("The disruption budget {budget} is still being processed by the server.")).with_retry_after(10)
}

fn take_one(old: &Value, pod: &str) -> Result<Value, Status> {
    let name = metadata::name(old);
    let status = |field: &str| old.int_at(&["status", field]).unwrap_or(0);
    if status("observedGeneration") < old.int_at(&["metadata", "generation"]).unwrap_or(0) {
        return Err(unsettled(name));
    }
    let allowed = status("disruptionsAllowed");
    let forbidden = |why| Status::forbidden(&GroupResource::new("policy", "poddisruptionbudget"), name, why);
    if allowed < 0 {
        return Err(forbidden("pdb disruptions allowed is negative"));
    }
    let disrupted = old.at(&["status", "disruptedPods"]).and_then(Value::as_object).map_or(0, |pods| pods.len());
    if disrupted > DISRUPTED_MAX {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(forbidden(why));
    }
    let mut conditions = old.array_at(&["status", "conditions"]).to_vec();
    let condition = conditions.iter_mut().find(|c| c["type"] == "DisruptionAllowed".into());
    if allowed == 0 {
        let failed = condition.filter(|c| c.str_at(&["reason"]) == Some("SyncFailed"));
        return Err(refused(&match failed.and_then(|c| c.str_at(&["message"]).map(str::to_string)) {
            Some(why) => format!(
                "The disruption budget {name} does not allow evicting pods currently because it failed sync: {why}"
            ),
            None => format!(
                "The disruption budget {name} needs {} healthy pods and has {} currently",
                status("desiredHealthy"),
                status("currentHealthy")
            ),
        }));
    }
    let now = time::seconds(time::now());
    let mut new = old.clone();
    if let Some(condition) = condition.filter(|_| allowed == 1) {
        for (field, value) in [("status", "False"), ("reason", "InsufficientPods"), ("lastTransitionTime", &*now)] {
            condition.set(&[field], value);
        }
        new.set(&["status", "conditions"], conditions);
    }
    new.set(&["status", "disruptionsAllowed"], allowed - 1);
    new.set(&["status", "disruptedPods", pod], now);
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_until_nothing_is_left() {
        let condition = json!([{"type": "DisruptionAllowed", "status": "True", "reason": "SufficientPods"}]);
        let budget = json!({"metadata": {"name": "b", "generation": 1}, "status": {"observedGeneration": 1,
            "disruptionsAllowed": 1, "desiredHealthy": 2, "currentHealthy": 3, "conditions": condition}});
        let spent = take_one(&budget, "p").expect("allowed");
        assert_eq!(spent.int_at(&["status", "disruptionsAllowed"]), Some(0));
        assert_eq!(spent["status"]["conditions"][0]["reason"].as_str(), Some("InsufficientPods"));
        golden::check!("eviction.txt", |patch| {
            let mut budget = spent.clone();
            meta::patch::merge_patch(&mut budget, &meta::parse(patch.as_bytes()).expect("JSON")).expect("a patch");
            let refused = take_one(&budget, "q").expect_err("refused");
            let cause = refused.details.iter().flat_map(|d| &d.causes).next().map(|c| c.message.to_string());
            format!("{} {}", refused.code, cause.unwrap_or(refused.message.clone()))
        });
    }

    #[test]
    fn what_needs_no_budget() {
        let unhealthy = |policy: &str, current: i64| {
            lets_unhealthy_go(&json!({"spec": {"unhealthyPodEvictionPolicy": policy},
                "status": {"desiredHealthy": 2, "currentHealthy": current}}))
        };
        let all = [("IfHealthyBudget", 1), ("IfHealthyBudget", 2), ("AlwaysAllow", 0)];
        assert_eq!(all.map(|(policy, current)| unhealthy(policy, current)), [false, true, true]);
        let running = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        let pending = json!({"status": {"phase": "Pending"}});
        for (pod, basis) in [(&running, None), (&pending, Some(Basis::Pending))] {
            assert_eq!(before_budget(pod), basis);
        }
        let holds = [Basis::Settled, Basis::Pending, Basis::Unhealthy].map(|b| (b.holds(&running), b.holds(&pending)));
        assert_eq!(holds, [(true, true), (false, true), (false, true)]);
    }
}
