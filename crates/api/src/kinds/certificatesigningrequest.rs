//! CertificateSigningRequest.

use super::prelude::*;
use super::restore;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        AGE,
        Column::text("SignerName", "Who is asked to sign.").at("spec.signerName"),
        Column::text("Requestor", "Who asks.").at("spec.username"),
        Column::text("RequestedDuration", "How long the certificate shall last.")
            .by(|c| c.int_at(&["spec", "expirationSeconds"]).map_or("<none>".into(), meta::time::human_seconds).into()),
        Column::text("Condition", "What became of the request.").by(condition),
    ],
    prepare_create: |c| c.set(&["status"], Value::object()),
    prepare_update: |new, old| {
        restore(new, old, "status");
        restore(new, old, "spec");
    },
    rules: &[
        ("spec.request", Required("")),
        ("spec.usages", Required("usages is required")),
        ("spec.signerName", Required("")),
    ],
    selectable: |c| vec![("spec.signerName", text(c, &["spec", "signerName"]).to_string())],
    selectable_names: &["spec.signerName"],
    ..Kind::PLAIN
};

fn condition(c: &Value) -> Cell {
    let mut shown: Vec<&str> = Vec::new();
    for ty in ["Approved", "Denied", "Failed"] {
        if c.array_at(&["status", "conditions"]).iter().any(|x| text(x, &["type"]) == ty) {
            shown.push(ty);
        }
    }
    if shown.is_empty() {
        shown.push("Pending");
    }
    if !c["status"]["certificate"].is_empty() {
        shown.push("Issued");
    }
    shown.join(",").into()
}
