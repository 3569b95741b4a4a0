//! DeviceClass.

use super::devices::{self, LIST_MAX, bounded};
use super::prelude::*;

pub static KIND: Kind = Kind {
    prepare_create: first_generation,
    prepare_update: |new, old| count_change(new, old, &["spec"]),
    validate: |class, errors| {
        let (spec, at, mut late) = (&class["spec"], Path::new("spec"), Errors::new());
        devices::validate_selectors(spec, &at, errors, &mut late);
        let path = at.child("config");
        for (i, config) in bounded(&spec["config"], &path, LIST_MAX, &mut late).iter().enumerate() {
            devices::validate_config(config, &path.index(i), errors, &mut late);
        }
        if let Some(name) = spec.str_at(&["extendedResourceName"]) {
            let wrong = match name {
                _ if !name.contains('/') => {
                    vec!["a name must be a domain-prefixed path, such as 'example.com/my-prop'".into()]
                }
                _ if name.starts_with("requests.") => vec!["must not have \"requests.\" prefix".into()],
                _ if name.starts_with("kubernetes.io/") => vec!["must not have \"kubernetes.io/\" domain".into()],
                _ => names::qualified_name(name),
            };
            let at = at.child("extendedResourceName");
            late.extend(wrong.into_iter().map(|m| Error::invalid(&at, name, m)));
        }
        errors.extend(late);
    },
    ..Kind::PLAIN
};
