//! IPAddress.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::text("ParentRef", "The object that has the address.").by(parent), AGE],
    name_rule: names::ip,
    rules: &[("spec.parentRef", Required(""))],
    ..Kind::PLAIN
};

fn parent(a: &Value) -> Cell {
    let parts = ["group", "resource", "namespace", "name"].map(|field| text(a, &["spec", "parentRef", field]));
    parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join("/").into()
}
