//! Validation of amounts: `resources` of containers and claims, and resource lists elsewhere.

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
    STANDARD.contains(&name)
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

/// Checks `resources` of a container.
pub(super) fn validate(resources: &Value, path: &Path, errors: &mut Errors) {
    let list = |which: &str| resources[which].as_object().cloned().unwrap_or_default();
    let (limits, requests) = (list("limits"), list("requests"));
    let (limits_at, requests_at) = (path.child("limits"), path.child("requests"));
    for (name, amount) in limits.iter() {
        let at = limits_at.key(name);
        validate_container_resource_name(name, &at, errors);
        check_amount(name, amount, &at, errors);
    }
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
    Some(quantity)
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
