//! IPAddress.

use std::net::IpAddr;

use super::Kind;
use super::columns::{AGE, Column, NAME, age, name, text};
use super::rules::{Check, Rule, check, check_immutable};
use meta::names;

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::text("ParentRef", "The object that has the address."), AGE],
    row: |a, now| {
        let parent = |field: &str| text(a, &["spec", "parentRef", field]);
        let resource = match parent("group") {
            "" => parent("resource").to_string(),
            group => format!("{}.{group}", parent("resource")),
        };
        let parts = [resource.as_str(), parent("namespace"), parent("name")];
        let shown: Vec<&str> = parts.into_iter().filter(|p| !p.is_empty()).collect();
        vec![name(a), shown.join("/").into(), age(a, now)]
    },
    name_rule: |name| match name.parse::<IpAddr>() {
        Ok(ip) if ip.to_string() != name => vec![format!("must be in canonical form ({:?})", ip.to_string())],
        _ => names::ip(name),
    },
    validate_create: |a| {
        let mut errors = Vec::new();
        check(a, RULES, &mut errors);
        errors
    },
    validate_update: |new, old| {
        let mut errors = Vec::new();
        check_immutable(new, old, RULES, &mut errors);
        errors
    },
    ..Kind::PLAIN
};

const RULES: &[Rule] = &[
    ("spec.parentRef", Check::Required("")),
    ("spec.parentRef.group", Check::Name(names::dns1123_subdomain)),
    ("spec.parentRef.resource", Check::Required("")),
    ("spec.parentRef.resource", Check::Name(names::path_segment)),
    ("spec.parentRef.name", Check::Required("")),
    ("spec.parentRef.name", Check::Name(names::path_segment)),
    ("spec.parentRef.namespace", Check::Name(names::path_segment)),
    ("spec.parentRef", Check::Immutable),
];
