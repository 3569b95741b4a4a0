//! DeviceClass.

use super::prelude::*;

pub static KIND: Kind = Kind {
    prepare_create: first_generation,
    prepare_update: |new, old| count_change(new, old, &["spec"]),
    ..Kind::PLAIN
};
