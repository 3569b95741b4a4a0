//! PersistentVolumeClaim.

use meta::field::{Error, Errors, Path};
use meta::quantity::Quantity;
use meta::selector::LabelSelector;
use meta::time::Timestamp;
use meta::{Value, names};

use super::columns::{AGE, Cell, Column, NAME, age, name, text, text_or};
use super::persistentvolume::{access_modes, storage_class, validate_modes};
use super::rules::{Check, Rule, check};
use super::{Kind, fill, pod_spec};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Status", "Whether the claim is bound."),
        Column::text("Volume", "The volume that the claim is bound to."),
        Column::text("Capacity", "How much the volume holds."),
        Column::text("Access Modes", "How the volume can be mounted."),
        Column::text("StorageClass", "The class that the claim asks for."),
        Column::text("VolumeAttributesClass", "The class of the volume's attributes."),
        AGE,
        Column::text("VolumeMode", "A filesystem or a block device.").wide(),
    ],
    row,
    defaults: |c| {
        fill::text(c.slot(&["status"]), "phase", "Pending");
        fill::text(c.slot(&["spec"]), "volumeMode", "Filesystem");
        copy_data_source(c);
    },
    prepare_create: |c| c.set(&["status"], meta::json!({"phase": "Pending"})),
    validate_create: validate,
    validate_update,
    ..Kind::PLAIN
};

/// `dataSource` and `dataSourceRef` mean the same where both can.
fn copy_data_source(c: &mut Value) {
    let spec = c.slot(&["spec"]);
    let (source, reference) = (spec["dataSource"].clone(), spec["dataSourceRef"].clone());
    if reference.is_null() && !source.is_null() {
        spec.set(&["dataSourceRef"], source);
    } else if source.is_null() && !reference.is_null() && text(&reference, &["namespace"]).is_empty() {
        spec.set(&["dataSource"], reference);
    }
}

fn row(c: &Value, now: Timestamp) -> Vec<Cell> {
    let phase = if c["metadata"]["deletionTimestamp"].is_null() { text(c, &["status", "phase"]) } else { "Terminating" };
    let bound = !text(c, &["spec", "volumeName"]).is_empty();
    let capacity = if bound { text(c, &["status", "capacity", "storage"]) } else { "" };
    let modes = if bound { access_modes(c.array_at(&["status", "accessModes"])) } else { String::new() };
    vec![
        name(c),
        phase.into(),
        text(c, &["spec", "volumeName"]).into(),
        capacity.into(),
        modes.into(),
        storage_class(c).into(),
        text_or(c, &["spec", "volumeAttributesClassName"], "<unset>"),
        age(c, now),
        text_or(c, &["spec", "volumeMode"], "<unset>"),
    ]
}

const RULES: &[Rule] = &[
    ("spec.accessModes", Check::Required("at least 1 access mode is required")),
];

const LAST: &[Rule] = &[
    ("spec.storageClassName", Check::Name(names::dns1123_subdomain)),
    ("spec.volumeMode", Check::OneOf(&["Block", "Filesystem"])),
];

fn validate(c: &Value) -> Errors {
    let mut errors = Errors::new();
    check(c, RULES, &mut errors);
    errors.extend(LabelSelector::validate(&c["spec"]["selector"], &Path::new("spec.selector")));
    validate_modes(c.array_at(&["spec", "accessModes"]), &Path::new("spec.accessModes"), &mut errors);
    pod_spec::validate_claim_resources(&c["spec"]["resources"], &Path::new("spec.resources"), &mut errors);
    check(c, LAST, &mut errors);
    errors
}

fn validate_update(new: &Value, old: &Value) -> Errors {
    let mut errors = validate(new);
    // What may change: the volume once, a missing class, the requests (upwards), the attributes class.
    let fixed = |c: &Value, other: &Value| {
        let mut spec = c["spec"].clone();
        spec.remove(&["resources", "requests", "storage"]);
        spec.remove(&["volumeAttributesClassName"]);
        if text(other, &["spec", "volumeName"]).is_empty() || text(c, &["spec", "volumeName"]).is_empty() {
            spec.remove(&["volumeName"]);
        }
        if other["spec"]["storageClassName"].is_null() || c["spec"]["storageClassName"].is_null() {
            spec.remove(&["storageClassName"]);
        }
        spec
    };
    let unbinds = !text(old, &["spec", "volumeName"]).is_empty() && text(new, &["spec", "volumeName"]).is_empty();
    if unbinds || fixed(new, old) != fixed(old, new) {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for \
                      bound claims";
        errors.push(Error::forbidden(&Path::new("spec"), detail));
    }
    let storage = |c: &Value| c.str_at(&["spec", "resources", "requests", "storage"]).and_then(|t| Quantity::parse(t).ok());
    if let (Some(now), Some(was)) = (storage(new), storage(old)) {
        let at = Path::new("spec.resources.requests.storage");
        let allocated = new.str_at(&["status", "capacity", "storage"]).and_then(|t| Quantity::parse(t).ok());
        if now != was && text(old, &["status", "phase"]) != "Bound" {
            let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for \
                          bound claims";
            errors.push(Error::forbidden(&Path::new("spec"), detail));
        } else if now < was && allocated.is_none_or(|a| now <= a) {
            errors.push(Error::forbidden(&at, "field can not be less than status.capacity"));
        }
    }
    errors
}
