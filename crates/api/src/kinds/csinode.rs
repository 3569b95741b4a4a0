//! CSINode.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::number("Drivers", "How many drivers run on the node.").count("spec.drivers"), AGE],
    rules: &[("spec.drivers[].name", Required("")), ("spec.drivers[].nodeID", Required(""))],
    unconditional_update: false,
    ..Kind::PLAIN
};
