//! Scale, which other kinds have for a subresource.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        Column::text("Name", ".metadata.name").by(name),
        Column::number("Desired", "").at("spec.replicas"),
        Column::number("Available", "").at("status.replicas"),
        AGE,
    ],
    ..Kind::PLAIN
};
