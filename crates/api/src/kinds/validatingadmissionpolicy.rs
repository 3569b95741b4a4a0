//! ValidatingAdmissionPolicy.

use meta::Value;
use meta::field::{Error, Errors, Path};

use super::admissionpolicy::{PARAM_KIND, POLICY_RULES, param_kind, policy_defaults};
use super::columns::{AGE, Column, NAME, age, name};
use super::rules::{Check, check};
use super::{Kind, first_generation, keep_status_count_spec};

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::number("Validations", "How many validations there are."), PARAM_KIND, AGE],
    row: |p, now| vec![name(p), p.array_at(&["spec", "validations"]).len().into(), param_kind(p), age(p, now)],
    defaults: policy_defaults,
    prepare_create: |p| {
        p.set(&["status"], Value::object());
        first_generation(p);
    },
    prepare_update: keep_status_count_spec,
    validate_create: validate,
    validate_update: |new, _| validate(new),
    ..Kind::PLAIN
};

fn validate(policy: &Value) -> Errors {
    let mut errors = Errors::new();
    check(policy, POLICY_RULES, &mut errors);
    let reasons = &["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
    check(policy, &[("spec.validations[].reason", Check::OneOf(reasons))], &mut errors);
    let spec = Path::new("spec");
    let lists = ["validations", "auditAnnotations"];
    if lists.iter().all(|list| policy.array_at(&["spec", list]).is_empty()) {
        let detail = "validations or auditAnnotations must contain at least one item";
        errors.extend(lists.map(|list| Error::required(&spec.child(list), detail)));
    }
    errors
}
