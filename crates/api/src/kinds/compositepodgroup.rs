//! CompositePodGroup.

use super::prelude::*;
use super::{conditions, podgroup};

pub static KIND: Kind = Kind {
    columns: &[NAME, podgroup::POLICY, podgroup::WORKLOAD, AGE],
    defaults: podgroup::defaults,
    prepare_create: |group| group.set(&["status"], Value::object()),
    validate_status_update: |new, _| conditions::validate(new),
    declared: &[("", ("scheduling", "CompositePodGroup"))],
    status_restores: &OWN_METADATA,
    unconditional_update: false,
    ..Kind::PLAIN
};
