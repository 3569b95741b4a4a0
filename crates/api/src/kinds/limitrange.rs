//! LimitRange.

use meta::Value;

use super::columns::{NAME_AND_CREATED_AT, name_and_created_at};
use super::rules::{Check, check};
use super::{Kind, fill};

pub static KIND: Kind = Kind {
    columns: NAME_AND_CREATED_AT,
    row: name_and_created_at,
    defaults: |l| fill::each(l, &["spec", "limits"], limit_defaults),
    validate_create: |l| {
        let mut errors = Vec::new();
        check(l, &[("spec.limits[].type", Check::Required(""))], &mut errors);
        errors
    },
    ..Kind::PLAIN
};

/// A container's default limit is the maximum, its default request the limit or the minimum.
fn limit_defaults(limit: &mut Value) {
    if limit.str_at(&["type"]) != Some("Container") {
        return;
    }
    for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
        if let Some(Value::Object(amounts)) = limit.get(from).cloned() {
            for (name, amount) in amounts.iter() {
                limit.set_default(&[to, name], amount);
            }
        }
    }
}
