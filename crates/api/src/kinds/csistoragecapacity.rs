//! CSIStorageCapacity.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: super::columns::NAME_AND_CREATED_AT,
    rules: &[
        ("nodeTopology", Selector),
        ("storageClassName", AnyName(names::dns1123_subdomain)),
        ("capacity", Amount),
        ("nodeTopology", Immutable),
        ("storageClassName", Immutable),
    ],
    unconditional_update: false,
    ..Kind::PLAIN
};
