//! LimitRange.

use super::columns::NAME_AND_CREATED_AT;
use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: NAME_AND_CREATED_AT,
    defaults: |l| fill::each(l, &["spec", "limits"], limit_defaults),
    rules: &[("spec.limits[].type", Required(""))],
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
