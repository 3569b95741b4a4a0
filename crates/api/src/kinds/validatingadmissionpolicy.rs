//! ValidatingAdmissionPolicy.

use std::collections::HashSet;

use super::admissionpolicy::{PARAM_KIND, POLICY, validate_policy};
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
    status_restores: &OWN_METADATA,
    ..POLICY
};

fn validate(policy: &Value, errors: &mut Errors) {
    validate_policy(policy, errors);
    let lists = ["validations", "auditAnnotations"];
    if lists.iter().all(|list| policy.array_at(&["spec", list]).is_empty()) {
        let detail = "validations or auditAnnotations must contain at least one item";
        errors.extend(lists.map(|list| Error::required(&Path::new("spec").child(list), detail)));
    }
    for (i, validation) in policy.array_at(&["spec", "validations"]).iter().enumerate() {
        let at = Path::new("spec.validations").index(i);
        for member in ["messageExpression", "message"] {
            let given = text(validation, &[member]);
            if !given.is_empty() && given.trim().is_empty() {
                errors.push(Error::invalid(&at.child(member), given, "must be non-empty if specified"));
            }
        }
        let message = text(validation, &["message"]);
        if message.trim().contains('\n') {
            errors.push(Error::invalid(&at.child("message"), message, "must not contain line breaks"));
        }
        let reasons = &["Forbidden", "Invalid", "RequestEntityTooLarge"];
        if text(validation, &["reason"]) != "Unauthorized" {
            check_at(validation, &at, &[("reason", GivenOneOf(reasons))], errors);
        }
    }
    let annotations = policy.array_at(&["spec", "auditAnnotations"]);
    if annotations.len() > ANNOTATIONS_MAX {
        let detail = format!("must not have more than {ANNOTATIONS_MAX} auditAnnotations");
        errors.push(Error::invalid(&Path::new("spec.auditAnnotations"), annotations.to_vec(), detail));
    }
    let mut known = HashSet::new();
    for (i, annotation) in annotations.iter().enumerate() {
        let (key, at) = (text(annotation, &["key"]), Path::new("spec.auditAnnotations").index(i).child("key"));
        let full = format!("{}/{key}", text(policy, &["metadata", "name"]));
        errors.extend(names::qualified_name(&full).into_iter().map(|m| Error::invalid(&at, key, m)));
        if !known.insert(key) {
            errors.push(Error::duplicate(&at, key));
        }
    }
}

const ANNOTATIONS_MAX: usize = 20;
