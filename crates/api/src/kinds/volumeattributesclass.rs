//! VolumeAttributesClass.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::text("DriverName", "").at("driverName"), AGE],
    validate_update: |new, old| {
        let changed = ["driverName", "parameters"].into_iter().filter(|field| new[*field] != old[*field]);
        let error = |field| Error::forbidden(&Path::new(field), format!("updates to {field} are forbidden."));
        changed.map(error).collect()
    },
    validate: |c, errors| {
        super::storageclass::validate_provisioner(c, "driverName", errors);
        super::storageclass::validate_parameters(c, false, errors);
    },
    fixed_first: true,
    ..Kind::PLAIN
};
