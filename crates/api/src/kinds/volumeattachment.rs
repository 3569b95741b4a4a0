//! VolumeAttachment.

use meta::field::{Error, Errors, Path};

use super::Kind;
use super::columns::{AGE, Column, NAME, age, name, text};
use super::rules::{Check, check};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Attacher", "Who attaches the volume."),
        Column::text("PV", "The volume."),
        Column::text("Node", "The node that the volume is attached to."),
        Column::flag("Attached", "Whether the volume is attached."),
        AGE,
    ],
    row: |a, now| {
        vec![
            name(a),
            text(a, &["spec", "attacher"]).into(),
            text(a, &["spec", "source", "persistentVolumeName"]).into(),
            text(a, &["spec", "nodeName"]).into(),
            a.bool_at(&["status", "attached"]).unwrap_or(false).into(),
            age(a, now),
        ]
    },
    prepare_create: |a| a.set(&["status"], meta::json!({"attached": false})),
    validate_create: |a| {
        let mut errors = Errors::new();
        check(a, &[("spec.attacher", Check::Required("")), ("spec.nodeName", Check::Required(""))], &mut errors);
        errors
    },
    validate_update: |new, old| {
        let mut errors = Errors::new();
        if new["spec"] != old["spec"] {
            errors.push(Error::invalid(&Path::new("spec"), &new["spec"], "field is immutable"));
        }
        errors
    },
    unconditional_update: false,
    ..Kind::PLAIN
};
