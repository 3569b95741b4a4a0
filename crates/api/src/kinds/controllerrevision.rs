//! ControllerRevision.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Controller", "Controller of the object").by(owner),
        Column::number("Revision", "Revision indicates the revision of the state represented by Data.").at("revision"),
        AGE,
    ],
    rules: &[("data", Required("data is mandatory")), ("data", Immutable), ("revision", NonNegative)],
    ..Kind::PLAIN
};

fn owner(r: &Value) -> Cell {
    let mut owners = r.array_at(&["metadata", "ownerReferences"]).iter();
    let Some(o) = owners.find(|o| o.bool_at(&["controller"]) == Some(true)) else { return "<none>".into() };
    let (kind, name) = (text(o, &["kind"]).to_lowercase(), text(o, &["name"]));
    match text(o, &["apiVersion"]).split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{name}").into(),
        None => format!("{kind}/{name}").into(),
    }
}
