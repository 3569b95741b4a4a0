//! StorageVersion.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("CommonEncodingVersion", "The version that all API servers write.")
            .or("status.commonEncodingVersion", "<unset>"),
        AGE,
    ],
    unconditional_update: false,
    ..Kind::PLAIN
};
