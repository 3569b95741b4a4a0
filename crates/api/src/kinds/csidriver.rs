//! CSIDriver.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::flag("AttachRequired", "Whether volumes are attached before they are mounted.")
            .at("spec.attachRequired"),
        Column::flag("PodInfoOnMount", "Whether the driver is told about the pod.").at("spec.podInfoOnMount"),
        Column::flag("StorageCapacity", "Whether the driver says how much is left.").at("spec.storageCapacity"),
        Column::text("TokenRequests", "Audiences of the tokens that the driver gets.").by(|d| {
            let requests = d.array_at(&["spec", "tokenRequests"]).iter();
            joined(&requests.map(|r| text(r, &["audience"])).collect::<Vec<_>>().into(), "<unset>")
        }),
        Column::flag("RequiresRepublish", "Whether the driver is asked again and again.").at("spec.requiresRepublish"),
        Column::text("Modes", "How long the volumes live.")
            .by(|d| joined(&d["spec"]["volumeLifecycleModes"], "<none>")),
        AGE,
    ],
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
    rules: &[("spec.attachRequired", Immutable), ("spec.volumeLifecycleModes", Immutable)],
    unconditional_update: false,
    ..Kind::PLAIN
};
