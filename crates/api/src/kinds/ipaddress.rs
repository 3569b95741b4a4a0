//! IPAddress.

use std::net::IpAddr;

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::text("ParentRef", ".spec.parentRef").by(parent)],
    name_rule: |name| match name.parse::<IpAddr>() {
        Ok(ip) if ip.to_string() != name => vec![format!("must be in canonical form ({:?})", ip.to_string())],
        _ => names::ip(name),
    },
    rules: &[
        ("spec.parentRef", Required("")),
        ("spec.parentRef.group", Name(names::dns1123_subdomain)),
        ("spec.parentRef.resource", Required("")),
        ("spec.parentRef.resource", Name(names::path_segment)),
        ("spec.parentRef.name", Required("")),
        ("spec.parentRef.name", Name(names::path_segment)),
        ("spec.parentRef.namespace", Name(names::path_segment)),
        ("spec.parentRef", Fixed),
    ],
    ..Kind::PLAIN
};

fn parent(a: &Value) -> Cell {
    let part = |field: &str| text(a, &["spec", "parentRef", field]);
    let resource = match part("group") {
        "" => part("resource").to_string(),
        group => format!("{}.{group}", part("resource")),
    };
    let parts = [resource.as_str(), part("namespace"), part("name")];
    parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join("/").into()
}
