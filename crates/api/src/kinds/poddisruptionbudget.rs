//! PodDisruptionBudget.

use meta::field::{Error, Errors, Path};
use meta::selector::LabelSelector;
use meta::{Value, names};

use super::columns::{AGE, Cell, Column, NAME, age, int, name};
use super::rules::{Check, check};
use super::{Kind, first_generation, keep_status_count_spec, templated};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Min Available", "The minimum number of pods that must be available."),
        Column::text("Max Unavailable", "The maximum number of pods that may be unavailable."),
        Column::number("Allowed Disruptions", "How many pods may be disrupted now."),
        AGE,
    ],
    row: Some(|b, now| {
        let amount = |field: &str| -> Cell {
            match &b["spec"][field] {
                Value::Null => "N/A".into(),
                Value::String(s) => s.as_str().into(),
                number => number.to_string().into(),
            }
        };
        let allowed = int(b, &["status", "disruptionsAllowed"]);
        vec![name(b), amount("minAvailable"), amount("maxUnavailable"), allowed.into(), age(b, now)]
    }),
    name_rule: names::path_segment,
    prepare_create: |b| {
        b.set(
            &["status"],
            meta::json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0}),
        );
        first_generation(b);
    },
    prepare_update: keep_status_count_spec,
    validate_create: validate,
    validate_update: |new, _| validate(new),
    validate_status_update: |new, _| {
        let mut errors = Errors::new();
        const COUNTS: [&str; 4] = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
        super::rules::check_at(
            &new["status"],
            &Path::new("status"),
            &COUNTS.map(|c| (c, Check::NonNegative)),
            &mut errors,
        );
        errors
    },
    unconditional_update: false,
    ..Kind::PLAIN
};

fn validate(b: &Value) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    let (min, max) = (&b["spec"]["minAvailable"], &b["spec"]["maxUnavailable"]);
    if !min.is_null() && !max.is_null() {
        let detail = "minAvailable and maxUnavailable cannot be both set";
        errors.push(Error::invalid(&path, &b["spec"], detail));
    }
    for (value, field) in [(min, "minAvailable"), (max, "maxUnavailable")] {
        templated::validate_count_or_percent(value, &path.child(field), &mut errors);
        templated::validate_at_most_all(value, &path.child(field), &mut errors);
    }
    errors.extend(LabelSelector::validate(&b["spec"]["selector"], &path.child("selector")));
    check(
        b,
        &[("spec.unhealthyPodEvictionPolicy", Check::GivenOneOf(&["AlwaysAllow", "IfHealthyBudget"]))],
        &mut errors,
    );
    errors
}
