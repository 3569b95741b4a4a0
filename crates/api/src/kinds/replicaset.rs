//! ReplicaSet.

use meta::field::Errors;
use meta::time::Timestamp;
use meta::Value;

use super::columns::{AGE, Cell, Column, NAME, age, int, name};
use super::rules::{Check, check};
use super::{Kind, first_generation, keep_status_count_spec, pod_spec, workload};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::number("Desired", "Number of desired pods."),
        Column::number("Current", "Most recently observed number of pods."),
        Column::number("Ready", "Number of pods with a Ready condition."),
        AGE,
        workload::CONTAINERS,
        workload::IMAGES,
        workload::SELECTOR,
    ],
    row,
    defaults: |rs| {
        pod_spec::template_defaults(rs, &["spec", "template"]);
        rs.set_default(&["spec", "replicas"], 1);
    },
    prepare_create: |rs| {
        rs.set(&["status"], meta::json!({"replicas": 0}));
        first_generation(rs);
    },
    prepare_update: keep_status_count_spec,
    validate_create: validate,
    validate_update: |new, old| {
        let mut errors = validate(new);
        workload::validate_same_selector(new, old, &mut errors);
        errors
    },
    selectable: |rs| vec![("status.replicas", int(rs, &["status", "replicas"]).to_string())],
    selectable_names: &["status.replicas"],
    ..Kind::PLAIN
};

fn row(rs: &Value, now: Timestamp) -> Vec<Cell> {
    let mut cells = vec![
        name(rs),
        int(rs, &["spec", "replicas"]).into(),
        int(rs, &["status", "replicas"]).into(),
        int(rs, &["status", "readyReplicas"]).into(),
        age(rs, now),
    ];
    cells.extend(workload::wide_cells(rs, &["spec", "template"]));
    cells
}

fn validate(rs: &Value) -> Errors {
    let mut errors = Errors::new();
    let rules = [("spec.replicas", Check::NonNegative), ("spec.minReadySeconds", Check::NonNegative)];
    check(rs, &rules, &mut errors);
    workload::validate(rs, "replicaset", &mut errors);
    errors
}
