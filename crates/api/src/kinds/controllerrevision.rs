//! ControllerRevision.

use meta::field::Errors;

use super::columns::{AGE, Column, NAME, age, int, name, text};
use super::rules::{Check, check, check_immutable};
use super::Kind;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Controller", "Controller of the object"),
        Column::text("Revision", "Revision indicates the revision of the state represented by Data."),
        AGE,
    ],
    row: |r, now| {
        let owners = r.array_at(&["metadata", "ownerReferences"]);
        let owner = owners.iter().find(|o| o.bool_at(&["controller"]) == Some(true)).map_or("<none>".into(), |o| {
            let kind = text(o, &["kind"]).to_lowercase();
            match text(o, &["apiVersion"]).split_once('/') {
                Some((group, _)) => format!("{kind}.{group}/{}", text(o, &["name"])),
                None => format!("{kind}/{}", text(o, &["name"])),
            }
        });
        vec![name(r), owner.into(), int(r, &["revision"]).into(), age(r, now)]
    },
    validate_create: |r| {
        let mut errors = Errors::new();
        check(r, &[("data", Check::Required("data is mandatory")), ("revision", Check::NonNegative)], &mut errors);
        errors
    },
    validate_update: |new, old| {
        let mut errors = Errors::new();
        check_immutable(new, old, &[("data", Check::Immutable)], &mut errors);
        check(new, &[("revision", Check::NonNegative)], &mut errors);
        errors
    },
    ..Kind::PLAIN
};
