//! ControllerRevision.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Controller", "Controller of the object").by(owner),
        Column::number("Revision", "").at("revision").said_text(),
        AGE,
    ],
    validate: |r, errors| {
        if r["data"].as_object().is_none() && !r["data"].is_null() {
            errors.push(Error::required(&Path::new("data"), "data must be a valid JSON object"));
        }
        check(r, &[("revision", NonNegative)], errors);
    },
    validate_create: |r| {
        let mut errors = Errors::new();
        check(r, &[("data", Required("data is mandatory"))], &mut errors);
        errors
    },
    rules: &[("data", Immutable)],
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
