//! DeviceTaintRule.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Key", "").at("spec.taint.key"),
        Column::text("Value", "").at("spec.taint.value"),
        Column::text("Effect", "").at("spec.taint.effect"),
        Column::text("TimeAdded", ".spec.taint.timeAdded")
            .by_time(|r, now| since(r.str_at(&["spec", "taint", "timeAdded"]), now).into()),
        AGE,
    ],
    ..Kind::PLAIN
};
