//! ClusterTrustBundle.

use super::Kind;
use super::columns::{Column, NAME, name, text};
use super::rules::{Check, check};

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::text("SignerName", "The signer whose roots these are.")],
    row: |b, _| vec![name(b), text(b, &["spec", "signerName"]).into()],
    name_rule: |_| Vec::new(),
    validate_create: |b| {
        let mut errors = Vec::new();
        check(b, &[("spec.trustBundle", Check::Required(""))], &mut errors);
        errors
    },
    selectable: |b| vec![("spec.signerName", text(b, &["spec", "signerName"]).to_string())],
    selectable_names: &["spec.signerName"],
    ..Kind::PLAIN
};
