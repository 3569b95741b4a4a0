//! APIService.

use meta::field::{Error, Errors, Path};
use meta::Value;

use super::columns::{AGE, Column, NAME, age, int, name, text};
use super::{Kind, fill};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Service", "The reference to the service that hosts this API endpoint."),
        Column::text("Available", "Whether this service is available."),
        AGE,
    ],
    row: |a, now| {
        let service = &a["spec"]["service"];
        let shown = if service.is_null() {
            "Local".to_string()
        } else {
            format!("{}/{}", text(service, &["namespace"]), text(service, &["name"]))
        };
        let conditions = a.array_at(&["status", "conditions"]);
        let available = match conditions.iter().find(|c| text(c, &["type"]) == "Available") {
            Some(c) if text(c, &["status"]) == "True" => "True".to_string(),
            Some(c) => format!("{} ({})", text(c, &["status"]), text(c, &["reason"])),
            None => "Unknown".to_string(),
        };
        vec![name(a), shown.into(), available.into(), age(a, now)]
    },
    defaults: |a| fill::at(a, &["spec", "service"], |s| fill::unset(s, "port", 443)),
    prepare_create: |a| a.set(&["status"], Value::object()),
    validate_create: validate,
    validate_update: |new, _| validate(new),
    name_rule: meta::names::path_segment,
    unconditional_update: false,
    ..Kind::PLAIN
};

fn validate(a: &Value) -> Errors {
    let mut errors = Errors::new();
    let want = format!("{}.{}", text(a, &["spec", "version"]), text(a, &["spec", "group"]));
    let named = text(a, &["metadata", "name"]);
    if named != want {
        let detail = format!("must be `spec.version+\".\"+spec.group`: {want:?}");
        errors.push(Error::invalid(&Path::new("metadata.name"), named, detail));
    }
    for (field, max) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let n = int(a, &["spec", field]);
        if !(1..=max).contains(&n) {
            let detail = format!("must be positive and less than {max}");
            errors.push(Error::invalid(&Path::new("spec").child(field), n, detail));
        }
    }
    errors
}
