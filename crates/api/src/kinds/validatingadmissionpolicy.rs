//! ValidatingAdmissionPolicy.

use super::admissionpolicy::{PARAM_KIND, POLICY};
use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::number("Validations", "How many validations there are.").count("spec.validations"),
        PARAM_KIND,
        AGE,
    ],
    prepare_create: |p| new_object(p, Value::object()),
    prepare_update: keep_status_count_spec,
    validate,
    ..POLICY
};

fn validate(policy: &Value, errors: &mut Errors) {
    let reasons = &["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
    check(policy, &[("spec.validations[].reason", OneOf(reasons))], errors);
    let lists = ["validations", "auditAnnotations"];
    if lists.iter().all(|list| policy.array_at(&["spec", list]).is_empty()) {
        let detail = "validations or auditAnnotations must contain at least one item";
        errors.extend(lists.map(|list| Error::required(&Path::new("spec").child(list), detail)));
    }
}
