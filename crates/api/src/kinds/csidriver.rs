//! CSIDriver.

use meta::Value;

use super::columns::{AGE, Column, NAME, age, name, text};
use super::rules::{Check, check_immutable};
use super::{Kind, fill};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::flag("AttachRequired", "Whether volumes are attached before they are mounted."),
        Column::flag("PodInfoOnMount", "Whether the driver is told about the pod."),
        Column::flag("StorageCapacity", "Whether the driver says how much is left."),
        Column::text("TokenRequests", "Audiences of the tokens that the driver gets."),
        Column::flag("RequiresRepublish", "Whether the driver is asked again and again."),
        Column::text("Modes", "How long the volumes live."),
        AGE,
    ],
    row: |d, now| {
        let flag = |field: &str| d.bool_at(&["spec", field]).unwrap_or(false).into();
        let requests = d.array_at(&["spec", "tokenRequests"]).iter();
        let audiences: Vec<&str> = requests.map(|r| text(r, &["audience"])).collect();
        let modes: Vec<&str> = d.array_at(&["spec", "volumeLifecycleModes"]).iter().filter_map(Value::as_str).collect();
        vec![
            name(d),
            flag("attachRequired"),
            flag("podInfoOnMount"),
            flag("storageCapacity"),
            if audiences.is_empty() { "<unset>".into() } else { audiences.join(",").into() },
            flag("requiresRepublish"),
            if modes.is_empty() { "<none>".into() } else { modes.join(",").into() },
            age(d, now),
        ]
    },
    defaults: |d| {
        let spec = d.slot(&["spec"]);
        spec.set_default(&["attachRequired"], true);
        for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
            spec.set_default(&[field], false);
        }
        fill::text(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        if spec.array_at(&["volumeLifecycleModes"]).is_empty() {
            spec.set(&["volumeLifecycleModes"], vec!["Persistent"]);
        }
    },
    validate_update: |new, old| {
        let mut errors = Vec::new();
        let rules = [("spec.attachRequired", Check::Immutable), ("spec.volumeLifecycleModes", Check::Immutable)];
        check_immutable(new, old, &rules, &mut errors);
        errors
    },
    unconditional_update: false,
    ..Kind::PLAIN
};
