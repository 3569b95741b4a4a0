//! PriorityClass.

use meta::field::{Error, Errors, Path};

use super::columns::{AGE, Column, NAME, age, int, name, text};
use super::rules::{Check, check_immutable};
use super::{Kind, count_change, fill, first_generation};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::number("Value", "The priority that pods of this class get."),
        Column::flag("Global-Default", "Whether pods without a class get this one."),
        AGE,
        Column::text("PreemptionPolicy", "Whether pods of this class make room for themselves."),
    ],
    row: |p, now| {
        let default = p.bool_at(&["globalDefault"]).unwrap_or(false);
        vec![name(p), int(p, &["value"]).into(), default.into(), age(p, now), text(p, &["preemptionPolicy"]).into()]
    },
    defaults: |p| fill::text(p, "preemptionPolicy", "PreemptLowerPriority"),
    prepare_create: first_generation,
    prepare_update: |new, old| count_change(new, old, &["value", "globalDefault", "description", "preemptionPolicy"]),
    validate_create: |p| {
        let mut errors = Errors::new();
        let (value, named) = (int(p, &["value"]), text(p, &["metadata", "name"]));
        let system = ["system-cluster-critical", "system-node-critical"].contains(&named);
        if named.starts_with("system-") && !system {
            let detail = format!("priority class names with 'system-' prefix are reserved for system use only. error: {named} is not a known system priority class");
            errors.push(Error::forbidden(&Path::new("metadata.name"), detail));
        } else if value > 1_000_000_000 && !system {
            let detail = "maximum allowed value of a user defined priority is 1000000000";
            errors.push(Error::forbidden(&Path::new("value"), detail));
        }
        errors
    },
    validate_update: |new, old| {
        let mut errors = Errors::new();
        check_immutable(new, old, &[("value", Check::Immutable), ("preemptionPolicy", Check::Immutable)], &mut errors);
        errors
    },
    ..Kind::PLAIN
};
