//! VolumeAttributesClass.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME.by(super::storageclass::name_and_default),
        Column::text("DriverName", "The CSI driver that knows the attributes.").at("driverName"),
        AGE,
    ],
    rules: &[("driverName", Required("")), ("driverName", Immutable), ("parameters", Immutable)],
    ..Kind::PLAIN
};
