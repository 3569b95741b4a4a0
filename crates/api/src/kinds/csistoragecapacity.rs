//! CSIStorageCapacity.

use super::Kind;
use super::columns::{Column, NAME, name, text};
use super::rules::{Check, check, check_immutable};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("StorageClassName", "The class that the capacity is of."),
        Column::text("Capacity", "How much is left."),
    ],
    row: |c, _| vec![name(c), text(c, &["storageClassName"]).into(), text(c, &["capacity"]).into()],
    validate_create: |c| {
        let mut errors = Vec::new();
        check(c, &[("storageClassName", Check::Required(""))], &mut errors);
        errors
    },
    validate_update: |new, old| {
        let mut errors = Vec::new();
        let rules = [("nodeTopology", Check::Immutable), ("storageClassName", Check::Immutable)];
        check_immutable(new, old, &rules, &mut errors);
        errors
    },
    unconditional_update: false,
    ..Kind::PLAIN
};
