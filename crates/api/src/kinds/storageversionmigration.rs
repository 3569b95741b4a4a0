//! StorageVersionMigration.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        Column::text("Name", ".metadata.name").by(name),
        Column::text("Resource", "GroupResource to migrate").by(resource),
        Column::text("Status", "Status of the migration").by(status),
    ],
    status_restores: &OWN_METADATA,
    ..Kind::PLAIN
};

fn resource(m: &Value) -> Cell {
    let part = |field: &str| text(m, &["spec", "resource", field]);
    match part("group") {
        "" => part("resource").into(),
        group => format!("{}.{group}", part("resource")).into(),
    }
}

fn status(m: &Value) -> Cell {
    let conditions = m.array_at(&["status", "conditions"]);
    let holds = |ty: &&str| conditions.iter().any(|c| text(c, &["type"]) == *ty && text(c, &["status"]) == "True");
    ["Succeeded", "Failed", "Running"].into_iter().find(holds).unwrap_or("Unknown").into()
}
