//! APIService.

use super::conditions;
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
            match conditions::find(a, "Available") {
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
    status_restores: &OWN_METADATA,
    ..Kind::PLAIN
};

fn validate(a: &Value, errors: &mut Errors) {
    let want = format!("{}.{}", text(a, &["spec", "version"]), text(a, &["spec", "group"]));
    let named = text(a, &["metadata", "name"]);
    if named != want && names::path_segment(named).is_empty() {
        let detail = format!("must be `spec.version+\".\"+spec.group`: {want:?}");
        errors.push(Error::invalid(&Path::new("metadata.name"), named, detail));
    }
    let (spec, path) = (&a["spec"], Path::new("spec"));
    let group = text(spec, &["group"]);
    if group.is_empty() {
        if text(spec, &["version"]) != "v1" {
            let detail = "only v1 may have an empty group and it better be legacy kube";
            errors.push(Error::required(&path.child("group"), detail));
        }
    } else {
        check(a, &[("spec.group", Name(names::dns1123_subdomain))], errors);
    }
    let version = text(spec, &["version"]);
    let wrong = names::dns1035_label(version).into_iter();
    errors.extend(wrong.map(|m| Error::invalid(&path.child("version"), version, m)));
    for (field, max) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let n = int(spec, &[field]);
        if !(1..=max).contains(&n) {
            let detail = format!("must be positive and less than {max}");
            errors.push(Error::invalid(&path.child(field), n, detail));
        }
    }
    let insecure = spec["insecureSkipTLSVerify"] == Value::Bool(true);
    let mut untrusted = |detail: &str| errors.push(Error::invalid(&path.child("insecureSkipTLSVerify"), true, detail));
    if spec["service"].is_null() {
        if !spec["caBundle"].is_empty() {
            let detail = "local APIServices may not have a caBundle";
            errors.push(Error::invalid(&path.child("caBundle"), &spec["caBundle"], detail));
        } else if insecure {
            untrusted("local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    }
    if insecure && !spec["caBundle"].is_empty() {
        untrusted("may not be true if caBundle is present");
    }
    check(a, &[("spec.service.namespace", Required("")), ("spec.service.name", Required(""))], errors);
    super::webhook::validate_port(&spec["service"], &path.child("service"), errors);
}
