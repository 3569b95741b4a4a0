//! Lease.

use meta::field::Errors;

use super::Kind;
use super::columns::{AGE, Column, NAME, age, name, text};
use super::rules::{Check, check};

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::text("Holder", "Who holds the lease."), AGE],
    row: |l, now| vec![name(l), text(l, &["spec", "holderIdentity"]).into(), age(l, now)],
    validate_create: validate,
    validate_update: |new, _| validate(new),
    create_on_update: true,
    unconditional_update: false,
    ..Kind::PLAIN
};

fn validate(l: &meta::Value) -> Errors {
    let mut errors = Errors::new();
    let rules = [("spec.leaseDurationSeconds", Check::Positive), ("spec.leaseTransitions", Check::NonNegative)];
    check(l, &rules, &mut errors);
    errors
}
