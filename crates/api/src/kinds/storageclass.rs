//! StorageClass.

use meta::field::{Error, Errors, Path};

use super::columns::{AGE, Column, NAME, age, name, text};
use super::rules::{Check, check};
use super::{Kind, fill};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Provisioner", "Who makes the volumes of this class."),
        Column::text("ReclaimPolicy", "What happens to a volume when its claim is released."),
        Column::text("VolumeBindingMode", "When volumes are made and bound."),
        Column::flag("AllowVolumeExpansion", "Whether volumes of this class can grow."),
        AGE,
    ],
    row: |c, now| {
        let annotation = |key: &str| text(c, &["metadata", "annotations", key]) == "true";
        let default = annotation("storageclass.kubernetes.io/is-default-class")
            || annotation("storageclass.beta.kubernetes.io/is-default-class");
        let shown = text(c, &["metadata", "name"]);
        vec![
            if default { format!("{shown} (default)").into() } else { name(c) },
            text(c, &["provisioner"]).into(),
            text(c, &["reclaimPolicy"]).into(),
            text(c, &["volumeBindingMode"]).into(),
            c.bool_at(&["allowVolumeExpansion"]).unwrap_or(false).into(),
            age(c, now),
        ]
    },
    defaults: |c| {
        fill::text(c, "reclaimPolicy", "Delete");
        fill::text(c, "volumeBindingMode", "Immediate");
    },
    validate_create: |c| {
        let mut errors = Errors::new();
        check(
            c,
            &[
                ("provisioner", Check::Required("")),
                ("reclaimPolicy", Check::OneOf(&["Delete", "Retain"])),
                ("volumeBindingMode", Check::RequiredOneOf(&["Immediate", "WaitForFirstConsumer"])),
            ],
            &mut errors,
        );
        errors
    },
    validate_update: |new, old| {
        let mut errors = Errors::new();
        for member in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            if new[member] != old[member] {
                errors.push(Error::forbidden(&Path::new(member), "updates to this field are forbidden."));
            }
        }
        errors
    },
    ..Kind::PLAIN
};
