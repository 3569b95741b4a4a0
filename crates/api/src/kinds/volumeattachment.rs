//! VolumeAttachment.

use super::prelude::*;
use super::{csidriver, devices};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Attacher", "").at("spec.attacher").naming(),
        Column::text("PV", "").at("spec.source.persistentVolumeName"),
        Column::text("Node", "").at("spec.nodeName"),
        Column::flag("Attached", "").at("status.attached"),
        AGE,
    ],
    prepare_create: |a| a.set(&["status"], json!({"attached": false})),
    rules: &[("spec", Fixed)],
    validate,
    validate_create: |a| {
        let mut errors = Errors::new();
        devices::validate_driver(text(a, &["spec", "attacher"]), &Path::new("spec.attacher"), &mut errors);
        check(a, &[("spec.source.persistentVolumeName", GivenName(names::dns1123_subdomain))], &mut errors);
        errors
    },
    validate_update: |new, _| {
        csidriver::validate_lower_name(text(new, &["spec", "attacher"]), &Path::new("spec.attacher"))
    },
    validate_status_update: |new, _| {
        let mut errors = Errors::new();
        for error in ["status.attachError.errorCode", "status.detachError.errorCode"] {
            check(new, &[(error, Range(0, i32::MAX as i64))], &mut errors);
        }
        errors
    },
    unconditional_update: false,
    status_restores: &OWN_METADATA,
    ..Kind::PLAIN
};

fn validate(a: &Value, errors: &mut Errors) {
    let (spec, path) = (&a["spec"], Path::new("spec"));
    let (source, at) = (&spec["source"], path.child("source"));
    let (name, inline) = (&source["persistentVolumeName"], &source["inlineVolumeSpec"]);
    let detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (name.is_null(), inline.is_null()) {
        (true, true) => errors.push(Error::required(&at, detail)),
        (false, false) => errors.push(Error::forbidden(&at, detail)),
        (false, true) => {
            let at = at.child("persistentVolumeName");
            if name.is_empty() {
                errors.push(Error::required(&at, "must specify non empty persistentVolumeName"));
            }
        }
        (true, false) => super::persistentvolume::validate_spec(inline, &at.child("inlineVolumeSpec"), true, errors),
    }
    let node = text(spec, &["nodeName"]);
    let wrong = names::dns1123_subdomain(node).into_iter();
    errors.extend(wrong.map(|m| Error::invalid(&path.child("nodeName"), node, m)));
}
