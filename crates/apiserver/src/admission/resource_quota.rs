//! ResourceQuota: nothing is stored beyond what its namespace may use.
//!
//! Runs last, after webhooks and policies. Reads: quotas. Writes: their `status.used`, in the very transaction that stores
//! the object. Invariant: an object and its charge are stored together or not at all, whatever else fails and however many
//! servers write, so that what is used never exceeds what is allowed.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::time::Instant;

use api::quota::{self, Amounts, amounts};
use meta::status::Reason;
use meta::time::{self, Timestamp};
use meta::{Status, Value, json};
use store::Op;
use tokio::sync::{Mutex, MutexGuard};

use super::{Operation, Review, times};
use crate::metadata;
use crate::registry::Served;
use crate::storage::Beside;

/// By namespace: whoever charges a quota waits for its turn, so that writers do not fail each other's transactions.
static TURNS: [Mutex<()>; 64] = [const { Mutex::const_new(()) }; 64];

/// The quotas that are to be written together with an object.
#[derive(Default)]
pub struct Charge {
    pub beside: Beside,
    /// Ours until the write is done.
    _turn: Option<MutexGuard<'static, ()>>,
}

/// Charges the object, or what it grew by, to the quotas of its namespace. Without a write nothing is charged.
pub async fn charge(review: &Review<'_>, new: &Value, old: Option<&Value>) -> Result<Charge, Status> {
    let Some(quotas) = review.shared.registry.stored("", "resourcequotas").filter(|_| is_charged(review)) else {
        return Ok(Charge::default());
    };
    let (prefix, now, info) = (quotas.key(&review.namespace, ""), time::now(), &review.served.info);
    let evaluate = || {
        let mut beside = Beside::default();
        limits(review, &quotas, new, old, now)?;
        for object in quotas.cache.snapshot(&prefix, "", 0, false, |_| true).objects {
            let mut document = object.stored_document();
            let charged = add(&mut document, &info.group, &info.plural, new, old, now);
            if charged.map_err(|why| review.forbidden(why))? {
                let key = quotas.store_key(&object.key);
                beside.change(object.rv, Op::Put { key, value: document.to_vec().into(), lease: 0 });
            }
        }
        Ok(beside)
    };
    if evaluate().is_ok_and(|beside| beside.ops.is_empty()) {
        return Ok(Charge::default());
    }
    let turn = BuildHasherDefault::<DefaultHasher>::default().hash_one(&review.namespace) as usize % TURNS.len();
    let _turn = Some(TURNS[turn].lock().await);
    review.shared.storage.fresh().await?;
    let mut since = Instant::now();
    let beside = evaluate();
    review.shared.metrics.admission.record(times::RESOURCE_QUOTA, review.operation, beside.is_err(), &mut since);
    let beside = beside?;
    Ok(Charge { beside, _turn })
}

/// Refuses what the configuration of the plugin lets nobody use who has no quota for it.
fn limits(
    review: &Review<'_>,
    quotas: &Served,
    new: &Value,
    old: Option<&Value>,
    now: Timestamp,
) -> Result<(), Status> {
    let info = &review.served.info;
    let (group, resource) = (&*info.group, &*info.plural);
    let text = |one: &Value, member: &str| one.str_at(&[member]).unwrap_or_default().to_string();
    let all = review.shared.config.admission.limited.iter();
    let limited: Vec<&Value> =
        all.filter(|l| text(l, "apiGroup") == group && text(l, "resource") == resource).collect();
    if limited.is_empty() {
        return Ok(());
    }
    let all = quotas.cache.snapshot(&quotas.key(&review.namespace, ""), "", 0, false, |_| true).objects;
    let all = all.iter().map(|object| object.stored_document());
    let all: Vec<Value> = all.filter(|quota| quota::selects(quota, group, resource, new)).collect();
    let scopes = |one: &Value| {
        let mut probe = json!({});
        probe.set(&["spec", "scopeSelector", "matchExpressions"], vec![one.clone()]);
        quota::selects(&probe, group, resource, new)
    };
    let has_scope = |quota: &Value, scope: &Value| {
        let plain = quota.array_at(&["spec", "scopes"]).contains(scope);
        plain || quota.array_at(&["spec", "scopeSelector", "matchExpressions"]).iter().any(|e| e["scopeName"] == *scope)
    };
    let wanted = limited.iter().flat_map(|l| l.array_at(&["matchScopes"])).filter(|one| scopes(one));
    let bare: Vec<String> = wanted
        .filter(|one| !all.iter().any(|quota| has_scope(quota, &one["scopeName"])))
        .map(|one| {
            let values: Vec<&str> = one.array_at(&["values"]).iter().filter_map(Value::as_str).collect();
            format!("{{{} {} [{}]}}", text(one, "scopeName"), text(one, "operator"), values.join(" "))
        })
        .collect();
    if !bare.is_empty() {
        // Compat: an error without a reason (quota admission).
        let why = format!("insufficient quota to match these scopes: [{}]", bare.join(" "));
        return Err(Status::new(500, Reason::named(""), why));
    }
    let parts: Vec<&str> =
        limited.iter().flat_map(|l| l.array_at(&["matchContains"])).filter_map(Value::as_str).collect();
    let before = old.map(|old| quota::usage(group, resource, old, now)).unwrap_or_default();
    let mut used = quota::usage(group, resource, new, now);
    used.retain(|name, amount| {
        let grows = before.get(name).is_none_or(|before| *before < *amount);
        let covered = all.iter().any(|quota| quota["status"]["hard"].get(name).is_some());
        grows && !covered && parts.iter().any(|part| name.contains(part))
    });
    if used.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = used.into_keys().collect();
    Err(review.forbidden(format!("insufficient quota to consume: {}", names.join(","))))
}

/// The writes that can make an object use more than before.
fn is_charged(review: &Review<'_>) -> bool {
    if !review.shared.config.admission.is_on(times::RESOURCE_QUOTA) {
        return false;
    }
    match (review.operation, review.subresource) {
        (Operation::Create, "") => review.served.namespaced && !review.is("", "events"),
        (Operation::Update, "") => review.is("", "services") || review.is("", "persistentvolumeclaims"),
        (Operation::Update, "resize") => review.is("", "pods"),
        _ => false,
    }
}

/// Adds to what is used of a quota. Answers whether the quota has to be written with the object, or why the object is
/// refused.
fn add(
    quota: &mut Value,
    group: &str,
    resource: &str,
    new: &Value,
    old: Option<&Value>,
    now: Timestamp,
) -> Result<bool, String> {
    if !quota::selects(quota, group, resource, new) {
        return Ok(false);
    }
    let counted = |list: &Value| -> Amounts {
        amounts(list).into_iter().filter(|(name, _)| quota::counts(group, resource, name)).collect()
    };
    let (hard, used) = (counted(&quota["status"]["hard"]), counted(&quota["status"]["used"]));
    // What the controller has not counted yet is free, but a write tells it that its count is out of date.
    let uncounted = counted(&quota["spec"]["hard"]).keys().any(|name| !hard.contains_key(name));
    if hard.is_empty() {
        return Ok(uncounted);
    }
    let name = metadata::name(quota).to_string();
    if (group, resource) == ("", "pods")
        && let Some(why) = quota::missing(new, hard.keys().map(String::as_str))
    {
        return Err(format!("failed quota: {name}: {why}"));
    }
    if hard.keys().any(|name| !used.contains_key(name)) {
        let names: Vec<&str> = hard.keys().map(String::as_str).collect();
        return Err(format!("status unknown for quota: {name}, resources: {}", names.join(",")));
    }
    let mut growth = quota::usage(group, resource, new, now);
    if let Some(old) = old.filter(|old| quota::selects(quota, group, resource, old)) {
        let before = quota::usage(group, resource, old, now);
        quota::add(&mut growth, &before.into_iter().map(|(name, amount)| (name, amount.negate())).collect());
    }
    growth.retain(|name, amount| amount.sign() > 0 && hard.contains_key(name));
    let mut total = used.clone();
    quota::add(&mut total, &growth);
    let exceeded: Vec<&String> = growth.keys().filter(|name| total[*name] > hard[*name]).collect();
    if !exceeded.is_empty() {
        let shown = |amounts: &Amounts| {
            exceeded.iter().map(|name| format!("{name}={}", amounts[*name])).collect::<Vec<_>>().join(",")
        };
        let (requested, used, limited) = (shown(&growth), shown(&used), shown(&hard));
        return Err(format!("exceeded quota: {name}, requested: {requested}, used: {used}, limited: {limited}"));
    }
    for name in growth.keys() {
        quota.set(&["status", "used", name], total[name].to_string());
    }
    Ok(uncounted || !growth.is_empty())
}
