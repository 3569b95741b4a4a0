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
        validate_operations(&policy["spec"]["matchConstraints"], &Path::new("spec.matchConstraints"), errors);
        for (i, mutation) in policy.array_at(&["spec", "mutations"]).iter().enumerate() {
            validate_mutation(mutation, &Path::new("spec.mutations").index(i), errors);
        }
        let own: &[Rule] = &[
            ("spec.mutations", Required("mutations must contain at least one item")),
            ("spec.reinvocationPolicy", RequiredOneOf(&["IfNeeded", "Never"])),
        ];
        check(policy, own, errors);
    },
    ..POLICY
};

/// Nothing is left to change where something is deleted.
pub(super) fn validate_operations(constraints: &Value, at: &Path, errors: &mut Errors) {
    const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "UPDATE"];
    let at = at.child("resourceRules").child("operations");
    let rules = constraints.array_at(&["resourceRules"]).iter();
    let all = rules.flat_map(|rule| rule.array_at(&["operations"])).filter_map(Value::as_str);
    errors.extend(all.filter(|op| !OPERATIONS.contains(op)).map(|op| Error::not_supported(&at, op, OPERATIONS)));
}

fn validate_mutation(mutation: &Value, at: &Path, errors: &mut Errors) {
    const TYPES: &[&str] = &["ApplyConfiguration", "JSONPatch"];
    let patch_type = text(mutation, &["patchType"]);
    let (own, other) = match patch_type {
        "ApplyConfiguration" => ("applyConfiguration", "jsonPatch"),
        "JSONPatch" => ("jsonPatch", "applyConfiguration"),
        "" => return errors.push(Error::required(&at.child("patchType"), "")),
        unknown => return errors.push(Error::not_supported(&at.child("patchType"), unknown, TYPES)),
    };
    if mutation[own].is_null() {
        let detail = format!("must be specified when patchType is {patch_type}");
        errors.push(Error::required(&at.child(own), detail));
    }
    if !mutation[other].is_null() {
        let detail = format!("must not be specified when patchType is {patch_type}");
        errors.push(Error::invalid(&at.child(other), format!("{{{other}}}"), detail));
    }
}
