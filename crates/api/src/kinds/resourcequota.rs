//! ResourceQuota.

use super::pod_spec;
use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Request", "What is used of the requests, out of how much.").by(|q| used(q, false)),
        Column::text("Limit", "What is used of the limits, out of how much.").by(|q| used(q, true)),
        AGE,
    ],
    prepare_create: |q| q.set(&["status"], Value::object()),
    validate,
    validate_update: |new, old| {
        let sorted = |q: &Value| {
            let scopes = q.array_at(&["spec", "scopes"]).iter();
            scopes.filter_map(|scope| scope.as_str().map(str::to_string)).collect::<std::collections::BTreeSet<_>>()
        };
        let scopes = new.array_at(&["spec", "scopes"]).to_vec();
        let error = || Error::invalid(&Path::new("spec.scopes"), scopes, "field is immutable");
        if sorted(new) != sorted(old) { vec![error()] } else { Errors::new() }
    },
    validate_status_update: |new, _| {
        let mut errors = Errors::new();
        for list in ["hard", "used"] {
            validate_list(&new["status"][list], &Path::new("status").child(list), &mut errors);
        }
        errors
    },
    ..Kind::PLAIN
};

const OF_PODS: &str = "cpu memory limits.cpu limits.memory requests.cpu requests.memory";
const OF_STORAGE: &str = "ephemeral-storage requests.ephemeral-storage limits.ephemeral-storage requests.storage";
const WHOLE: &str = "pods services replicationcontrollers resourcequotas secrets configmaps persistentvolumeclaims \
                     services.nodeports services.loadbalancers";
const SCOPES: &str = "Terminating NotTerminating BestEffort NotBestEffort CrossNamespacePodAffinity";
const SCOPES_BY_NAME: &str = "PriorityClass VolumeAttributesClass";

fn among(words: &str, name: &str) -> bool {
    words.split(' ').any(|word| word == name)
}

pub(super) fn is_standard(name: &str) -> bool {
    let huge = name.strip_prefix("requests.").unwrap_or(name).starts_with("hugepages-");
    [OF_PODS, OF_STORAGE, WHOLE].iter().any(|words| among(words, name)) || huge
}

/// Comes in whole numbers only.
pub(super) fn is_whole(name: &str) -> bool {
    among(WHOLE, name) || name.contains('/') && !name.contains("kubernetes.io/")
}

fn is_scope(scope: &str) -> bool {
    among(SCOPES, scope) || among(SCOPES_BY_NAME, scope)
}

fn fits(scope: &str, resource: &str) -> bool {
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => among("persistentvolumeclaims requests.storage", resource),
        _ => is_scope(scope) && (resource == "pods" || among(OF_PODS, resource)),
    }
}

fn validate_list(list: &Value, path: &Path, errors: &mut Errors) {
    for (name, amount) in list.as_object().into_iter().flat_map(|map| map.iter()) {
        let at = path.key(name);
        let mut wrong = names::qualified_name(name);
        if !name.contains('/') && !is_standard(name) {
            // Compat: both are said (validation of resource names, then of those of quotas).
            if wrong.is_empty() && name != "storage" {
                wrong.push("must be a standard resource type or fully qualified".into());
            }
            wrong.push("must be a standard resource for quota".into());
        }
        errors.extend(wrong.into_iter().map(|detail| Error::invalid(&at, name, detail)));
        let whole = is_whole(name);
        if let Some(quantity) = pod_spec::validate_quantity(amount, &at, errors)
            && whole
            && !quantity.is_whole()
        {
            errors.push(Error::invalid(&at, quantity.to_string(), "must be an integer"));
        }
    }
}

fn validate(q: &Value, errors: &mut Errors) {
    let spec = Path::new("spec");
    let hard = || q["spec"]["hard"].as_object().into_iter().flat_map(|map| map.keys());
    validate_list(&q["spec"]["hard"], &spec.child("hard"), errors);
    let expressions = q.array_at(&["spec", "scopeSelector", "matchExpressions"]);
    let plain: Vec<&Value> = q.array_at(&["spec", "scopes"]).iter().collect();
    let named = expressions.iter().map(|expression| &expression["scopeName"]).collect();
    for (list, scopes) in [("scopes", plain), ("scopeSelector", named)] {
        let named = if list == "scopes" { list } else { "scopeSelector.matchExpressions" };
        let (at, value) =
            (spec.child(named), if list == "scopes" { &q["spec"][list] } else { &q["spec"][list]["matchExpressions"] });
        for own in &scopes {
            let scope = own.as_str().unwrap_or_default();
            if !is_scope(scope) {
                let (at, value) =
                    if list == "scopes" { (at.clone(), value.clone()) } else { (at.child("scopeName"), scope.into()) };
                errors.push(Error::invalid(&at, value, "unsupported scope"));
                continue;
            }
            if hard().any(|name| is_standard(name) && !fits(scope, name)) {
                errors.push(Error::invalid(&at, value, "unsupported scope applied to resource"));
            }
        }
        for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
            if pair.iter().all(|scope| scopes.iter().any(|own| own.as_str() == Some(scope))) {
                errors.push(Error::invalid(&at, value, "conflicting scopes"));
            }
        }
    }
    for expression in expressions {
        validate_expression(expression, &spec.child("scopeSelector.matchExpressions"), errors);
    }
}

fn validate_expression(expression: &Value, at: &Path, errors: &mut Errors) {
    let operator = expression.str_at(&["operator"]).unwrap_or_default();
    let operator_at = at.child("operator");
    if expression.str_at(&["scopeName"]).is_some_and(|scope| among(SCOPES, scope)) && operator != "Exists" {
        let detail = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                      ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                      ResourceQuotaScopeCrossNamespacePodAffinity";
        errors.push(Error::invalid(&operator_at, operator, detail));
    }
    let values = &expression["values"];
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            errors.push(Error::required(&at.child("values"), detail));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
            errors.push(Error::invalid(&at.child("values"), values, detail));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        _ => errors.push(Error::invalid(&operator_at, operator, "not a valid selector operator")),
    }
}

fn used(q: &Value, of_limits: bool) -> Cell {
    let hard = q["status"]["hard"].as_object().into_iter().flat_map(|hard| hard.iter());
    let parts = hard.filter(|(resource, _)| resource.starts_with("limits") == of_limits).map(|(resource, amount)| {
        let used = Some(text(q, &["status", "used", resource])).filter(|used| !used.is_empty()).unwrap_or("0");
        format!("{resource}: {used}/{}", amount.as_str().unwrap_or_default())
    });
    parts.collect::<Vec<_>>().join(", ").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong() {
        golden::check!("resourcequota/faults.txt", |spec| {
            let mut quota = json!({});
            quota.set(&["spec"], meta::parse(spec.as_bytes()).expect("JSON"));
            let mut errors = Errors::new();
            validate(&quota, &mut errors);
            errors.iter().map(|e| format!("{e}\n")).collect()
        });
    }
}
