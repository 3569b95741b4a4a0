//! IngressClass.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Controller", "Controller that is responsible for handling this class").at("spec.controller"),
        Column::text("Parameters", "A reference to a resource with additional parameters").by(|c| {
            let parameters = &c["spec"]["parameters"];
            let (kind, group) = (text(parameters, &["kind"]), text(parameters, &["apiGroup"]));
            let dot = if group.is_empty() { "" } else { "." };
            match parameters.is_null() {
                true => "<none>".into(),
                false => format!("{kind}{dot}{group}/{}", text(parameters, &["name"])).into(),
            }
        }),
        AGE,
    ],
    defaults: |c| fill::at(c, &["spec", "parameters"], |p| fill::unset(p, "scope", "Cluster")),
    prepare_create: first_generation,
    prepare_update: |new, old| count_change(new, old, &["spec"]),
    rules: &[
        ("spec.controller", MaxBytes(250)),
        ("spec.controller", Name(names::domain_path)),
        ("spec.controller", Required("")),
        ("spec.parameters.apiGroup", GivenName(names::dns1123_subdomain)),
        ("spec.parameters.kind", Required("")),
        ("spec.parameters.kind", Name(names::path_segment)),
        ("spec.parameters.name", Required("")),
        ("spec.parameters.name", Name(names::path_segment)),
        ("spec.parameters.scope", GivenOneOf(&["Cluster", "Namespace"])),
        ("spec.controller", Immutable),
    ],
    validate: |c, errors| {
        let (namespace, at) = (&c["spec"]["parameters"]["namespace"], Path::new("spec.parameters.namespace"));
        match text(c, &["spec", "parameters", "scope"]) {
            "Cluster" if !namespace.is_null() => {
                errors.push(Error::forbidden(&at, "`parameters.scope` is set to 'Cluster'"));
            }
            "Namespace" if namespace.is_null() => {
                errors.push(Error::required(&at, "`parameters.scope` is set to 'Namespace'"));
            }
            "Namespace" => check(c, &[("spec.parameters.namespace", GivenName(names::dns1123_label))], errors),
            _ => {}
        }
    },
    fixed_first: true,
    ..Kind::PLAIN
};
