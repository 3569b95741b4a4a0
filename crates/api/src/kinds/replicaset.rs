//! ReplicaSet.

use super::prelude::*;
use super::{pod_spec, templated};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        templated::DESIRED,
        templated::CURRENT,
        templated::READY,
        AGE,
        templated::CONTAINERS,
        templated::IMAGES,
        templated::SELECTOR,
    ],
    defaults: |rs| {
        pod_spec::template_defaults(rs, &["spec", "template"]);
        rs.set_default(&["spec", "replicas"], 1);
    },
    prepare_create: |rs| new_object(rs, json!({"replicas": 0})),
    prepare_update: keep_status_count_spec,
    rules: &[("spec.replicas", NonNegative), ("spec.minReadySeconds", NonNegative), ("spec.selector", Immutable)],
    validate: |rs, errors| templated::validate(rs, "replicaset", errors),
    validate_status_update: templated::validate_replica_counts,
    declared: pod_spec::DECLARED_OF_TEMPLATE,
    ..Kind::PLAIN
};
