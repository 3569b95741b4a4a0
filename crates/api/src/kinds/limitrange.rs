//! LimitRange.

use std::collections::HashSet;

use super::columns::NAME_AND_CREATED_AT;
use super::pod_spec::{validate_container_resource_name, validate_resource_name};
use super::prelude::*;
use meta::quantity::Quantity;

pub static KIND: Kind = Kind {
    columns: NAME_AND_CREATED_AT,
    defaults: |l| fill::each(l, &["spec", "limits"], limit_defaults),
    validate,
    create_on_update: true,
    ..Kind::PLAIN
};

/// A container's default limit is the maximum, its default request the limit or the minimum.
fn limit_defaults(limit: &mut Value) {
    if limit.str_at(&["type"]) != Some("Container") {
        return;
    }
    for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
        if let Some(Value::Object(amounts)) = limit.get(from).cloned() {
            for (name, amount) in amounts.iter() {
                limit.set_default(&[to, name], amount);
            }
        }
    }
}

const TYPES: [&str; 3] = ["Container", "Pod", "PersistentVolumeClaim"];

fn validate(l: &Value, errors: &mut Errors) {
    let limits = l.array_at(&["spec", "limits"]);
    let mut known = HashSet::new();
    for (i, limit) in limits.iter().enumerate() {
        let at = Path::new("spec.limits").index(i);
        let (ty, ty_at) = (text(limit, &["type"]), at.child("type"));
        let mut wrong = names::qualified_name(ty);
        if wrong.is_empty() && !ty.contains('/') && !TYPES.contains(&ty) {
            wrong.push("must be a standard limit type or fully qualified".into());
        }
        errors.extend(wrong.into_iter().map(|m| Error::invalid(&ty_at, ty, m)));
        if !known.insert(ty) {
            errors.push(Error::duplicate(&ty_at, ty));
        }
        validate_names(limit, ty, &at, errors);
        let amounts = |list: &str| limit[list].as_object().into_iter().flat_map(|map| map.keys());
        let mut resources: Vec<&str> = LISTS.into_iter().flat_map(amounts).collect();
        resources.sort_unstable();
        resources.dedup();
        for resource in resources {
            validate_amounts(limit, resource, &at, errors);
        }
    }
}

const LISTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

/// The names of the resources of each list.
fn validate_names(limit: &Value, ty: &str, at: &Path, errors: &mut Errors) {
    for list in LISTS {
        let map = limit[list].as_object().filter(|map| !map.is_empty());
        if ty == "Pod" && list.starts_with("default") {
            if map.is_some() {
                errors.push(Error::forbidden(&at.child(list), "may not be specified when `type` is 'Pod'"));
            }
            continue;
        }
        if list == "maxLimitRequestRatio" && ty == "PersistentVolumeClaim" {
            let has = |list: &str| !limit[list]["storage"].is_null();
            if !has("min") && !has("max") {
                let detail = "either minimum or maximum storage value is required, but neither was provided";
                errors.push(Error::required(&at.child("limits"), detail));
            }
        }
        for name in map.into_iter().flat_map(|map| map.keys()) {
            let at = at.child(list).key(name);
            match ty {
                "Container" | "Pod" => validate_container_resource_name(name, &at, errors),
                _ => validate_resource_name(name, &at, errors),
            }
        }
    }
}

/// The amounts of one resource, against each other.
fn validate_amounts(limit: &Value, resource: &str, at: &Path, errors: &mut Errors) {
    let amount = |list: &str| limit.str_at(&[list, resource]).and_then(|text| Quantity::parse(text).ok());
    let (min, max, ratio) = (amount("min"), amount("max"), amount("maxLimitRequestRatio"));
    let (default, request) = (amount("default"), amount("defaultRequest"));
    let mut below =
        |low: (&str, Option<Quantity>), high: (&str, Option<Quantity>), list: &str, shown: Option<Quantity>| {
            if let (Some(a), Some(b), Some(shown)) = (low.1, high.1, shown)
                && a > b
            {
                let detail = format!("{} value {a} is greater than {} value {b}", low.0, high.0);
                errors.push(Error::invalid(&at.child(list).key(resource), shown.to_string(), detail));
            }
        };
    below(("min", min), ("max", max), "min", min);
    below(("min", min), ("default request", request), "defaultRequest", request);
    below(("default request", request), ("max", max), "defaultRequest", request);
    below(("default request", request), ("default limit", default), "defaultRequest", request);
    below(("min", min), ("default", default), "default", min);
    below(("default", default), ("max", max), "default", max);
    if let Some(ratio) = ratio {
        let at = at.child("maxLimitRequestRatio").key(resource);
        if ratio.as_f64() < 1.0 {
            errors.push(Error::invalid(&at, ratio.to_string(), format!("ratio {ratio} is less than 1")));
        }
        if let (Some(min), Some(max)) = (min, max)
            && ratio.as_f64() > max.as_f64() / min.as_f64()
        {
            let detail = format!("ratio {ratio} is greater than max/min = {:.6}", max.as_f64() / min.as_f64());
            errors.push(Error::invalid(&at, ratio.to_string(), detail));
        }
    }
    // What nodes can't promise twice has one amount.
    if let (Some(default), Some(request)) = (default, request)
        && (resource.contains('/') || resource.starts_with("hugepages-"))
        && default != request
    {
        let detail = format!("default value {default} must equal to defaultRequest value {request} in {resource}");
        errors.push(Error::invalid(&at.child("defaultRequest").key(resource), request.to_string(), detail));
    }
}
