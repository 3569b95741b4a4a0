//! PersistentVolumeClaim.

use super::persistentvolume::{ATTRIBUTES_CLASS, VOLUME_MODE, access_modes, phase, storage_class, validate_modes};
use super::pod_spec;
use super::prelude::*;
use meta::quantity::Quantity;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Status", ".status.phase").by(phase),
        Column::text("Volume", "").at("spec.volumeName"),
        Column::text("Capacity", ".status.capacity")
            .by(|c| bound(c).map_or("", |c| text(c, &["status", "capacity", "storage"])).into()),
        Column::text("Access Modes", ".status.accessModes")
            .by(|c| bound(c).map_or(String::new(), |c| access_modes(c.array_at(&["status", "accessModes"]))).into()),
        Column::text("StorageClass", "The class that the claim asks for.").by(|c| storage_class(c).into()),
        ATTRIBUTES_CLASS,
        AGE,
        VOLUME_MODE,
    ],
    defaults: |c| {
        fill::text(c.slot(&["status"]), "phase", "Pending");
        fill::unset(c.slot(&["spec"]), "volumeMode", "Filesystem");
    },
    prepare_create: |c| {
        c.set(&["status"], meta::json!({"phase": "Pending"}));
        copy_data_source(c);
        drop_foreign_source(c);
    },
    prepare_update: |new, old| {
        keep_status(new, old);
        copy_data_source(new);
        if text(old, &FOREIGN).is_empty() {
            drop_foreign_source(new);
        }
    },
    validate: |c, errors| validate_spec(c, &Path::new("spec"), errors),
    validate_update,
    ..Kind::PLAIN
};

/// `dataSource` and `dataSourceRef` mean the same where both can.
fn copy_data_source(c: &mut Value) {
    let spec = c.slot(&["spec"]);
    let (source, reference) = (spec["dataSource"].clone(), spec["dataSourceRef"].clone());
    let known = [["", "PersistentVolumeClaim"], ["snapshot.storage.k8s.io", "VolumeSnapshot"]];
    if reference.is_null() && !source.is_null() {
        // Compat: what this field can't name goes without a word.
        if !known.contains(&[text(&source, &["apiGroup"]), text(&source, &["kind"])]) {
            spec.remove(&["dataSource"]);
            return;
        }
        spec.set(&["dataSourceRef"], source);
    } else if source.is_null() && !reference.is_null() && text(&reference, &["namespace"]).is_empty() {
        spec.set(&["dataSource"], reference);
        spec.remove(&["dataSource", "namespace"]);
    }
}

const FOREIGN: [&str; 3] = ["spec", "dataSourceRef", "namespace"];

/// Compat: a claim can't be filled from another namespace (CrossNamespaceVolumeDataSource is off); only a claim by itself
/// forgets the whole reference, not one in a pod or a set.
fn drop_foreign_source(c: &mut Value) {
    if !text(c, &FOREIGN).is_empty() {
        c.remove(&FOREIGN[..2]);
        copy_data_source(c);
    }
}

/// The claim, if it has a volume.
fn bound(c: &Value) -> Option<&Value> {
    (!text(c, &["spec", "volumeName"]).is_empty()).then_some(c)
}

const LAST: &[Rule] =
    &[("storageClassName", Name(names::dns1123_subdomain)), ("volumeMode", GivenOneOf(&["Block", "Filesystem"]))];

/// Checks the spec of a claim at `path`, also of a claim that a pod or a set brings along.
pub(super) fn validate_spec(holder: &Value, path: &Path, errors: &mut Errors) {
    let spec = &holder["spec"];
    check_at(
        spec,
        path,
        &[("selector", Selector), ("accessModes", Required("at least 1 access mode is required"))],
        errors,
    );
    validate_modes(spec.array_at(&["accessModes"]), &path.child("accessModes"), errors);
    pod_spec::validate_claim_resources(&spec["resources"], &path.child("resources"), errors);
    check_at(spec, path, LAST, errors);
    for member in ["dataSource", "dataSourceRef"].into_iter().filter(|member| !spec[*member].is_null()) {
        let (source, at) = (&spec[member], path.child(member));
        check_at(source, &at, &[("name", Required("")), ("kind", Required(""))], errors);
        let group = text(source, &["apiGroup"]);
        if group.is_empty() {
            if text(source, &["kind"]) != "PersistentVolumeClaim" {
                let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
                errors.push(Error::invalid(&at, text(source, &["kind"]), detail));
            }
        } else {
            let wrong = names::dns1123_subdomain(group).into_iter();
            errors.extend(wrong.map(|m| Error::invalid(&at.child("apiGroup"), group, m)));
        }
    }
    let (source, reference) = (&spec["dataSource"], &spec["dataSourceRef"]);
    if !source.is_null() && !reference.is_null() && source != reference {
        errors.push(Error::invalid(path, Value::object(), "must match dataSourceRef"));
    }
    check_at(spec, path, &[("volumeAttributesClassName", Name(names::dns1123_subdomain))], errors);
}

const FIXED: &str =
    "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";

fn validate_update(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
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
        errors.push(Error::forbidden(&Path::new("spec"), FIXED));
    }
    let storage =
        |c: &Value| c.str_at(&["spec", "resources", "requests", "storage"]).and_then(|t| Quantity::parse(t).ok());
    if let (Some(now), Some(was)) = (storage(new), storage(old)) {
        let at = Path::new("spec.resources.requests.storage");
        let allocated = new.str_at(&["status", "capacity", "storage"]).and_then(|t| Quantity::parse(t).ok());
        if now != was && text(old, &["status", "phase"]) != "Bound" {
            errors.push(Error::forbidden(&Path::new("spec"), FIXED));
        } else if now < was && allocated.is_none_or(|a| now <= a) {
            errors.push(Error::forbidden(&at, "field can not be less than status.capacity"));
        }
    }
    errors
}
