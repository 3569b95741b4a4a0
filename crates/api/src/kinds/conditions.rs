//! Conditions in a status, where upstream checks them. Source: the API conventions, "Typical status properties".

use std::collections::HashSet;

use super::prelude::*;

const REASON: &str = "a condition reason must start with alphabetic character, optionally followed by a string of \
    alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  \
    or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is \
    '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";

const TYPE: &[Rule] =
    &[("type", Name(names::qualified_name)), ("status", RequiredOneOf(&["False", "True", "Unknown"]))];
const REST: &[Rule] = &[
    ("lastTransitionTime", Required("")),
    ("reason", Required("")),
    ("reason", Name(reason)),
    ("reason", MaxBytes(1024)),
    ("message", MaxBytes(32 * 1024)),
];

fn reason(text: &str) -> Vec<String> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let fits = text.bytes().all(|b| word(b) || b == b',' || b == b':')
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
        && text.bytes().last().is_some_and(word);
    if fits { vec![] } else { vec![REASON.into()] }
}

/// What is wrong with the conditions of an object's status.
pub(super) fn validate(object: &Value) -> Errors {
    let (mut errors, path) = (Errors::new(), Path::new("status.conditions"));
    let mut met = HashSet::new();
    for (i, condition) in object.array_at(&["status", "conditions"]).iter().enumerate() {
        let (at, ty) = (path.index(i), text(condition, &["type"]));
        if ty.is_empty() {
            errors.push(Error::required(&at.child("type"), "is required"));
        }
        if !met.insert(ty) {
            errors.push(Error::duplicate(&at, ty));
        }
        check_at(condition, &at, TYPE, &mut errors);
        let observed = condition.int_at(&["observedGeneration"]).filter(|n| *n < 0);
        errors.extend(
            observed
                .map(|n| Error::invalid(&at.child("observedGeneration"), n, "must be greater than or equal to zero")),
        );
        check_at(condition, &at, REST, &mut errors);
    }
    errors
}

/// The condition of this type, if there is one.
pub(super) fn find<'v>(object: &'v Value, ty: &str) -> Option<&'v Value> {
    object.array_at(&["status", "conditions"]).iter().find(|condition| text(condition, &["type"]) == ty)
}

/// The condition of this type that is true, if there is one.
pub(super) fn holding<'v>(object: &'v Value, ty: &str) -> Option<&'v Value> {
    let is = |condition: &&Value| text(condition, &["type"]) == ty && text(condition, &["status"]) == "True";
    object.array_at(&["status", "conditions"]).iter().find(is)
}

/// Whether a condition of this type is true.
pub fn holds(object: &Value, ty: &str) -> bool {
    holding(object, ty).is_some()
}
