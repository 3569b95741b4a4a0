//! VolumeAttachment.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Attacher", "Who attaches the volume.").at("spec.attacher"),
        Column::text("PV", "The volume.").at("spec.source.persistentVolumeName"),
        Column::text("Node", "The node that the volume is attached to.").at("spec.nodeName"),
        Column::flag("Attached", "Whether the volume is attached.").at("status.attached"),
        AGE,
    ],
    prepare_create: |a| a.set(&["status"], json!({"attached": false})),
    rules: &[("spec.attacher", Required("")), ("spec.nodeName", Required("")), ("spec", Immutable)],
    unconditional_update: false,
    ..Kind::PLAIN
};
