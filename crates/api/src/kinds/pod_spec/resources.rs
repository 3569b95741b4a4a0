//! Validation of amounts: `resources` of containers and claims, and resource lists elsewhere.

use std::collections::BTreeSet;

use meta::field::{Error, Errors, Path};
use meta::quantity::Quantity;
use meta::{Value, names};

use crate::kinds::resourcequota::is_standard;

const STANDARD: &[&str] = &["cpu", "memory", "ephemeral-storage"];
const AT_LEAST_ZERO: &str = "must be greater than or equal to 0";

/// Checks one amount: a quantity, not negative.
pub fn validate_quantity(value: &Value, path: &Path, errors: &mut Errors) -> Option<Quantity> {
    let text = match value {
        Value::String(s) => s.to_string(),
        other => other.to_string(),
    };
    match Quantity::parse(&text) {
        Ok(quantity) => {
            if quantity.sign() < 0 {
                errors.push(Error::invalid(path, text, AT_LEAST_ZERO));
            }
            Some(quantity)
        }
        Err(error) => {
            errors.push(Error::invalid(path, text, error.to_string()));
            None
        }
    }
}

fn is_hugepages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Extended resources and huge pages can't be promised twice: requests equal limits.
fn may_overcommit(name: &str) -> bool {
    !is_hugepages(name) && (!name.contains('/') || name.contains("kubernetes.io/"))
}

/// Checks the name of any resource.
pub fn validate_resource_name(name: &str, path: &Path, errors: &mut Errors) {
    let mut wrong = names::qualified_name(name);
    if wrong.is_empty() && !name.contains('/') && !is_standard(name) && name != "storage" {
        wrong.push("must be a standard resource type or fully qualified".into());
    }
    errors.extend(wrong.into_iter().map(|m| Error::invalid(path, name, m)));
}

/// Checks the name of a resource that containers can ask for.
pub fn validate_container_resource_name(name: &str, path: &Path, errors: &mut Errors) {
    validate_resource_name(name, path, errors);
    if !name.contains('/') {
        if !STANDARD.contains(&name) && !is_hugepages(name) {
            errors.push(Error::invalid(path, name, "must be a standard resource for containers"));
        }
    } else if !name.contains("kubernetes.io/")
        && (name.starts_with("requests.") || !names::qualified_name(&format!("requests.{name}")).is_empty())
    {
        errors.push(Error::invalid(path, name, "doesn't follow extended resource name standard"));
    }
}

/// Checks what a pod takes beside its containers. Compat: as upstream calls the amounts of its container rules.
pub fn validate_overhead(amounts: &Value, path: &Path, errors: &mut Errors) {
    for (name, amount) in amounts.as_object().into_iter().flat_map(|m| m.iter()) {
        let at = path.child("limits").key(name);
        validate_container_resource_name(name, &at, errors);
        validate_quantity(amount, &at, errors);
    }
}

/// Checks `resources` of a container in a pod that has these claims.
pub(super) fn validate(resources: &Value, path: &Path, claims: &BTreeSet<&str>, errors: &mut Errors) {
    let given = |name: &str| ["limits", "requests"].iter().any(|list| !resources[*list][name].is_null());
    let list = |which: &str| resources[which].as_object().cloned().unwrap_or_default();
    let (limits, requests) = (list("limits"), list("requests"));
    let limits_at = path.child("limits");
    for (name, amount) in limits.iter() {
        let at = limits_at.key(name);
        validate_container_resource_name(name, &at, errors);
        check_amount(name, amount, &at, errors);
    }
    validate_requests(&limits, &requests, path, errors);
    let huge = |list: &meta::Map| list.keys().any(is_hugepages);
    if (huge(&limits) || huge(&requests)) && !given("cpu") && !given("memory") {
        errors.push(Error::forbidden(path, "HugePages require cpu or memory"));
    }
    validate_claims(resources, &path.child("claims"), claims, errors);
}

fn validate_requests(limits: &meta::Map, requests: &meta::Map, path: &Path, errors: &mut Errors) {
    let (limits_at, requests_at) = (path.child("limits"), path.child("requests"));
    for (name, amount) in requests.iter() {
        let at = requests_at.key(name);
        validate_container_resource_name(name, &at, errors);
        let Some(request) = check_amount(name, amount, &at, errors) else { continue };
        let limit = limits.get(name).and_then(Value::as_str).and_then(|t| Quantity::parse(t).ok());
        match limit {
            Some(limit) if !may_overcommit(name) && request != limit => {
                let detail = format!("must be equal to {name} limit of {limit}");
                errors.push(Error::invalid(&requests_at, amount, detail));
            }
            Some(limit) if request > limit => {
                let detail = format!("must be less than or equal to {name} limit of {limit}");
                errors.push(Error::invalid(&requests_at, amount, detail));
            }
            None if !may_overcommit(name) => {
                errors.push(Error::required(&limits_at, "Limit must be set for non overcommitable resources"));
            }
            _ => {}
        }
    }
}

fn check_amount(name: &str, amount: &Value, at: &Path, errors: &mut Errors) -> Option<Quantity> {
    let quantity = validate_quantity(amount, at, errors)?;
    if name.contains('/') && !quantity.is_whole() {
        errors.push(Error::invalid(at, amount, "must be an integer"));
    }
    let page = name.strip_prefix("hugepages-").and_then(|size| Quantity::parse(size).ok()).map(|q| q.value());
    if page.is_some_and(|page| page > 0 && quantity.value() % page != 0) {
        let detail = format!("{quantity} is not positive integer multiple of {name}");
        errors.push(Error::invalid(at, amount, detail));
    }
    Some(quantity)
}

/// Checks the claims that a container asks for, by name and request.
fn validate_claims(resources: &Value, path: &Path, known: &BTreeSet<&str>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (i, claim) in resources.array_at(&["claims"]).iter().enumerate() {
        let at = path.index(i);
        let text = |field: &str| claim.str_at(&[field]).unwrap_or_default();
        let (name, request) = (text("name"), text("request"));
        if name.is_empty() {
            errors.push(Error::required(&at, ""));
            continue;
        }
        // Who asks for all of a claim can't ask for a part of it too.
        let whole = seen.contains(&(name, "")) || request.is_empty() && seen.iter().any(|(n, _)| *n == name);
        if whole {
            errors.push(Error::duplicate(&at, name));
        } else if !seen.insert((name, request)) {
            errors.push(Error::duplicate(&at, format!("{name}/{request}")));
        }
        if !known.contains(name) {
            let names = known.iter().copied().collect::<Vec<_>>().join(", ");
            let of = if known.is_empty() { " which is empty".to_string() } else { format!(": {names}") };
            let detail = format!("must be one of the names in pod.spec.resourceClaims{of}");
            errors.push(Error::not_found(&at, name).with_detail(&detail));
        }
        if !request.is_empty() {
            let wrong = names::dns1123_label(request).into_iter();
            errors.extend(wrong.map(|m| Error::invalid(&at.child("request"), request, m)));
        }
    }
}

/// Checks `spec.resources` of a pod.
pub(super) fn validate_of_pod(spec: &Value, path: &Path, claims: &BTreeSet<&str>, errors: &mut Errors) {
    let resources = &spec["resources"];
    if resources.is_null() {
        return;
    }
    if spec.str_at(&["os", "name"]) == Some("windows") {
        return errors.push(Error::forbidden(path, "may not be set for a windows pod"));
    }
    if !resources["claims"].is_null() {
        errors.push(Error::forbidden(&path.child("claims"), "claims may not be set for Resources at pod-level"));
    }
    let list = |which: &str| resources[which].as_object().cloned().unwrap_or_default();
    for which in ["limits", "requests"] {
        for (name, amount) in list(which).iter() {
            let at = path.child(which).key(name);
            let before = errors.len();
            validate_resource_name(name, &at, errors);
            if errors.len() == before && !["cpu", "memory"].contains(&name) && !is_hugepages(name) {
                errors.push(Error::not_supported(&at, name, &["cpu", "hugepages-", "memory"]));
            }
            check_amount(name, amount, &at, errors);
        }
    }
    validate_sums(spec, path, errors);
    validate_claims(resources, &path.child("claims"), claims, errors);
}

/// What a pod may use as a whole, held against what its containers ask for.
fn validate_sums(spec: &Value, path: &Path, errors: &mut Errors) {
    let parse = |value: &Value| value.as_str().and_then(|text| Quantity::parse(text).ok());
    let whole = |which: &str, name: &str| parse(&spec["resources"][which][name]);
    for name in ["cpu", "memory"] {
        let (request, limit) = (whole("requests", name), whole("limits", name));
        if let (Some(request), Some(limit)) = (request, limit)
            && request > limit
        {
            let detail = format!("must be less than or equal to {name} limit of {limit}");
            errors.push(Error::invalid(&path.child("requests"), request.to_string(), detail));
        }
        let asked = spec.array_at(&["containers"]).iter().filter_map(|c| parse(&c["resources"]["requests"][name]));
        let sum = asked.fold(None, |sum: Option<Quantity>, q| Some(sum.map_or(q, |sum| sum.add(q))));
        if let (Some(request), Some(sum)) = (request, sum)
            && request < sum
        {
            let detail = format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.push(Error::invalid(&path.child("requests").key(name), request.to_string(), detail));
        }
        for (i, container) in spec.array_at(&["containers"]).iter().enumerate() {
            if let (Some(of_pod), Some(of_container)) = (limit, parse(&container["resources"]["limits"][name]))
                && of_container > of_pod
            {
                let at = path.child("containers").index(i).key(name).child("limits");
                let detail = format!("must be less than or equal to pod limits of {of_pod}");
                errors.push(Error::invalid(&at, of_container.to_string(), detail));
            }
        }
    }
}

/// Checks `spec.resources` of a PersistentVolumeClaim.
pub fn validate_claim_resources(resources: &Value, path: &Path, errors: &mut Errors) {
    let storage = &resources["requests"]["storage"];
    let at = path.key("storage");
    if storage.is_null() {
        errors.push(Error::required(&at, ""));
    } else if storage.as_str().and_then(|t| Quantity::parse(t).ok()).is_none_or(|quantity| quantity.sign() <= 0) {
        errors.push(Error::invalid(&at, storage, "must be greater than zero"));
    }
}
