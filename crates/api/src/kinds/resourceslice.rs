//! ResourceSlice.

use super::columns::{AGE, Column, NAME, age, name, text, text_or};
use super::rules::{Check, check};
use super::{Kind, count_change, first_generation};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Node", "The node that the devices are on."),
        Column::text("Driver", "Who looks after the devices."),
        Column::text("Pool", "The pool that the devices belong to."),
        AGE,
    ],
    row: |s, now| {
        vec![
            name(s),
            text_or(s, &["spec", "nodeName"], "<unset>"),
            text(s, &["spec", "driver"]).into(),
            text(s, &["spec", "pool", "name"]).into(),
            age(s, now),
        ]
    },
    prepare_create: first_generation,
    prepare_update: |new, old| count_change(new, old, &["spec"]),
    validate_create: |s| {
        let mut errors = Vec::new();
        check(s, &[("spec.driver", Check::Required("")), ("spec.pool.name", Check::Required(""))], &mut errors);
        errors
    },
    selectable: |s| {
        vec![
            ("spec.nodeName", text(s, &["spec", "nodeName"]).to_string()),
            ("spec.driver", text(s, &["spec", "driver"]).to_string()),
        ]
    },
    selectable_names: &["spec.nodeName", "spec.driver"],
    ..Kind::PLAIN
};
