//! IPAddress.

use super::Kind;
use super::columns::{AGE, Column, NAME, age, name, text};
use super::rules::{Check, check};

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::text("ParentRef", "The object that has the address."), AGE],
    row: |a, now| {
        let parent = |field: &str| text(a, &["spec", "parentRef", field]);
        let parts = [parent("group"), parent("resource"), parent("namespace"), parent("name")];
        let shown: Vec<&str> = parts.into_iter().filter(|p| !p.is_empty()).collect();
        vec![name(a), shown.join("/").into(), age(a, now)]
    },
    name_rule: meta::names::ip,
    validate_create: |a| {
        let mut errors = Vec::new();
        check(a, &[("spec.parentRef", Check::Required(""))], &mut errors);
        errors
    },
    ..Kind::PLAIN
};
