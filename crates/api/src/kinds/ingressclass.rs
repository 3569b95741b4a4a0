//! IngressClass.

use super::columns::{AGE, Column, NAME, age, name, text};
use super::rules::{Check, check, check_immutable};
use super::{Kind, count_change, fill, first_generation};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Controller", "Controller that is responsible for handling this class"),
        Column::text("Parameters", "A reference to a resource with additional parameters"),
        AGE,
    ],
    row: |c, now| {
        let parameters = &c["spec"]["parameters"];
        let shown = if parameters.is_null() {
            "<none>".to_string()
        } else {
            let (kind, group) = (text(parameters, &["kind"]), text(parameters, &["apiGroup"]));
            let dot = if group.is_empty() { "" } else { "." };
            format!("{kind}{dot}{group}/{}", text(parameters, &["name"]))
        };
        vec![name(c), text(c, &["spec", "controller"]).into(), shown.into(), age(c, now)]
    },
    defaults: |c| fill::at(c, &["spec", "parameters"], |p| fill::text(p, "scope", "Cluster")),
    prepare_create: first_generation,
    prepare_update: |new, old| count_change(new, old, &["spec"]),
    validate_create: |c| {
        let mut errors = Vec::new();
        check(c, &[("spec.controller", Check::Required("")), ("spec.parameters.kind", Check::Required(""))], &mut errors);
        errors
    },
    validate_update: |new, old| {
        let mut errors = Vec::new();
        check_immutable(new, old, &[("spec.controller", Check::Immutable)], &mut errors);
        errors
    },
    ..Kind::PLAIN
};
