//! What the kinds that make pods from a template share: columns, the selector, the template.

use meta::Value;
use meta::field::{Error, Errors, Path};
use meta::selector::LabelSelector;

use super::columns::{Cell, Column, containers_and_images, int, selector};
use super::pod_spec;
use super::rules::{Check, Rule, check_at};

pub(super) const DESIRED: Column = Column::number("Desired", "").at("spec.replicas");
pub(super) const CURRENT: Column = Column::number("Current", "").at("status.replicas");
pub(super) const READY: Column = Column::number("Ready", "").at("status.readyReplicas");
pub(super) const CONTAINERS: Column = Column::text("Containers", "Names of each container in the template.")
    .by(|o| containers_and_images(&o["spec"]["template"]["spec"]).0.into())
    .wide();
pub(super) const IMAGES: Column = Column::text("Images", "Images referenced by each container in the template.")
    .by(|o| containers_and_images(&o["spec"]["template"]["spec"]).1.into())
    .wide();
pub(super) const SELECTOR: Column =
    Column::text("Selector", ".spec.selector").by(|o| selector(&o["spec"]["selector"]).into()).wide();

/// How many of the pods are ready.
pub(super) fn ready(object: &Value) -> Cell {
    format!("{}/{}", int(object, &["status", "readyReplicas"]), int(object, &["spec", "replicas"])).into()
}

/// Checks `spec.selector` and `spec.template` of a controller whose pods run for ever.
pub(super) fn validate(object: &Value, kind: &str, errors: &mut Errors) {
    let selector = validate_selector(object, kind, errors);
    pod_spec::validate_template(object, selector.as_ref(), errors);
    validate_runs_for_ever(object, kind, errors);
}

fn validate_selector(object: &Value, kind: &str, errors: &mut Errors) -> Option<LabelSelector> {
    let path = Path::new("spec.selector");
    let selector = &object["spec"]["selector"];
    if selector.is_null() {
        if kind != "daemonset" {
            errors.push(Error::required(&path, ""));
        }
        // Compat: upstream goes on with a selector that selects nothing, so that the template's labels are wrong too.
        return Some(LabelSelector::nothing());
    }
    let mut wrong = LabelSelector::validate(selector, &path);
    if !wrong.is_empty() {
        if ["deployment", "replicaset"].contains(&kind) {
            wrong.push(Error::invalid(&path, selector, "invalid label selector"));
        } else if kind == "statefulset" {
            wrong.push(Error::invalid(&path, selector, ""));
        }
        errors.extend(wrong);
        return None;
    }
    let parsed = LabelSelector::from_valid_object(selector);
    if parsed.is_everything() {
        let detail =
            format!("empty selector is invalid for {}", if kind == "replicaset" { "deployment" } else { kind });
        errors.push(Error::invalid(&path, selector, detail));
        return None;
    }
    Some(parsed)
}

/// Checks that the pods of a template do not end by themselves.
pub(super) fn validate_runs_for_ever(object: &Value, kind: &str, errors: &mut Errors) {
    let path = Path::new("spec.template.spec");
    let spec = &object["spec"]["template"]["spec"];
    let policy = spec.str_at(&["restartPolicy"]).unwrap_or_default();
    if policy != "Always" && !policy.is_empty() {
        errors.push(Error::not_supported(&path.child("restartPolicy"), policy, &["Always"]));
    }
    if !spec["activeDeadlineSeconds"].is_null() {
        let word = match kind {
            "deployment" | "replicaset" => "ReplicaSet",
            "daemonset" => "DaemonSet",
            "statefulset" => "StatefulSet",
            _ => "ReplicationController",
        };
        let detail = format!("activeDeadlineSeconds in {word} is not Supported");
        errors.push(Error::forbidden(&path.child("activeDeadlineSeconds"), detail));
    }
}

/// Checks the counts of a status: none is negative, those `bounded` are no more than its replicas, no more pods are
/// available than `ready`, and collisions are not forgotten.
pub(super) fn validate_counts(
    new: &Value,
    old: &Value,
    counts: &'static [&'static str],
    bounded: &[&str],
    ready: &str,
) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("status");
    let rules: Vec<Rule> = counts.iter().map(|count| (*count, Check::NonNegative)).collect();
    check_at(&new["status"], &path, &rules, &mut errors);
    let count = |field: &str| int(new, &["status", field]);
    let mut wrong = |field: &str, detail: String| {
        errors.push(Error::invalid(&path.child(field), count(field), detail));
    };
    for field in bounded.iter().filter(|field| count(field) > count("replicas")) {
        wrong(field, "cannot be greater than status.replicas".into());
    }
    if bounded.contains(&"availableReplicas") && count("availableReplicas") > count("readyReplicas") {
        wrong("availableReplicas", format!("cannot be greater than {ready}"));
    }
    if old.int_at(&["status", "collisionCount"]).is_some_and(|was| count("collisionCount") < was) {
        wrong("collisionCount", "cannot be decremented".into());
    }
    errors
}

/// As `validate_counts`, of what holds a number of pods without updating them.
pub(super) fn validate_replica_counts(new: &Value, old: &Value) -> Errors {
    const COUNTS: &[&str] = &[
        "replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration",
        "terminatingReplicas",
    ];
    validate_counts(new, old, COUNTS, &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"], "readyReplicas")
}

/// Checks a count or a percentage, such as `maxSurge`.
pub(super) fn validate_count_or_percent(value: &Value, path: &Path, errors: &mut Errors) {
    match value {
        Value::String(text) => {
            let number = text.strip_suffix('%').filter(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
            if number.is_none() {
                let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or \
                              '93%', regex used for validation is '[0-9]+%')";
                errors.push(Error::invalid(path, text.as_str(), detail));
            }
        }
        number => {
            if let Some(n) = number.as_i64().filter(|n| *n < 0) {
                errors.push(Error::invalid(path, n, "must be greater than or equal to 0"));
            }
        }
    }
}

/// A percentage may not exceed the whole.
pub(super) fn validate_at_most_all(value: &Value, path: &Path, errors: &mut Errors) {
    let percent = value.as_str().and_then(|t| t.strip_suffix('%')).and_then(|n| n.parse::<i64>().ok());
    if percent.is_some_and(|p| p > 100) {
        errors.push(Error::invalid(path, value, "must not be greater than 100%"));
    }
}

/// Zero as a count or a percentage.
pub(super) fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => text.strip_suffix('%').and_then(|n| n.parse::<i64>().ok()) == Some(0),
        number => number.as_i64() == Some(0),
    }
}

/// The volume mode and status that a claim template gets.
pub(super) fn claim_template_defaults(claim: &mut Value) {
    super::fill::text(claim, "apiVersion", "v1");
    super::fill::text(claim, "kind", "PersistentVolumeClaim");
    super::fill::text(claim.slot(&["spec"]), "volumeMode", "Filesystem");
    super::fill::text(claim.slot(&["status"]), "phase", "Pending");
}
