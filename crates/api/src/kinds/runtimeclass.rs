//! RuntimeClass.

use super::Kind;
use super::columns::{AGE, Column, NAME, age, name, text};
use super::rules::{Check, check, check_immutable};

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::text("Handler", "The configuration of the container runtime to use."), AGE],
    row: |r, now| vec![name(r), text(r, &["handler"]).into(), age(r, now)],
    validate_create: |r| {
        let mut errors = Vec::new();
        check(r, &[("handler", Check::Required("")), ("handler", Check::Name(meta::names::dns1123_label))], &mut errors);
        errors
    },
    validate_update: |new, old| {
        let mut errors = Vec::new();
        check_immutable(new, old, &[("handler", Check::Immutable)], &mut errors);
        errors
    },
    ..Kind::PLAIN
};
