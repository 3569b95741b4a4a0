//! pods/eviction: deletes a pod if its disruption budget allows that.
//!
//! Reads: disruption budgets. Changes: the budget's count, then the pod. Invariant: no more pods are evicted than the
//! budget's `disruptionsAllowed` says.

use std::sync::Arc;

use meta::selector::LabelSelector;
use meta::status::Cause;
use meta::{Status, Value, json, time};

use crate::admission::{Operation, outside};
use crate::body::Response;
use crate::call::Call;
use crate::object::Object;
use crate::options::{DeleteOptions, WriteOptions};
use crate::request::Query;
use crate::verbs::{delete, get};
use crate::write::{self, Endpoint};
use crate::{decode, metadata, reply};

pub async fn create(call: &Call, body: &[u8]) -> Result<Response, Status> {
    let options = WriteOptions::parse(call, "CreateOptions")?;
    let ty = api::resource::root_type("policy", "v1", "Eviction");
    let mut eviction = decode::typed(call, body, options.validation, "policy/v1", "Eviction", ty)?;
    let named = metadata::name(&eviction);
    if !named.is_empty() && named != call.path.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    outside::examine(call, Operation::Create, &mut eviction, options.dry_run).await?;
    let mut deletion = DeleteOptions::parse(&Query::default(), eviction.get("deleteOptions"))?;
    deletion.dry_run |= options.dry_run;
    let pod = get::find(call).await?;
    if needs_budget(&pod.document()) {
        spend_budget(call, &pod, deletion.dry_run).await?;
    }
    delete::delete_key(call, &call.target, &call.key(), &call.path.name, &deletion).await?;
    let answer = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(reply::document(call, 201, &answer))
}

/// A pod that does not run, or goes already, disrupts nothing.
fn needs_budget(pod: &Value) -> bool {
    let phase = pod.str_at(&["status", "phase"]).unwrap_or_default();
    !matches!(phase, "Succeeded" | "Failed" | "Pending") && !metadata::is_deleting(pod)
}

async fn spend_budget(call: &Call, pod: &Object, dry_run: bool) -> Result<(), Status> {
    let Some(budgets) = call.shared.registry.stored("policy", "poddisruptionbudgets") else { return Ok(()) };
    let prefix = format!("{}/", call.path.namespace);
    let all = budgets.cache.snapshot(&prefix, "", 0, false, |_| true).objects;
    let meant: Vec<&Arc<Object>> = all.iter().filter(|b| covers(b, pod)).collect();
    let budget = match meant.as_slice() {
        [] => return Ok(()),
        [one] => *one,
        _ => {
            let why =
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Status::internal(why));
        }
    };
    let mut options = WriteOptions::own("apiserver");
    options.dry_run = dry_run;
    let take = |old: &Value| take_one(old, &pod.name);
    write::update_key(call, &budgets, &budget.key, &budget.name, Endpoint::Sub("status"), &options, take).await?;
    Ok(())
}

fn covers(budget: &Object, pod: &Object) -> bool {
    let selector = LabelSelector::from_valid_object(&budget.stored_document()["spec"]["selector"]);
    selector.matches_with(|key| pod.label(key))
}

fn take_one(old: &Value, pod: &str) -> Result<Value, Status> {
    let name = metadata::name(old);
    let generation = old.int_at(&["metadata", "generation"]).unwrap_or(0);
    let observed = old.int_at(&["status", "observedGeneration"]).unwrap_or(0);
    let refuse = |message: &str| {
        let cause = Cause { reason: "DisruptionBudget".into(), message: message.into(), field: String::new() };
        Status::too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", 0)
            .with_causes(vec![cause])
    };
    if observed < generation {
        return Err(refuse(&format!("The disruption budget {name} is still being processed by the server."))
            .with_retry_after(10));
    }
    let allowed = old.int_at(&["status", "disruptionsAllowed"]).unwrap_or(0);
    if allowed <= 0 {
        let desired = old.int_at(&["status", "desiredHealthy"]).unwrap_or(0);
        let current = old.int_at(&["status", "currentHealthy"]).unwrap_or(0);
        return Err(refuse(&format!(
            "The disruption budget {name} needs {desired} healthy pods and has {current} currently"
        )));
    }
    let mut new = old.clone();
    new.set(&["status", "disruptionsAllowed"], allowed - 1);
    new.set(&["status", "disruptedPods", pod], time::seconds(time::now()));
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_until_nothing_is_left() {
        let budget = json!({"metadata": {"name": "b", "generation": 1},
            "status": {"observedGeneration": 1, "disruptionsAllowed": 1, "desiredHealthy": 2, "currentHealthy": 3}});
        let spent = take_one(&budget, "p").expect("allowed");
        assert_eq!(spent.int_at(&["status", "disruptionsAllowed"]), Some(0));
        let refused = take_one(&spent, "q").expect_err("spent");
        assert_eq!(refused.code, 429);
        assert_eq!(
            refused.details.expect("details").causes[0].message,
            "The disruption budget b needs 2 healthy pods and has 3 currently"
        );
    }
}
