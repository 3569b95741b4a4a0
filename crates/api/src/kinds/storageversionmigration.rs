//! StorageVersionMigration.

use super::conditions;
use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        Column::text("Name", ".metadata.name").by(name),
        Column::text("Resource", "GroupResource to migrate").by(resource),
        Column::text("Status", "Status of the migration").by(status),
    ],
    prepare_create: |m| m.set(&["status"], Value::object()),
    rules: &[
        ("spec.resource.resource", Required("resource is required to be set")),
        ("spec.resource.resource", Name(names::dns1035_label)),
        ("spec.resource.group", Name(names::dns1123_subdomain)),
    ],
    validate_update: |new, old| {
        let mut errors = Errors::new();
        if new["spec"] != old["spec"] {
            // Compat: as Go has it in memory.
            let shown = json!({"Resource": new["spec"]["resource"].clone()});
            errors.push(Error::invalid(&Path::new("spec"), shown, "field is immutable"));
        }
        errors
    },
    validate_status_update,
    status_restores: &OWN_METADATA,
    unconditional_update: false,
    ..Kind::PLAIN
};

fn resource(m: &Value) -> Cell {
    let part = |field: &str| text(m, &["spec", "resource", field]);
    match part("group") {
        "" => part("resource").into(),
        group => format!("{}.{group}", part("resource")).into(),
    }
}

fn status(m: &Value) -> Cell {
    ["Succeeded", "Failed", "Running"].into_iter().find(|ty| conditions::holds(m, ty)).unwrap_or("Unknown").into()
}

fn validate_status_update(new: &Value, old: &Value) -> Errors {
    let (mut errors, at) = (Errors::new(), Path::new("status.resourceVersion"));
    let [version, before] = [new, old].map(|m| text(m, &["status", "resourceVersion"]));
    if !before.is_empty() && version != before {
        errors.push(Error::invalid(&at, version, "field is immutable"));
    } else if !version.is_empty() && version.parse::<u64>().is_err() {
        errors.push(Error::invalid(&at, version, format!("resource version is not well formed: {version}")));
    }
    errors.extend(conditions::validate(new));
    let mut refuse = |detail: &str| {
        let shown = new.array_at(&["status", "conditions"]).to_vec();
        errors.push(Error::invalid(&Path::new("status.conditions"), Value::Array(shown), detail));
    };
    if ["Succeeded", "Failed"].iter().all(|ty| conditions::holds(new, ty)) {
        refuse("Both success and failed conditions cannot be true at the same time");
    }
    for (ty, what) in [("Succeeded", "Success"), ("Failed", "Failed")] {
        if conditions::holds(old, ty) && !conditions::holds(new, ty) {
            refuse(&format!("{what} condition cannot be set to false once it is true"));
        }
    }
    errors
}
