//! ComponentStatus.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Status", "Whether the component is healthy."),
        Column::text("Message", "What the component says about itself."),
        Column::text("Error", "Why it could not be asked."),
    ],
    row: Some(|c, _| {
        let healthy = c.array_at(&["conditions"]).iter().find(|c| text(c, &["type"]) == "Healthy");
        let (status, message, error) = match healthy {
            Some(c) if text(c, &["status"]) == "True" => ("Healthy", text(c, &["message"]), text(c, &["error"])),
            Some(c) => ("Unhealthy", text(c, &["message"]), text(c, &["error"])),
            None => ("Unknown", "", ""),
        };
        vec![name(c), status.into(), message.into(), error.into()]
    }),
    ..Kind::PLAIN
};
