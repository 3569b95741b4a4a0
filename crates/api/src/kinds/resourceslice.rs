//! ResourceSlice.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Node", "").at("spec.nodeName"),
        Column::text("Driver", "").at("spec.driver"),
        Column::text("Pool", "").at("spec.pool.name"),
        AGE,
    ],
    prepare_create: first_generation,
    prepare_update: |new, old| count_change(new, old, &["spec"]),
    rules: &[("spec.driver", Required("")), ("spec.pool.name", Required(""))],
    selectable: |s| {
        vec![
            ("spec.nodeName", text(s, &["spec", "nodeName"]).to_string()),
            ("spec.driver", text(s, &["spec", "driver"]).to_string()),
            ("spec.pool.name", text(s, &["spec", "pool", "name"]).to_string()),
        ]
    },
    selectable_names: &["spec.nodeName", "spec.driver", "spec.pool.name"],
    ..Kind::PLAIN
};
