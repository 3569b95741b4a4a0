//! ResourceSlice.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Node", "The node that the devices are on.").or("spec.nodeName", "<unset>"),
        Column::text("Driver", "Who looks after the devices.").at("spec.driver"),
        Column::text("Pool", "The pool that the devices belong to.").at("spec.pool.name"),
        AGE,
    ],
    prepare_create: first_generation,
    prepare_update: |new, old| count_change(new, old, &["spec"]),
    rules: &[("spec.driver", Required("")), ("spec.pool.name", Required(""))],
    selectable: |s| {
        vec![
            ("spec.nodeName", text(s, &["spec", "nodeName"]).to_string()),
            ("spec.driver", text(s, &["spec", "driver"]).to_string()),
        ]
    },
    selectable_names: &["spec.nodeName", "spec.driver"],
    ..Kind::PLAIN
};
