//! ReplicationController.

use meta::Value;
use meta::field::{Error, Errors, Path};
use meta::selector::LabelSelector;
use meta::time::Timestamp;

use super::columns::{AGE, Cell, Column, NAME, age, containers_and_images, int, labels, name};
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
    defaults,
    prepare_create: |rc| {
        rc.set(&["status"], meta::json!({"replicas": 0}));
        first_generation(rc);
    },
    prepare_update: keep_status_count_spec,
    orphans: true,
    validate_create: validate,
    validate_update: |new, _| validate(new),
    selectable: |rc| vec![("status.replicas", int(rc, &["status", "replicas"]).to_string())],
    selectable_names: &["status.replicas"],
    ..Kind::PLAIN
};

fn row(rc: &Value, now: Timestamp) -> Vec<Cell> {
    let (names, images) = containers_and_images(&rc["spec"]["template"]["spec"]);
    vec![
        name(rc),
        int(rc, &["spec", "replicas"]).into(),
        int(rc, &["status", "replicas"]).into(),
        int(rc, &["status", "readyReplicas"]).into(),
        age(rc, now),
        names.into(),
        images.into(),
        labels(&rc["spec"]["selector"]).into(),
    ]
}

fn defaults(rc: &mut Value) {
    pod_spec::template_defaults(rc, &["spec", "template"]);
    rc.set_default(&["spec", "replicas"], 1);
    let template = rc.at(&["spec", "template", "metadata", "labels"]).filter(|l| !l.is_empty()).cloned();
    if let Some(labels) = template {
        for path in [&["spec", "selector"][..], &["metadata", "labels"][..]] {
            if rc.at(path).is_none_or(Value::is_empty) {
                rc.set(path, &labels);
            }
        }
    }
}

fn validate(rc: &Value) -> Errors {
    let mut errors = Errors::new();
    let rules = [("spec.replicas", Check::NonNegative), ("spec.minReadySeconds", Check::NonNegative)];
    check(rc, &rules, &mut errors);
    let selector = rc["spec"]["selector"].as_object().filter(|s| !s.is_empty()).map(LabelSelector::from_labels);
    if selector.is_none() {
        errors.push(Error::required(&Path::new("spec.selector"), ""));
    }
    if rc["spec"]["template"].is_null() {
        errors.push(Error::required(&Path::new("spec.template"), ""));
    } else {
        pod_spec::validate_template(rc, selector.as_ref(), &mut errors);
    }
    errors
}
