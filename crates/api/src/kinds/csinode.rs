//! CSINode.

use super::Kind;
use super::columns::{AGE, Column, NAME, age, name};
use super::rules::{Check, check};

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::number("Drivers", "How many drivers run on the node."), AGE],
    row: |c, now| vec![name(c), c.array_at(&["spec", "drivers"]).len().into(), age(c, now)],
    validate_create: |c| {
        let mut errors = Vec::new();
        let rules = [("spec.drivers[].name", Check::Required("")), ("spec.drivers[].nodeID", Check::Required(""))];
        check(c, &rules, &mut errors);
        errors
    },
    unconditional_update: false,
    ..Kind::PLAIN
};
