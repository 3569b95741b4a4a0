//! DeviceClass.

use super::devices;
use super::prelude::*;

pub static KIND: Kind = Kind {
    prepare_create: first_generation,
    prepare_update: |new, old| count_change(new, old, &["spec"]),
    validate: |class, errors| {
        let (spec, at) = (&class["spec"], Path::new("spec"));
        devices::validate_selectors(spec, &at, errors);
        for (i, config) in spec.array_at(&["config"]).iter().enumerate() {
            devices::validate_config(config, &at.child("config").index(i), errors);
        }
        if let Some(name) = spec.str_at(&["extendedResourceName"]) {
            let at = at.child("extendedResourceName");
            if !name.contains('/') {
                let detail = "a name must be a domain-prefixed path, such as 'example.com/my-prop'";
                errors.push(Error::invalid(&at, name, detail));
            }
            errors.extend(names::qualified_name(name).into_iter().map(|m| Error::invalid(&at, name, m)));
        }
    },
    ..Kind::PLAIN
};
