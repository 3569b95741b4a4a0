//! StorageClass.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME.by(name_and_default),
        Column::text("Provisioner", "Who makes the volumes of this class.").at("provisioner"),
        Column::text("ReclaimPolicy", "What happens to a volume when its claim is released.").at("reclaimPolicy"),
        Column::text("VolumeBindingMode", "When volumes are made and bound.").at("volumeBindingMode"),
        Column::flag("AllowVolumeExpansion", "Whether volumes of this class can grow.").at("allowVolumeExpansion"),
        AGE,
    ],
    defaults: |c| {
        fill::text(c, "reclaimPolicy", "Delete");
        fill::text(c, "volumeBindingMode", "Immediate");
    },
    rules: &[
        ("provisioner", Required("")),
        ("reclaimPolicy", OneOf(&["Delete", "Retain"])),
        ("volumeBindingMode", RequiredOneOf(&["Immediate", "WaitForFirstConsumer"])),
    ],
    validate_update: |new, old| {
        let members = ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"].into_iter();
        let changed = members.filter(|m| new[*m] != old[*m]);
        changed.map(|m| Error::forbidden(&Path::new(m), "updates to this field are forbidden.")).collect()
    },
    ..Kind::PLAIN
};

/// The name of a class of storage or of volumes' attributes, and whether it is the one of who names none.
pub(super) fn name_and_default(class: &Value) -> Cell {
    let marks = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    let default = marks.iter().any(|mark| text(class, &["metadata", "annotations", mark]) == "true");
    if default { format!("{} (default)", text(class, &["metadata", "name"])).into() } else { name(class) }
}
