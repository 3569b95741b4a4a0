//! CSIStorageCapacity.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("StorageClassName", "The class that the capacity is of.").at("storageClassName"),
        Column::text("Capacity", "How much is left.").at("capacity"),
    ],
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
