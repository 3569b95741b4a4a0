//! CertificateSigningRequest.

use meta::Value;
use meta::field::Errors;
use meta::time;

use super::columns::{AGE, Column, NAME, age, name, text};
use super::rules::{Check, check};
use super::{Kind, restore};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        AGE,
        Column::text("SignerName", "Who is asked to sign."),
        Column::text("Requestor", "Who asks."),
        Column::text("RequestedDuration", "How long the certificate shall last."),
        Column::text("Condition", "What became of the request."),
    ],
    row: |c, now| {
        let duration = c.int_at(&["spec", "expirationSeconds"]);
        let duration = duration.map_or("<none>".into(), time::human_seconds);
        vec![
            name(c),
            age(c, now),
            text(c, &["spec", "signerName"]).into(),
            text(c, &["spec", "username"]).into(),
            duration.into(),
            condition(c).into(),
        ]
    },
    prepare_create: |c| c.set(&["status"], Value::object()),
    prepare_update: |new, old| {
        restore(new, old, "status");
        restore(new, old, "spec");
    },
    validate_create: |c| {
        let mut errors = Errors::new();
        check(
            c,
            &[
                ("spec.request", Check::Required("")),
                ("spec.usages", Check::Required("usages is required")),
                ("spec.signerName", Check::Required("")),
            ],
            &mut errors,
        );
        errors
    },
    selectable: |c| vec![("spec.signerName", text(c, &["spec", "signerName"]).to_string())],
    selectable_names: &["spec.signerName"],
    ..Kind::PLAIN
};

fn condition(c: &Value) -> String {
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
    shown.join(",")
}
