//! PersistentVolume.

use meta::field::{Error, Errors, Path};
use meta::time::Timestamp;
use meta::{Value, names};

use super::columns::{AGE, Cell, Column, NAME, age, name, text, text_or};
use super::rules::{Check, Rule, check};
use super::{Kind, fill, keep_status, pod_spec};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Capacity", "How much the volume holds."),
        Column::text("Access Modes", "All ways the volume can be mounted."),
        Column::text("Reclaim Policy", "What happens to the volume when its claim is released."),
        Column::text("Status", "Whether the volume is available, bound, released or failed."),
        Column::text("Claim", "The claim that the volume is bound to."),
        Column::text("StorageClass", "The class that the volume belongs to."),
        Column::text("VolumeAttributesClass", "The class of the volume's attributes."),
        Column::text("Reason", "Why the volume is in its state."),
        AGE,
        Column::text("VolumeMode", "A filesystem or a block device.").wide(),
    ],
    row,
    defaults: |v| {
        fill::text(v.slot(&["status"]), "phase", "Pending");
        let spec = v.slot(&["spec"]);
        fill::text(spec, "persistentVolumeReclaimPolicy", "Retain");
        fill::text(spec, "volumeMode", "Filesystem");
        fill::at(spec, &["hostPath"], |h| fill::unset(h, "type", ""));
    },
    prepare_create: |v| v.set(&["status"], meta::json!({"phase": "Pending"})),
    prepare_update: keep_status,
    validate_create: validate,
    validate_update: |new, old| {
        let mut errors = validate(new);
        let source = |v: &Value| source(v).map(|(k, s)| (k.to_string(), s.clone()));
        if source(new) != source(old) {
            let detail = "spec.persistentvolumesource is immutable after creation";
            errors.push(Error::forbidden(&Path::new("spec.persistentvolumesource"), detail));
        }
        if new["spec"]["volumeMode"] != old["spec"]["volumeMode"] {
            let at = Path::new("volumeMode");
            errors.push(Error::invalid(&at, &new["spec"]["volumeMode"], "field is immutable"));
        }
        errors
    },
    ..Kind::PLAIN
};

/// `RWO,RWX`, as kubectl shortens access modes.
pub(super) fn access_modes(modes: &[Value]) -> String {
    const SHORT: [(&str, &str); 4] = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let has = |long: &str| modes.iter().any(|m| m.as_str() == Some(long));
    SHORT.iter().filter(|(long, _)| has(long)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

/// The class of a volume or claim: the old annotation wins.
pub(super) fn storage_class(object: &Value) -> &str {
    match text(object, &["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"]) {
        "" => text(object, &["spec", "storageClassName"]),
        class => class,
    }
}

fn row(v: &Value, now: Timestamp) -> Vec<Cell> {
    let phase = if v["metadata"]["deletionTimestamp"].is_null() { text(v, &["status", "phase"]) } else { "Terminating" };
    let claim = match (text(v, &["spec", "claimRef", "namespace"]), text(v, &["spec", "claimRef", "name"])) {
        ("", "") => String::new(),
        (namespace, name) => format!("{namespace}/{name}"),
    };
    vec![
        name(v),
        text(v, &["spec", "capacity", "storage"]).into(),
        access_modes(v.array_at(&["spec", "accessModes"])).into(),
        text(v, &["spec", "persistentVolumeReclaimPolicy"]).into(),
        phase.into(),
        claim.into(),
        storage_class(v).into(),
        text_or(v, &["spec", "volumeAttributesClassName"], "<unset>"),
        text(v, &["status", "reason"]).into(),
        age(v, now),
        text_or(v, &["spec", "volumeMode"], "<unset>"),
    ]
}

const SOURCES: &[&str] = &[
    "awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "csi", "fc", "flexVolume", "flocker",
    "gcePersistentDisk", "glusterfs", "hostPath", "iscsi", "local", "nfs", "photonPersistentDisk", "portworxVolume",
    "quobyte", "rbd", "scaleIO", "storageos", "vsphereVolume",
];

fn source(v: &Value) -> Option<(&'static str, &Value)> {
    SOURCES.iter().map(|s| (*s, &v["spec"][*s])).find(|(_, value)| !value.is_null())
}

const MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const RULES: &[Rule] = &[
    ("spec.accessModes", Check::Required("")),
    ("spec.capacity", Check::Required("")),
    ("spec.persistentVolumeReclaimPolicy", Check::OneOf(&["Delete", "Recycle", "Retain"])),
    ("spec.volumeMode", Check::OneOf(&["Block", "Filesystem"])),
    ("spec.storageClassName", Check::Name(names::dns1123_subdomain)),
    ("spec.hostPath.path", Check::Required("")),
    ("spec.local.path", Check::Required("")),
    ("spec.nfs.server", Check::Required("")),
    ("spec.nfs.path", Check::Required("")),
    ("spec.csi.driver", Check::Required("")),
    ("spec.csi.volumeHandle", Check::Required("")),
];

/// Checks a list of access modes.
pub(super) fn validate_modes(modes: &[Value], path: &Path, errors: &mut Errors) {
    for mode in modes.iter().filter_map(Value::as_str).filter(|m| !MODES.contains(m)) {
        errors.push(Error::not_supported(path, mode, MODES));
    }
    if modes.len() > 1 && modes.iter().any(|m| m.as_str() == Some("ReadWriteOncePod")) {
        let detail = "may not use ReadWriteOncePod with other access modes";
        errors.push(Error::forbidden(path, detail));
    }
}

fn validate(v: &Value) -> Errors {
    let mut errors = Errors::new();
    check(v, RULES, &mut errors);
    validate_modes(v.array_at(&["spec", "accessModes"]), &Path::new("spec.accessModes"), &mut errors);
    let capacity = v["spec"]["capacity"].as_object();
    if capacity.is_some_and(|c| c.get("storage").is_none() || c.len() > 1) {
        let shown = &v["spec"]["capacity"];
        errors.push(Error::not_supported(&Path::new("spec.capacity"), shown, &["storage"]));
    }
    pod_spec::validate_resource_list(&v["spec"]["capacity"], &Path::new("spec.capacity"), &mut errors);
    match SOURCES.iter().filter(|s| !v["spec"][**s].is_null()).count() {
        0 => errors.push(Error::required(&Path::new("spec"), "must specify a volume type")),
        1 => {}
        _ => errors.push(Error::forbidden(&Path::new("spec"), "may not specify more than 1 volume type")),
    }
    if !v["spec"]["local"].is_null() && v["spec"]["nodeAffinity"].is_null() {
        errors.push(Error::required(&Path::new("metadata.annotations"), "Local volume requires node affinity"));
    }
    errors
}
