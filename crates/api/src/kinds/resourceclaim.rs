//! ResourceClaim.

use meta::Value;
use meta::field::{Error, Errors, Path};

use super::columns::{AGE, Column, NAME, age, name};
use super::{Kind, fill};

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::text("State", "Whether the claim is allocated and reserved."), AGE],
    row: |c, now| {
        let mut state = Vec::new();
        if !c["metadata"]["deletionTimestamp"].is_null() {
            state.push("deleted");
        }
        if c["status"]["allocation"].is_null() {
            if c["metadata"]["deletionTimestamp"].is_null() {
                state.push("pending");
            }
        } else {
            state.push("allocated");
            if !c.array_at(&["status", "reservedFor"]).is_empty() {
                state.push("reserved");
            }
        }
        vec![name(c), state.join(",").into(), age(c, now)]
    },
    defaults: |c| fill::at(c, &["spec"], spec_defaults),
    prepare_create: |c| c.set(&["status"], Value::object()),
    validate_update: |new, old| {
        let mut errors = Errors::new();
        if new["spec"] != old["spec"] {
            errors.push(Error::invalid(&Path::new("spec"), &new["spec"], "field is immutable"));
        }
        errors
    },
    ..Kind::PLAIN
};

/// Defaults of a claim's spec, also inside a template.
pub(super) fn spec_defaults(spec: &mut Value) {
    let request = |request: &mut Value| {
        if request["deviceClassName"].is_empty() {
            return;
        }
        fill::text(request, "allocationMode", "ExactCount");
        if request.str_at(&["allocationMode"]) == Some("ExactCount") && request.int_at(&["count"]).unwrap_or(0) == 0 {
            request.set(&["count"], 1);
        }
        fill::each(request, &["tolerations"], |t| fill::text(t, "operator", "Equal"));
    };
    fill::each(spec, &["devices", "requests"], |entry| {
        request(entry);
        fill::at(entry, &["exactly"], request);
        fill::each(entry, &["firstAvailable"], request);
    });
}
