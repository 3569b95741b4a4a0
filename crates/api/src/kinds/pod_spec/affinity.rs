//! Validation of where a pod may run: affinity, tolerations, spreading.

use std::collections::{HashMap, HashSet};

use meta::field::{Error, Errors, Path};
use meta::selector::LabelSelector;
use meta::{Value, names};

use crate::kinds::rules::{Check, Rule, check_at};

/// Checks `spec.affinity`.
pub(super) fn validate_affinity(affinity: &Value, path: &Path, errors: &mut Errors) {
    let node = &affinity["nodeAffinity"];
    let at = path.child("nodeAffinity");
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    if !node[required].is_null() {
        validate_node_selector(&node[required], &at.child(required), errors);
    }
    for (i, term) in node.array_at(&[preferred]).iter().enumerate() {
        let at = at.child(preferred).index(i);
        validate_weight(term, &at, errors);
        validate_node_term(&term["preference"], &at.child("preference"), errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let at = path.child(kind);
        for (i, term) in affinity.array_at(&[kind, required]).iter().enumerate() {
            validate_pod_term(term, &at.child(required).index(i), errors);
        }
        for (i, term) in affinity.array_at(&[kind, preferred]).iter().enumerate() {
            let at = at.child(preferred).index(i);
            validate_weight(term, &at, errors);
            validate_pod_term(&term["podAffinityTerm"], &at.child("podAffinityTerm"), errors);
        }
    }
}

fn validate_weight(term: &Value, path: &Path, errors: &mut Errors) {
    let weight = term.int_at(&["weight"]).unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.push(Error::invalid(&path.child("weight"), weight, "must be in the range 1-100"));
    }
}

/// Checks a NodeSelector (of node affinity or a volume).
pub fn validate_node_selector(selector: &Value, path: &Path, errors: &mut Errors) {
    let terms = selector.array_at(&["nodeSelectorTerms"]);
    if terms.is_empty() {
        let detail = "must have at least one node selector term";
        errors.push(Error::required(&path.child("nodeSelectorTerms"), detail));
    }
    for (i, term) in terms.iter().enumerate() {
        validate_node_term(term, &path.child("nodeSelectorTerms").index(i), errors);
    }
}

fn validate_node_term(term: &Value, path: &Path, errors: &mut Errors) {
    for (i, requirement) in term.array_at(&["matchExpressions"]).iter().enumerate() {
        validate_requirement(requirement, &path.child("matchExpressions").index(i), errors);
    }
    for (i, requirement) in term.array_at(&["matchFields"]).iter().enumerate() {
        let at = path.child("matchFields").index(i);
        let key = requirement.str_at(&["key"]).unwrap_or_default();
        if !["In", "NotIn"].contains(&requirement.str_at(&["operator"]).unwrap_or_default()) {
            let operator = requirement.str_at(&["operator"]).unwrap_or_default();
            errors.push(Error::invalid(&at.child("operator"), operator, "not a valid selector operator"));
        } else if requirement.array_at(&["values"]).len() != 1 {
            let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.push(Error::required(&at.child("values"), detail));
        }
        if key != "metadata.name" {
            errors.push(Error::invalid(&at.child("key"), key, "not a valid field selector key"));
            continue;
        }
        for (i, name) in requirement.array_at(&["values"]).iter().filter_map(Value::as_str).enumerate() {
            let wrong = names::dns1123_subdomain(name).into_iter();
            errors.extend(wrong.map(|m| Error::invalid(&at.child("values").index(i), name, m)));
        }
    }
}

fn validate_requirement(requirement: &Value, path: &Path, errors: &mut Errors) {
    let values = requirement.array_at(&["values"]);
    let operator = requirement.str_at(&["operator"]).unwrap_or_default();
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            let detail = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(Error::required(&path.child("values"), detail));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(Error::forbidden(&path.child("values"), detail));
        }
        "Gt" | "Lt" if values.len() != 1 => {
            let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.push(Error::required(&path.child("values"), detail));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.push(Error::invalid(&path.child("operator"), other, "not a valid selector operator")),
    }
    let key = requirement.str_at(&["key"]).unwrap_or_default();
    errors.extend(names::qualified_name(key).into_iter().map(|m| Error::invalid(&path.child("key"), key, m)));
    for (i, value) in values.iter().filter_map(Value::as_str).enumerate() {
        let at = path.child("values").index(i);
        errors.extend(names::label_value(value).into_iter().map(|m| Error::invalid(&at, value, m)));
    }
}

/// Checks a list of label keys that is worth nothing without a selector of labels.
fn validate_label_keys(holder: &Value, field: &str, path: &Path, errors: &mut Errors) {
    let (keys, path) = (holder.array_at(&[field]), path.child(field));
    if !keys.is_empty() && holder["labelSelector"].is_null() {
        return errors.push(Error::forbidden(&path, "must not be specified when labelSelector is not set"));
    }
    for (i, key) in keys.iter().filter_map(Value::as_str).enumerate() {
        errors.extend(names::qualified_name(key).into_iter().map(|m| Error::invalid(&path.index(i), key, m)));
    }
}

fn validate_pod_term(term: &Value, path: &Path, errors: &mut Errors) {
    for name in ["labelSelector", "namespaceSelector"] {
        errors.extend(LabelSelector::validate(&term[name], &path.child(name)));
    }
    for name in term.array_at(&["namespaces"]).iter().filter_map(Value::as_str) {
        let wrong = names::dns1123_label(name);
        errors.extend(wrong.into_iter().map(|m| Error::invalid(&path.child("namespace"), name, m)));
    }
    validate_label_keys(term, "matchLabelKeys", path, errors);
    validate_label_keys(term, "mismatchLabelKeys", path, errors);
    let mismatched: HashSet<&str> = term.array_at(&["mismatchLabelKeys"]).iter().filter_map(Value::as_str).collect();
    let both = |key: &Value| key.as_str().is_some_and(|key| mismatched.contains(key));
    for (i, key) in term.array_at(&["matchLabelKeys"]).iter().enumerate().filter(|(_, key)| both(key)) {
        let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
        errors.push(Error::invalid(&path.child("matchLabelKeys").index(i), key, detail));
    }
    let key = term.str_at(&["topologyKey"]).unwrap_or_default();
    if key.is_empty() {
        errors.push(Error::required(&path.child("topologyKey"), "can not be empty"));
    }
    let wrong = names::qualified_name(key);
    errors.extend(wrong.into_iter().map(|m| Error::invalid(&path.child("topologyKey"), key, m)));
}

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Checks tolerations.
pub fn validate_tolerations(tolerations: &[Value], path: &Path, errors: &mut Errors) {
    for (i, toleration) in tolerations.iter().enumerate() {
        let at = path.index(i);
        let text = |name: &str| toleration.str_at(&[name]).unwrap_or_default();
        let (key, operator, effect) = (text("key"), text("operator"), text("effect"));
        if !key.is_empty() {
            errors.extend(names::qualified_name(key).into_iter().map(|m| Error::invalid(&at.child("key"), key, m)));
        }
        if key.is_empty() && operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(Error::invalid(&at.child("operator"), operator, detail));
        }
        if !toleration["tolerationSeconds"].is_null() && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(Error::invalid(&at.child("effect"), effect, detail));
        }
        match operator {
            "" | "Equal" => {
                let wrong = names::label_value(text("value"));
                if !wrong.is_empty() {
                    errors.push(Error::invalid(&at.child("operator"), text("value"), wrong.join(";")));
                }
            }
            "Exists" if !text("value").is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                errors.push(Error::invalid(&at.child("operator"), text("value"), detail));
            }
            "Exists" => {}
            // Compat: what the gate TaintTolerationComparisonOperators would allow is among what upstream lists then.
            "Lt" | "Gt" => {
                errors.push(Error::not_supported(&at.child("operator"), operator, &["Equal", "Exists", "Lt", "Gt"]));
            }
            other => {
                errors.push(Error::not_supported(&at.child("operator"), other, &["Equal", "Exists"]));
            }
        }
        if !effect.is_empty() && !EFFECTS.contains(&effect) {
            errors.push(Error::not_supported(&at.child("effect"), effect, EFFECTS));
        }
    }
}

const INCLUSION: &[Rule] = &[
    ("nodeAffinityPolicy", Check::GivenOneOf(&["Honor", "Ignore"])),
    ("nodeTaintsPolicy", Check::GivenOneOf(&["Honor", "Ignore"])),
];

/// Checks `spec.topologySpreadConstraints`.
pub(super) fn validate_spread(spec: &Value, path: &Path, errors: &mut Errors) {
    let constraints = spec.array_at(&["topologySpreadConstraints"]);
    fn pair(constraint: &Value) -> [&str; 2] {
        ["topologyKey", "whenUnsatisfiable"].map(|field| constraint.str_at(&[field]).unwrap_or_default())
    }
    let last: HashMap<[&str; 2], usize> = constraints.iter().enumerate().map(|(i, c)| (pair(c), i)).collect();
    for (i, constraint) in constraints.iter().enumerate() {
        let at = path.index(i);
        let text = |name: &str| constraint.str_at(&[name]).unwrap_or_default();
        let skew = constraint.int_at(&["maxSkew"]).unwrap_or(0);
        if skew <= 0 {
            errors.push(Error::invalid(&at.child("maxSkew"), skew, "must be greater than zero"));
        }
        if text("topologyKey").is_empty() {
            errors.push(Error::required(&at.child("topologyKey"), "can not be empty"));
        }
        let when = text("whenUnsatisfiable");
        let supported: &[&str] = &["DoNotSchedule", "ScheduleAnyway"];
        if !supported.contains(&when) {
            errors.push(Error::not_supported(&at.child("whenUnsatisfiable"), when, supported));
        }
        if last.get(&pair(constraint)).is_some_and(|last| *last > i) {
            let shown = format!("{{{}, {}}}", text("topologyKey"), when);
            errors.push(Error::duplicate(&at.child("{topologyKey, whenUnsatisfiable}"), shown));
        }
        if let Some(n) = constraint.int_at(&["minDomains"]) {
            if n <= 0 {
                errors.push(Error::invalid(&at.child("minDomains"), n, "must be greater than zero"));
            }
            if when != "DoNotSchedule" {
                let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}");
                errors.push(Error::invalid(&at.child("minDomains"), n, detail));
            }
        }
        check_at(constraint, &at, INCLUSION, errors);
        validate_label_keys(constraint, "matchLabelKeys", &at, errors);
        errors.extend(LabelSelector::validate(&constraint["labelSelector"], &at.child("labelSelector")));
    }
}
