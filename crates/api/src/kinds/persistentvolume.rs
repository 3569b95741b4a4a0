//! PersistentVolume.

use super::pod_spec;
use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Capacity", "How much the volume holds.").at("spec.capacity.storage"),
        Column::text("Access Modes", "All ways the volume can be mounted.")
            .by(|v| access_modes(v.array_at(&["spec", "accessModes"])).into()),
        Column::text("Reclaim Policy", "What happens to the volume when its claim is released.")
            .at("spec.persistentVolumeReclaimPolicy"),
        Column::text("Status", "Whether the volume is available, bound, released or failed.").by(phase),
        Column::text("Claim", "The claim that the volume is bound to.").by(claim),
        Column::text("StorageClass", "The class that the volume belongs to.").by(|v| storage_class(v).into()),
        ATTRIBUTES_CLASS,
        Column::text("Reason", "Why the volume is in its state.").at("status.reason"),
        AGE,
        VOLUME_MODE,
    ],
    defaults: |v| {
        fill::text(v.slot(&["status"]), "phase", "Pending");
        let spec = v.slot(&["spec"]);
        fill::text(spec, "persistentVolumeReclaimPolicy", "Retain");
        fill::text(spec, "volumeMode", "Filesystem");
        fill::at(spec, &["hostPath"], |h| fill::unset(h, "type", ""));
    },
    prepare_create: |v| v.set(&["status"], meta::json!({"phase": "Pending"})),
    prepare_update: keep_status,
    rules: RULES,
    validate,
    validate_update: |new, old| {
        let mut errors = Errors::new();
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

pub(super) const ATTRIBUTES_CLASS: Column =
    Column::text("VolumeAttributesClass", "The class of the volume's attributes.")
        .or("spec.volumeAttributesClassName", "<unset>");
pub(super) const VOLUME_MODE: Column =
    Column::text("VolumeMode", "A filesystem or a block device.").or("spec.volumeMode", "<unset>").wide();

/// `RWO,RWX`, as kubectl shortens access modes.
pub(super) fn access_modes(modes: &[Value]) -> String {
    const SHORT: [(&str, &str); 4] =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
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

/// The phase of a volume or claim, or that it is being deleted.
pub(super) fn phase(v: &Value) -> Cell {
    if v["metadata"]["deletionTimestamp"].is_null() {
        text(v, &["status", "phase"]).into()
    } else {
        "Terminating".into()
    }
}

fn claim(v: &Value) -> Cell {
    match (text(v, &["spec", "claimRef", "namespace"]), text(v, &["spec", "claimRef", "name"])) {
        ("", "") => "".into(),
        (namespace, name) => format!("{namespace}/{name}").into(),
    }
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
    ("spec.accessModes", Required("")),
    ("spec.capacity", Required("")),
    ("spec.persistentVolumeReclaimPolicy", OneOf(&["Delete", "Recycle", "Retain"])),
    ("spec.volumeMode", OneOf(&["Block", "Filesystem"])),
    ("spec.storageClassName", Name(names::dns1123_subdomain)),
    ("spec.hostPath.path", Required("")),
    ("spec.local.path", Required("")),
    ("spec.nfs.server", Required("")),
    ("spec.nfs.path", Required("")),
    ("spec.csi.driver", Required("")),
    ("spec.csi.volumeHandle", Required("")),
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

fn validate(v: &Value, errors: &mut Errors) {
    validate_modes(v.array_at(&["spec", "accessModes"]), &Path::new("spec.accessModes"), errors);
    let capacity = v["spec"]["capacity"].as_object();
    if capacity.is_some_and(|c| c.get("storage").is_none() || c.len() > 1) {
        let shown = &v["spec"]["capacity"];
        errors.push(Error::not_supported(&Path::new("spec.capacity"), shown, &["storage"]));
    }
    pod_spec::validate_resource_list(&v["spec"]["capacity"], &Path::new("spec.capacity"), errors);
    match SOURCES.iter().filter(|s| !v["spec"][**s].is_null()).count() {
        0 => errors.push(Error::required(&Path::new("spec"), "must specify a volume type")),
        1 => {}
        _ => errors.push(Error::forbidden(&Path::new("spec"), "may not specify more than 1 volume type")),
    }
    if !v["spec"]["local"].is_null() && v["spec"]["nodeAffinity"].is_null() {
        errors.push(Error::required(&Path::new("metadata.annotations"), "Local volume requires node affinity"));
    }
}
