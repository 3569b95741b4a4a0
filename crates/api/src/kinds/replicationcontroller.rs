//! ReplicationController.

use super::prelude::*;
use super::{pod_spec, templated};
use meta::selector::LabelSelector;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        templated::DESIRED,
        templated::CURRENT,
        templated::READY,
        AGE,
        templated::CONTAINERS,
        templated::IMAGES,
        templated::SELECTOR.by(|rc| labels(&rc["spec"]["selector"]).into()),
    ],
    defaults,
    prepare_create: |rc| new_object(rc, json!({"replicas": 0})),
    prepare_update: keep_status_count_spec,
    orphans: true,
    rules: &[("spec.replicas", NonNegative), ("spec.minReadySeconds", NonNegative)],
    validate,
    selectable: |rc| vec![("status.replicas", int(rc, &["status", "replicas"]).to_string())],
    selectable_names: &["status.replicas"],
    validate_status_update: templated::validate_replica_counts,
    declared: pod_spec::DECLARED_OF_TEMPLATE,
    ..Kind::PLAIN
};

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

fn validate(rc: &Value, errors: &mut Errors) {
    let selector = rc["spec"]["selector"].as_object().filter(|s| !s.is_empty()).map(LabelSelector::from_labels);
    if selector.is_none() {
        errors.push(Error::required(&Path::new("spec.selector"), ""));
    }
    if rc["spec"]["template"].is_null() {
        errors.push(Error::required(&Path::new("spec.template"), ""));
    } else {
        pod_spec::validate_template(rc, selector.as_ref(), errors);
        templated::validate_runs_for_ever(rc, "replicationcontroller", errors);
    }
}
