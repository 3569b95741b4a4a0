//! FlowSchema.

use super::columns::{AGE, Column, NAME, age, int, name, text, text_or};
use super::rules::{Check, check};
use super::{Kind, first_generation, keep_status_count_spec};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("PriorityLevel", "The priority level that matching requests get."),
        Column::number("MatchingPrecedence", "Lower goes first."),
        Column::text("DistinguisherMethod", "How requests are told apart into flows."),
        AGE,
        Column::text("MissingPL", "Whether the priority level is missing."),
    ],
    row: |f, now| {
        let conditions = f.array_at(&["status", "conditions"]);
        let dangling = conditions.iter().find(|c| text(c, &["type"]) == "Dangling");
        vec![
            name(f),
            text(f, &["spec", "priorityLevelConfiguration", "name"]).into(),
            int(f, &["spec", "matchingPrecedence"]).into(),
            text_or(f, &["spec", "distinguisherMethod", "type"], "<none>"),
            age(f, now),
            dangling.map_or("?", |c| text(c, &["status"])).into(),
        ]
    },
    defaults: |f| {
        if int(f, &["spec", "matchingPrecedence"]) == 0 {
            f.set(&["spec", "matchingPrecedence"], 1000);
        }
    },
    prepare_create: |f| {
        f.set(&["status"], meta::Value::object());
        first_generation(f);
    },
    prepare_update: keep_status_count_spec,
    validate_create: |f| {
        let mut errors = Vec::new();
        check(
            f,
            &[
                ("spec.matchingPrecedence", Check::Range(1, 10_000)),
                ("spec.priorityLevelConfiguration.name", Check::Required("must reference a priority level")),
            ],
            &mut errors,
        );
        errors
    },
    ..Kind::PLAIN
};
