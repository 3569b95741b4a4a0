//! StorageVersion.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("CommonEncodingVersion", "The version that all API servers write.")
            .or("status.commonEncodingVersion", "<unset>"),
        AGE,
    ],
    status_restores: &OWN_METADATA,
    unconditional_update: false,
    ..Kind::PLAIN
};
