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
    defaults: |c| fill::at(c, &["spec", "parameters"], |p| fill::text(p, "scope", "Cluster")),
    prepare_create: first_generation,
    prepare_update: |new, old| count_change(new, old, &["spec"]),
    rules: &[("spec.controller", Required("")), ("spec.parameters.kind", Required("")), ("spec.controller", Immutable)],
    ..Kind::PLAIN
};
