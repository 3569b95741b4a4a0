//! MutatingAdmissionPolicy.

use meta::Value;
use meta::field::Errors;

use super::admissionpolicy::{PARAM_KIND, POLICY_RULES, param_kind, policy_defaults};
use super::columns::{AGE, Column, NAME, age, name};
use super::rules::{Check, check};
use super::{Kind, count_change, first_generation};

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::number("Mutations", "How many mutations there are."), PARAM_KIND, AGE],
    row: |p, now| vec![name(p), p.array_at(&["spec", "mutations"]).len().into(), param_kind(p), age(p, now)],
    defaults: policy_defaults,
    prepare_create: first_generation,
    prepare_update: |new, old| count_change(new, old, &["spec"]),
    validate_create: validate,
    validate_update: |new, _| validate(new),
    ..Kind::PLAIN
};

fn validate(policy: &Value) -> Errors {
    let mut errors = Errors::new();
    check(policy, POLICY_RULES, &mut errors);
    let rules = &[
        ("spec.mutations", Check::Required("")),
        ("spec.reinvocationPolicy", Check::RequiredOneOf(&["IfNeeded", "Never"])),
    ];
    check(policy, rules, &mut errors);
    errors
}
