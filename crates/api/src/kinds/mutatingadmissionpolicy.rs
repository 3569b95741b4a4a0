//! MutatingAdmissionPolicy.

use super::admissionpolicy::{PARAM_KIND, POLICY};
use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::number("Mutations", "How many mutations there are.").count("spec.mutations"),
        PARAM_KIND,
        AGE,
    ],
    prepare_create: first_generation,
    prepare_update: |new, old| count_change(new, old, &["spec"]),
    validate: |policy, errors| {
        let own =
            [("spec.mutations", Required("")), ("spec.reinvocationPolicy", RequiredOneOf(&["IfNeeded", "Never"]))];
        check(policy, &own, errors);
    },
    ..POLICY
};
