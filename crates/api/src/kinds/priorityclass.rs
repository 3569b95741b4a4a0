//! PriorityClass.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::number("Value", "").at("value"),
        Column::flag("Global-Default", "").at("globalDefault"),
        AGE,
        Column::text("PreemptionPolicy", "").at("preemptionPolicy"),
    ],
    defaults: |p| fill::unset(p, "preemptionPolicy", "PreemptLowerPriority"),
    prepare_create: first_generation,
    prepare_update: |new, old| super::restore_at(new, old, &["metadata", "generation"]),
    validate_create: |p| {
        let mut errors = Errors::new();
        let (value, named) = (int(p, &["value"]), text(p, &["metadata", "name"]));
        let system = ["system-cluster-critical", "system-node-critical"].contains(&named);
        if system {
            let fixed = if named == "system-node-critical" { 2_000_001_000 } else { 2_000_000_000 };
            if value != fixed || p["globalDefault"] == Value::Bool(true) {
                let detail = format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: value of {named} PriorityClass must be {fixed}"
                );
                errors.push(Error::forbidden(&Path::new("metadata.name"), detail));
            }
        } else if named.starts_with("system-") {
            let detail = format!(
                "priority class names with 'system-' prefix are reserved for system use only. error: {named} is not a known system priority class"
            );
            errors.push(Error::forbidden(&Path::new("metadata.name"), detail));
        } else if value > 1_000_000_000 {
            let detail = "maximum allowed value of a user defined priority is 1000000000";
            errors.push(Error::forbidden(&Path::new("value"), detail));
        }
        check(p, &[("preemptionPolicy", RequiredOneOf(&["PreemptLowerPriority", "Never"]))], &mut errors);
        errors
    },
    validate_update: |new, old| {
        let mut errors = Errors::new();
        if int(new, &["value"]) != int(old, &["value"]) {
            errors.push(Error::forbidden(&Path::new("value"), "may not be changed in an update."));
        }
        check_immutable(new, old, &[("preemptionPolicy", Immutable)], &mut errors);
        errors
    },
    fixed_first: true,
    ..Kind::PLAIN
};
