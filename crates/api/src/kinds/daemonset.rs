//! DaemonSet.

use super::prelude::*;
use super::{keep_all_but_status, pod_spec, templated};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::number("Desired", "").at("status.desiredNumberScheduled"),
        Column::number("Current", "").at("status.currentNumberScheduled"),
        Column::number("Ready", "").at("status.numberReady"),
        Column::number("Up-to-date", "").at("status.updatedNumberScheduled"),
        Column::number("Available", "").at("status.numberAvailable"),
        Column::text("Node Selector", ".spec.template.spec.nodeSelector")
            .by(|ds| labels(&ds["spec"]["template"]["spec"]["nodeSelector"]).into()),
        AGE,
        templated::CONTAINERS,
        templated::IMAGES,
        templated::SELECTOR,
    ],
    defaults,
    prepare_create: |ds| {
        new_object(ds, json!({"numberMisscheduled": 0, "numberReady": 0}));
        for count in ["currentNumberScheduled", "desiredNumberScheduled"] {
            ds.set(&["status", count], 0);
        }
        ds.set(&["metadata", "annotations", GENERATION], "1");
    },
    prepare_update,
    prepare_status_update: |new, old| {
        keep_all_but_status(new, old);
        if let Some(generation) = old.at(&["metadata", "annotations", GENERATION]) {
            new.set(&["metadata", "annotations", GENERATION], generation);
        }
    },
    rules: &[("spec.selector", Immutable)],
    validate,
    validate_status_update: |new, old| {
        const COUNTS: &[&str] = &[
            "currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady",
            "observedGeneration", "updatedNumberScheduled", "numberAvailable", "numberUnavailable", "collisionCount",
        ];
        templated::validate_counts(new, old, COUNTS, &[], "")
    },
    declared: pod_spec::DECLARED_OF_TEMPLATE,
    fixed_first: true,
    ..Kind::PLAIN
};

/// Compat: the count of template changes; upstream keeps it for clients of the removed v1beta1 API.
const GENERATION: &str = "deprecated.daemonset.template.generation";

fn defaults(ds: &mut Value) {
    pod_spec::template_defaults(ds, &["spec", "template"]);
    ds.set_default(&["metadata", "annotations", GENERATION], "0");
    let spec = ds.slot(&["spec"]);
    fill::text(spec.slot(&["updateStrategy"]), "type", "RollingUpdate");
    if spec.str_at(&["updateStrategy", "type"]) == Some("RollingUpdate") {
        spec.set_default(&["updateStrategy", "rollingUpdate", "maxUnavailable"], 1);
        spec.set_default(&["updateStrategy", "rollingUpdate", "maxSurge"], 0);
    }
    spec.set_default(&["revisionHistoryLimit"], 10);
}

fn prepare_update(new: &mut Value, old: &Value) {
    keep_status(new, old);
    let template_generation = old.str_at(&["metadata", "annotations", GENERATION]).and_then(|n| n.parse::<i64>().ok());
    let template_changed = new["spec"]["template"] != old["spec"]["template"];
    if let Some(n) = template_generation {
        new.set(&["metadata", "annotations", GENERATION], (n + i64::from(template_changed)).to_string());
    }
    count_change(new, old, &["spec"]);
}

fn validate(ds: &Value, errors: &mut Errors) {
    templated::validate(ds, "daemonset", errors);
    check(ds, &[("spec.minReadySeconds", NonNegative), ("spec.revisionHistoryLimit", NonNegative)], errors);
    let (strategy, path) = (&ds["spec"]["updateStrategy"], Path::new("spec.updateStrategy"));
    match strategy.str_at(&["type"]).unwrap_or_default() {
        "OnDelete" => {}
        "RollingUpdate" => {
            let at = path.child("rollingUpdate");
            let (unavailable, surge) =
                (&strategy["rollingUpdate"]["maxUnavailable"], &strategy["rollingUpdate"]["maxSurge"]);
            for (value, name) in [(unavailable, "maxUnavailable"), (surge, "maxSurge")] {
                templated::validate_count_or_percent(value, &at.child(name), errors);
                templated::validate_at_most_all(value, &at.child(name), errors);
            }
            match (templated::is_zero(unavailable), templated::is_zero(surge)) {
                (true, true) => {
                    let detail = "cannot be 0 when maxSurge is 0";
                    errors.push(Error::required(&at.child("maxUnavailable"), detail));
                }
                (false, false) => {
                    let detail = "may not be set when maxUnavailable is non-zero";
                    errors.push(Error::invalid(&at.child("maxSurge"), surge, detail));
                }
                _ => {}
            }
        }
        _ => errors.push(Error::not_supported(&path, strategy, &["RollingUpdate", "OnDelete"])),
    }
}
