//! VolumeAttributesClass.

use super::columns::{AGE, Column, NAME, age, text};
use super::rules::{Check, check, check_immutable};
use super::Kind;

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::text("DriverName", "The CSI driver that knows the attributes."), AGE],
    row: |c, now| {
        let default = text(c, &["metadata", "annotations", "storageclass.kubernetes.io/is-default-class"]) == "true";
        let shown = text(c, &["metadata", "name"]);
        let shown = if default { format!("{shown} (default)") } else { shown.to_string() };
        vec![shown.into(), text(c, &["driverName"]).into(), age(c, now)]
    },
    validate_create: |c| {
        let mut errors = Vec::new();
        check(c, &[("driverName", Check::Required(""))], &mut errors);
        errors
    },
    validate_update: |new, old| {
        let mut errors = Vec::new();
        check_immutable(new, old, &[("driverName", Check::Immutable), ("parameters", Check::Immutable)], &mut errors);
        errors
    },
    ..Kind::PLAIN
};
