//! PriorityLevelConfiguration.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Type", "Whether the level is limited.").at("spec.type"),
        Column::text("NominalConcurrencyShares", "Its share of all requests at a time.")
            .or("spec.limited.nominalConcurrencyShares", "<none>"),
        Column::text("Queues", "How many queues there are.").or("spec.limited.limitResponse.queuing.queues", "<none>"),
        Column::text("HandSize", "How many of them a flow may use.")
            .or("spec.limited.limitResponse.queuing.handSize", "<none>"),
        Column::text("QueueLengthLimit", "How long a queue gets.")
            .or("spec.limited.limitResponse.queuing.queueLengthLimit", "<none>"),
        AGE,
    ],
    defaults,
    prepare_create: |p| new_object(p, Value::object()),
    prepare_update: keep_status_count_spec,
    rules: &[("spec.type", RequiredOneOf(&["Exempt", "Limited"]))],
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
