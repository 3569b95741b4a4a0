//! VolumeAttributesClass.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME.by(super::storageclass::name_and_default),
        Column::text("DriverName", "The CSI driver that knows the attributes.").at("driverName"),
        AGE,
    ],
    rules: &[("driverName", Immutable), ("parameters", Immutable)],
    validate: |c, errors| {
        let (driver, at) = (text(c, &["driverName"]), Path::new("driverName"));
        if driver.is_empty() {
            errors.push(Error::required(&at, ""));
        } else {
            let wrong = names::qualified_name(&driver.to_lowercase()).into_iter();
            errors.extend(wrong.map(|m| Error::invalid(&at, driver, m)));
        }
        super::storageclass::validate_parameters(c, false, errors);
    },
    ..Kind::PLAIN
};
