//! FlowSchema.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("PriorityLevel", "The priority level that matching requests get.")
            .at("spec.priorityLevelConfiguration.name"),
        Column::number("MatchingPrecedence", "Lower goes first.").at("spec.matchingPrecedence"),
        Column::text("DistinguisherMethod", "How requests are told apart into flows.")
            .or("spec.distinguisherMethod.type", "<none>"),
        AGE,
        Column::text("MissingPL", "Whether the priority level is missing.").by(|f| {
            let mut conditions = f.array_at(&["status", "conditions"]).iter();
            conditions.find(|c| text(c, &["type"]) == "Dangling").map_or("?", |c| text(c, &["status"])).into()
        }),
    ],
    defaults: |f| {
        if int(f, &["spec", "matchingPrecedence"]) == 0 {
            f.set(&["spec", "matchingPrecedence"], 1000);
        }
    },
    prepare_create: |f| new_object(f, Value::object()),
    prepare_update: keep_status_count_spec,
    rules: &[
        ("spec.matchingPrecedence", Range(1, 10_000)),
        ("spec.priorityLevelConfiguration.name", Required("must reference a priority level")),
    ],
    ..Kind::PLAIN
};
