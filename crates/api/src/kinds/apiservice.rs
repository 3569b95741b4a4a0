//! APIService.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Service", "The reference to the service that hosts this API endpoint.").by(|a| {
            let service = &a["spec"]["service"];
            if service.is_null() {
                return "Local".into();
            }
            format!("{}/{}", text(service, &["namespace"]), text(service, &["name"])).into()
        }),
        Column::text("Available", "Whether this service is available.").by(|a| {
            let mut conditions = a.array_at(&["status", "conditions"]).iter();
            match conditions.find(|c| text(c, &["type"]) == "Available") {
                Some(c) if text(c, &["status"]) == "True" => "True".into(),
                Some(c) => format!("{} ({})", text(c, &["status"]), text(c, &["reason"])).into(),
                None => "Unknown".into(),
            }
        }),
        AGE,
    ],
    defaults: |a| fill::at(a, &["spec", "service"], |s| fill::unset(s, "port", 443)),
    prepare_create: |a| a.set(&["status"], Value::object()),
    validate,
    name_rule: names::path_segment,
    unconditional_update: false,
    ..Kind::PLAIN
};

fn validate(a: &Value, errors: &mut Errors) {
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
}
