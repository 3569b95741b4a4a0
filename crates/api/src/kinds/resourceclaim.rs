//! ResourceClaim.

use super::devices;
use super::prelude::*;

mod status;

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::text("State", "Whether the claim is allocated and reserved.").by(state), AGE],
    defaults: |c| fill::at(c, &["spec"], spec_defaults),
    prepare_create: |c| c.set(&["status"], Value::object()),
    rules: &[("spec", Fixed)],
    validate_create: |c| {
        let mut errors = Errors::new();
        devices::validate_claim(&c["spec"]["devices"], &Path::new("spec.devices"), &mut errors);
        errors
    },
    validate_status_update: status::validate,
    status_restores: &OWN_METADATA,
    ..Kind::PLAIN
};

fn state(c: &Value) -> Cell {
    let deleted = !c["metadata"]["deletionTimestamp"].is_null();
    let allocated = !c["status"]["allocation"].is_null();
    let reserved = allocated && !c.array_at(&["status", "reservedFor"]).is_empty();
    let all =
        [("deleted", deleted), ("pending", !deleted && !allocated), ("allocated", allocated), ("reserved", reserved)];
    all.into_iter().filter(|(_, is)| *is).map(|(word, _)| word).collect::<Vec<_>>().join(",").into()
}

/// Defaults of a claim's spec, also inside a template.
pub(super) fn spec_defaults(spec: &mut Value) {
    let request = |request: &mut Value| {
        fill::text(request, "allocationMode", "ExactCount");
        if request.str_at(&["allocationMode"]) == Some("ExactCount") && request.int_at(&["count"]).unwrap_or(0) == 0 {
            request.set(&["count"], 1);
        }
        fill::each(request, &["tolerations"], |t| fill::text(t, "operator", "Equal"));
    };
    fill::each(spec, &["devices", "requests"], |entry| {
        // An entry that is itself the request: of v1beta1.
        if !entry["deviceClassName"].is_empty() {
            request(entry);
        }
        fill::at(entry, &["exactly"], request);
        fill::each(entry, &["firstAvailable"], request);
    });
}
