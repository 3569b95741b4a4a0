//! PersistentVolume.

use super::prelude::*;
use super::{keep_all_but_status, pod_spec, restore_at};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Capacity", ".spec.capacity").at("spec.capacity.storage"),
        Column::text("Access Modes", ".spec.accessModes")
            .by(|v| access_modes(v.array_at(&["spec", "accessModes"])).into()),
        Column::text("Reclaim Policy", "").at("spec.persistentVolumeReclaimPolicy"),
        Column::text("Status", ".status.phase").by(phase),
        Column::text("Claim", ".spec.claimRef").by(claim),
        Column::text("StorageClass", "The class that the volume belongs to.").by(|v| storage_class(v).into()),
        ATTRIBUTES_CLASS,
        Column::text("Reason", "").at("status.reason"),
        AGE,
        VOLUME_MODE,
    ],
    defaults: |v| {
        fill::text(v.slot(&["status"]), "phase", "Pending");
        let spec = v.slot(&["spec"]);
        fill::text(spec, "persistentVolumeReclaimPolicy", "Retain");
        fill::unset(spec, "volumeMode", "Filesystem");
        pod_spec::source_defaults(spec);
    },
    prepare_create: |v| {
        let now = v["metadata"]["creationTimestamp"].clone();
        v.set(&["status"], meta::json!({"phase": "Pending", "lastPhaseTransitionTime": now}));
    },
    prepare_update: keep_status,
    prepare_status_update: |new, old| {
        keep_all_but_status(new, old);
        let [phase, at] = [["status", "phase"], ["status", "lastPhaseTransitionTime"]];
        if new.at(&phase) == old.at(&phase) {
            if new.at(&at).is_none_or(Value::is_null) {
                restore_at(new, old, &at);
            }
        } else if new.at(&at).is_none_or(|time| time.is_null() || Some(time) == old.at(&at)) {
            new.set(&at, meta::time::seconds(meta::time::now()));
        }
    },
    validate,
    validate_update: |new, old| {
        let mut errors = Errors::new();
        if SOURCES.iter().any(|source| new["spec"][*source] != old["spec"][*source]) {
            let detail = "spec.persistentvolumesource is immutable after creation";
            errors.push(Error::forbidden(&Path::new("spec.persistentvolumesource"), detail));
        }
        if new["spec"]["volumeMode"] != old["spec"]["volumeMode"] {
            let at = Path::new("volumeMode");
            errors.push(Error::invalid(&at, &new["spec"]["volumeMode"], "field is immutable"));
        }
        let (now, was) = (&new["spec"]["nodeAffinity"], &old["spec"]["nodeAffinity"]);
        if !was.is_null() && now != was {
            let detail = "field is immutable, except for updating from beta label to GA";
            errors.push(Error::invalid(&Path::new("nodeAffinity"), now, detail));
        }
        errors
    },
    ..Kind::PLAIN
};

pub(super) const ATTRIBUTES_CLASS: Column =
    Column::text("VolumeAttributesClass", "The class of the volume's attributes.")
        .or("spec.volumeAttributesClassName", "<unset>");
pub(super) const VOLUME_MODE: Column = Column::text("VolumeMode", "").or("spec.volumeMode", "<unset>").wide();

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

/// In the order in which upstream looks for them.
const SOURCES: &[&str] = &[
    "hostPath", "gcePersistentDisk", "awsElasticBlockStore", "glusterfs", "flocker", "nfs", "rbd", "quobyte", "cephfs",
    "iscsi", "cinder", "fc", "azureFile", "vsphereVolume", "photonPersistentDisk", "portworxVolume", "azureDisk",
    "scaleIO", "local", "storageos", "csi", "flexVolume",
];

const MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
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

/// Checks the spec of a volume, `inline` where it stands in an attachment.
pub(super) fn validate_spec(spec: &Value, path: &Path, inline: bool, errors: &mut Errors) {
    let capacity_at = path.child("capacity");
    if inline {
        for member in ["claimRef", "capacity", "persistentVolumeReclaimPolicy", "storageClassName", "volumeMode"] {
            if !spec[member].is_empty() {
                errors.push(Error::forbidden(
                    &path.child(member),
                    "may not be specified in the context of inline volumes",
                ));
            }
        }
        if spec["csi"].is_null() {
            errors.push(Error::required(&path.child("csi"), "has to be specified in the context of inline volumes"));
        }
    }
    check_at(spec, path, &[("accessModes", Required(""))], errors);
    validate_modes(spec.array_at(&["accessModes"]), &path.child("accessModes"), errors);
    if !inline {
        let capacity = spec["capacity"].as_object().filter(|c| !c.is_empty());
        if capacity.is_none() {
            errors.push(Error::required(&capacity_at, ""));
        }
        if capacity.is_none_or(|c| c.get("storage").is_none() || c.len() > 1) {
            errors.push(Error::not_supported(&capacity_at, &spec["capacity"], &["storage"]));
        }
        for (name, amount) in capacity.into_iter().flat_map(|c| c.iter()) {
            let (at, text) = (capacity_at.key(name), amount.as_str().unwrap_or_default());
            let sign = meta::quantity::Quantity::parse(text).map_or(0, |quantity| quantity.sign());
            if sign < 0 {
                errors.push(Error::invalid_raw(&at, text, "must be a valid resource quantity"));
            }
            if sign <= 0 {
                errors.push(Error::invalid(&at, text, "must be greater than zero"));
            }
        }
        check_at(spec, path, &[("persistentVolumeReclaimPolicy", OneOf(&["Delete", "Recycle", "Retain"]))], errors);
    }
    validate_affinity(&spec["nodeAffinity"], &path.child("nodeAffinity"), errors);
    validate_sources(spec, path, errors);
    if text(spec, &["hostPath", "path"]) == "/" && text(spec, &["persistentVolumeReclaimPolicy"]) == "Recycle" {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        errors.push(Error::forbidden(&path.child("persistentVolumeReclaimPolicy"), detail));
    }
    check_at(spec, path, LAST, errors);
    if let Some(class) = spec.str_at(&["volumeAttributesClassName"]) {
        let at = path.child("volumeAttributesClassName");
        if class.is_empty() {
            errors.push(Error::required(&at, "an empty string is disallowed"));
        } else {
            errors.extend(names::dns1123_subdomain(class).into_iter().map(|m| Error::invalid(&at, class, m)));
        }
        if spec["csi"].is_null() {
            let detail = "has to be specified when using volumeAttributesClassName";
            errors.push(Error::required(&path.child("csi"), detail));
        }
    }
}

const LAST: &[Rule] =
    &[("storageClassName", Name(names::dns1123_subdomain)), ("volumeMode", GivenOneOf(&["Block", "Filesystem"]))];

fn validate_affinity(affinity: &Value, path: &Path, errors: &mut Errors) {
    let (required, at) = (&affinity["required"], path.child("required"));
    match (affinity.is_null(), required.is_null()) {
        (true, _) => {}
        (false, true) => errors.push(Error::required(&at, "must specify required node constraints")),
        (false, false) => pod_spec::validate_node_selector(required, &at, errors),
    }
}

fn validate_sources(spec: &Value, path: &Path, errors: &mut Errors) {
    let mut found = 0;
    for member in SOURCES.iter().filter(|member| !spec[**member].is_null()) {
        let source = &spec[*member];
        let at = path.child(match *member {
            "gcePersistentDisk" if found == 0 => "persistentDisk",
            "cephfs" if found > 0 => "cephFS",
            member => member,
        });
        found += 1;
        if found > 1 && *member != "flexVolume" {
            errors.push(Error::forbidden(&at, "may not specify more than 1 volume type"));
            continue;
        }
        pod_spec::validate_source_of(member, source, &at, errors);
        match *member {
            "local" => {
                check_at(source, &at, &[("path", Required(""))], errors);
                if text(source, &["path"]).split('/').any(|part| part == "..") {
                    errors.push(Error::invalid(&at.child("path"), text(source, &["path"]), "must not contain '..'"));
                }
                if spec["nodeAffinity"].is_null() {
                    let detail = "Local volume requires node affinity";
                    errors.push(Error::required(&path.child("nodeAffinity"), detail));
                }
            }
            "csi" => check_at(source, &at, CSI, errors),
            "storageos" => check_at(source, &at, STORAGEOS, errors),
            "azureFile" if source.str_at(&["secretNamespace"]) == Some("") => {
                errors.push(Error::required(&at.child("secretNamespace"), ""));
            }
            "glusterfs" => {
                if let Some(namespace) = source.str_at(&["endpointsNamespace"])
                    && !names::dns1123_label(namespace).is_empty()
                {
                    let detail = "if the endpointnamespace is set, it must be a valid namespace name";
                    errors.push(Error::invalid(&at.child("endpointsNamespace"), namespace, detail));
                }
            }
            _ => {}
        }
    }
    if found == 0 {
        errors.push(Error::required(path, "must specify a volume type"));
    }
}

const CSI: &[Rule] = &[
    ("volumeHandle", Required("")),
    ("controllerPublishSecretRef.name", Required("")),
    ("controllerPublishSecretRef.name", Name(names::dns1123_subdomain)),
    ("controllerPublishSecretRef.namespace", Required("")),
    ("controllerPublishSecretRef.namespace", Name(names::dns1123_label)),
    ("controllerExpandSecretRef.name", Required("")),
    ("controllerExpandSecretRef.name", Name(names::dns1123_subdomain)),
    ("controllerExpandSecretRef.namespace", Required("")),
    ("controllerExpandSecretRef.namespace", Name(names::dns1123_label)),
    ("nodePublishSecretRef.name", Required("")),
    ("nodePublishSecretRef.name", Name(names::dns1123_subdomain)),
    ("nodePublishSecretRef.namespace", Required("")),
    ("nodePublishSecretRef.namespace", Name(names::dns1123_label)),
    ("nodeExpandSecretRef.name", Required("")),
    ("nodeExpandSecretRef.name", Name(names::dns1123_subdomain)),
    ("nodeExpandSecretRef.namespace", Required("")),
    ("nodeExpandSecretRef.namespace", Name(names::dns1123_label)),
];
const STORAGEOS: &[Rule] = &[
    ("volumeName", Required("")),
    ("volumeName", Name(names::dns1123_label)),
    ("secretRef.name", Required("")),
    ("secretRef.namespace", Required("")),
];

/// Where mount options may be written in the old way.
const MOUNTABLE: &[&str] = &[
    "awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "csi", "gcePersistentDisk", "glusterfs",
    "iscsi", "nfs", "quobyte", "rbd", "storageos", "vsphereVolume", "flexVolume",
];

fn validate(v: &Value, errors: &mut Errors) {
    validate_spec(&v["spec"], &Path::new("spec"), false, errors);
    const OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";
    let options = !text(v, &["metadata", "annotations", OPTIONS]).is_empty();
    if options && !MOUNTABLE.iter().any(|member| !v["spec"][*member].is_null()) {
        let at = Path::new("metadata.annotations").child(OPTIONS);
        errors.push(Error::forbidden(&at, "may not specify mount options for this volume type"));
    }
}
