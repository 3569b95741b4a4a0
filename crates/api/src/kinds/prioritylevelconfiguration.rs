//! PriorityLevelConfiguration.

use meta::Value;

use super::columns::{AGE, Cell, Column, NAME, age, name, text};
use super::rules::{Check, check};
use super::{Kind, fill, first_generation, keep_status_count_spec};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Type", "Whether the level is limited."),
        Column::text("NominalConcurrencyShares", "Its share of all requests at a time."),
        Column::text("Queues", "How many queues there are."),
        Column::text("HandSize", "How many of them a flow may use."),
        Column::text("QueueLengthLimit", "How long a queue gets."),
        AGE,
    ],
    row: |p, now| {
        let number = |path: &[&str]| -> Cell {
            p.int_at(path).map_or("<none>".into(), |n| n.to_string().into())
        };
        let queuing = |field: &str| number(&["spec", "limited", "limitResponse", "queuing", field]);
        vec![
            name(p),
            text(p, &["spec", "type"]).into(),
            number(&["spec", "limited", "nominalConcurrencyShares"]),
            queuing("queues"),
            queuing("handSize"),
            queuing("queueLengthLimit"),
            age(p, now),
        ]
    },
    defaults,
    prepare_create: |p| {
        p.set(&["status"], Value::object());
        first_generation(p);
    },
    prepare_update: keep_status_count_spec,
    validate_create: |p| {
        let mut errors = Vec::new();
        check(p, &[("spec.type", Check::RequiredOneOf(&["Exempt", "Limited"]))], &mut errors);
        errors
    },
    ..Kind::PLAIN
};

fn defaults(p: &mut Value) {
    fill::at(p, &["spec", "limited"], |limited| {
        fill::unset(limited, "nominalConcurrencyShares", 30);
        fill::unset(limited, "lendablePercent", 0);
        fill::at(limited, &["limitResponse", "queuing"], |queuing| {
            for (field, default) in [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)] {
                if queuing.int_at(&[field]).unwrap_or(0) == 0 {
                    queuing.set(&[field], default);
                }
            }
        });
    });
    if p.str_at(&["spec", "type"]) == Some("Exempt") {
        let spec = p.slot(&["spec"]);
        spec.set_default(&["exempt", "nominalConcurrencyShares"], 0);
        spec.set_default(&["exempt", "lendablePercent"], 0);
    }
}
