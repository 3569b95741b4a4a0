//! MutatingAdmissionPolicy.

use super::admissionpolicy::{PARAM_KIND, POLICY, validate_policy};
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
        validate_policy(policy, errors);
        let own: &[Rule] = &[
            ("spec.mutations", Required("mutations must contain at least one item")),
            ("spec.reinvocationPolicy", RequiredOneOf(&["IfNeeded", "Never"])),
        ];
        check(policy, own, errors);
    },
    ..POLICY
};
