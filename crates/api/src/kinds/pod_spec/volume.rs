//! Validation of `spec.volumes`.

use std::collections::BTreeMap;

use meta::field::{Error, Errors, Path};
use meta::quantity::Quantity;
use meta::{Value, names};

use super::security::ID;
use super::{projected, reference};
use crate::kinds::rules::Check::*;
use crate::kinds::rules::{Check, Rule, check_at};
use crate::kinds::{object_meta, persistentvolumeclaim};

/// What the containers may mount: the volumes' names, and of which source each is.
pub(super) type Volumes = BTreeMap<String, &'static str>;

/// Checks the volumes; answers those that have a usable name.
pub(super) fn validate_volumes(spec: &Value, path: &Path, errors: &mut Errors) -> Volumes {
    let mut known = Volumes::new();
    for (i, volume) in spec.array_at(&["volumes"]).iter().enumerate() {
        let at = path.index(i);
        let mut wrong = Errors::new();
        validate_source(volume, &at, &mut wrong);
        let name = volume.str_at(&["name"]).unwrap_or_default();
        let name_at = at.child("name");
        if name.is_empty() {
            wrong.push(Error::required(&name_at, ""));
        } else {
            wrong.extend(names::dns1123_label(name).into_iter().map(|m| Error::invalid(&name_at, name, m)));
        }
        if known.contains_key(name) {
            wrong.push(Error::duplicate(&name_at, name));
        }
        if wrong.is_empty() {
            let source = SOURCES.into_iter().find(|member| !volume[*member].is_null());
            known.insert(name.to_string(), source.unwrap_or_default());
        }
        errors.extend(wrong);
    }
    known
}

/// The sources in upstream's order.
const SOURCES: [&str; 30] = [
    "emptyDir", "hostPath", "gitRepo", "gcePersistentDisk", "awsElasticBlockStore", "secret", "nfs", "iscsi",
    "glusterfs", "flocker", "persistentVolumeClaim", "rbd", "cinder", "cephfs", "quobyte", "downwardAPI", "fc",
    "flexVolume", "configMap", "azureFile", "vsphereVolume", "photonPersistentDisk", "portworxVolume", "azureDisk",
    "storageos", "projected", "scaleIO", "csi", "ephemeral", "image",
];

fn validate_source(volume: &Value, path: &Path, errors: &mut Errors) {
    let mut given = SOURCES.into_iter().filter(|kind| !volume[*kind].is_null());
    let Some(kind) = given.next() else {
        return errors.push(Error::required(path, "must specify a volume type"));
    };
    // Compat: some are called otherwise in messages.
    let shown = if kind == "gcePersistentDisk" { "persistentDisk" } else { kind };
    validate_one(kind, &volume[kind], &path.child(shown), errors);
    for kind in given {
        let shown = match kind {
            "cephfs" => "cephFS",
            "downwardAPI" => "downwarAPI",
            kind => kind,
        };
        errors.push(Error::forbidden(&path.child(shown), "may not specify more than 1 volume type"));
    }
}

/// What must hold in a source, in upstream's order; of volumes in pods and of those in the cluster.
pub fn source_rules(kind: &str) -> &'static [Rule] {
    match kind {
        "hostPath" => &[("path", Required("")), ("path", Name(no_way_up)), ("type", OneOf(HOST_PATH_TYPES))],
        "gcePersistentDisk" => &[("pdName", Required("")), ("partition", Partition)],
        "awsElasticBlockStore" => &[("volumeID", Required("")), ("partition", Partition)],
        "glusterfs" => &[("endpoints", Required("")), ("path", Required(""))],
        "nfs" => &[("server", Required("")), ("path", Required("")), ("path", AnyName(absolute))],
        "rbd" => &[("monitors", Required("")), ("image", Required(""))],
        "quobyte" => &[("registry", Required(REGISTRY)), ("registry", Name(registry)), ("volume", Required(""))],
        "cephfs" => &[("monitors", Required(""))],
        "iscsi" => &[("targetPortal", Required("")), ("iqn", Required("")), ("iqn", Name(iqn)), ("lun", Range(0, 255))],
        "cinder" => {
            &[("volumeID", Required("")), ("secretRef.name", Required("")), ("secretRef.namespace", Required(""))]
        }
        "azureFile" => &[("secretName", Required("")), ("shareName", Required(""))],
        "vsphereVolume" => &[("volumePath", Required(""))],
        "photonPersistentDisk" => &[("pdID", Required(""))],
        "portworxVolume" => &[("volumeID", Required(""))],
        "azureDisk" => &[
            ("diskName", Required("")),
            ("diskURI", Required("")),
            ("cachingMode", GivenOneOf(&["None", "ReadOnly", "ReadWrite"])),
            ("kind", GivenOneOf(&["Dedicated", "Managed", "Shared"])),
        ],
        "scaleIO" => &[("gateway", Required("")), ("system", Required("")), ("volumeName", Required(""))],
        "flexVolume" => &[("driver", Required(""))],
        "secret" => &[("secretName", Required(""))],
        "configMap" => &[("name", Required(""))],
        "persistentVolumeClaim" => &[("claimName", Required(""))],
        "csi" => &[
            ("driver", Required("")),
            ("driver", MaxBytes(63)),
            ("driver", Name(names::dns1123_subdomain)),
            ("nodePublishSecretRef.name", Required("")),
        ],
        "gitRepo" => &[("repository", Required("")), ("directory", Name(descending))],
        "image" => &[("reference", Required("")), ("pullPolicy", OneOf(&["Always", "IfNotPresent", "Never"]))],
        "storageos" => &[
            ("volumeName", Required("")),
            ("volumeName", Name(names::dns1123_label)),
            ("volumeNamespace", Name(names::dns1123_label)),
            ("secretRef.name", Required("")),
        ],
        "ephemeral" => &[("volumeClaimTemplate", Required(""))],
        _ => &[],
    }
}

#[allow(non_upper_case_globals)] // reads as a check
const Partition: Check = Range(1, 255);

/// Checks a source by its rules, and what they can't say.
pub fn validate_source_of(kind: &str, source: &Value, at: &Path, errors: &mut Errors) {
    check_at(source, at, source_rules(kind), errors);
    let text = |name: &str| source.str_at(&[name]).unwrap_or_default();
    match kind {
        "fc" => {
            let (names, ids) = (source.array_at(&["targetWWNs"]), source.array_at(&["wwids"]));
            match (names, ids) {
                ([], []) => {
                    let detail = "must specify either targetWWNs or wwids, but not both";
                    errors.push(Error::required(&at.child("targetWWNs"), detail));
                }
                ([_, ..], [_, ..]) => {
                    let detail = "targetWWNs and wwids can not be specified simultaneously";
                    errors.push(Error::invalid(&at.child("targetWWNs"), names.to_vec(), detail));
                }
                _ => {}
            }
            if !names.is_empty() {
                if source["lun"].is_null() {
                    errors.push(Error::required(&at.child("lun"), "lun is required if targetWWNs is specified"));
                }
                check_at(source, at, &[("lun", Range(0, 255))], errors);
            }
        }
        "flocker" => {
            let (name, id) = (text("datasetName"), text("datasetUUID"));
            match (name, id) {
                ("", "") => errors.push(Error::required(at, "one of datasetName and datasetUUID is required")),
                (name, id) if !name.is_empty() && !id.is_empty() => {
                    let detail = "datasetName and datasetUUID can not be specified simultaneously";
                    errors.push(Error::invalid(at, "resource", detail));
                }
                _ => {}
            }
            if name.contains('/') {
                errors.push(Error::invalid(&at.child("datasetName"), name, "must not contain '/'"));
            }
        }
        "azureDisk" => {
            let (uri, managed) = (text("diskURI"), text("kind") == "Managed");
            let (start, shape) = match managed {
                true => ("/subscriptions/", MANAGED_DISK),
                false => ("https://", BLOB_DISK),
            };
            if !uri.starts_with(start) {
                errors.push(Error::not_supported(&at.child("diskURI"), uri, &[shape]));
            }
        }
        "iscsi" => {
            let chap = ["chapAuthDiscovery", "chapAuthSession"].iter().any(|c| source.bool_at(&[c]) == Some(true));
            if chap && source["secretRef"].is_null() {
                errors.push(Error::required(&at.child("secretRef"), ""));
            }
            check_at(source, at, &[("secretRef.name", Required(""))], errors);
            let initiator = text("initiatorName");
            let wrong = if source["initiatorName"].is_null() { Vec::new() } else { iqn(initiator) };
            errors.extend(wrong.into_iter().map(|m| Error::invalid(&at.child("initiatorname"), initiator, m)));
        }
        _ => {}
    }
}

const BLOB_DISK: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
const MANAGED_DISK: &str =
    "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
const REGISTRY: &str = "must be a host:port pair or multiple pairs separated by commas";

fn fault(is: bool, message: &str) -> Vec<String> {
    is.then(|| message.to_string()).into_iter().collect()
}

pub(super) fn no_way_up(path: &str) -> Vec<String> {
    fault(path.split('/').any(|part| part == ".."), "must not contain '..'")
}

fn absolute(path: &str) -> Vec<String> {
    fault(!path.starts_with('/'), "must be an absolute path")
}

fn registry(text: &str) -> Vec<String> {
    fault(!text.split(',').all(|pair| pair.contains(':')), REGISTRY)
}

/// Names of iSCSI nodes begin with how they are made. Source: RFC 3720, section 3.2.6.3.
fn iqn(name: &str) -> Vec<String> {
    let rest = name.strip_prefix("iqn.").map(|rest| rest.as_bytes());
    let dated =
        rest.is_some_and(|r| r.len() > 8 && r[4] == b'-' && r[..4].iter().all(u8::is_ascii_digit) && r[7] == b'.');
    fault(!dated && !name.starts_with("eui.") && !name.starts_with("naa."), "must be valid format")
}

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

fn validate_one(kind: &str, source: &Value, at: &Path, errors: &mut Errors) {
    validate_source_of(kind, source, at, errors);
    match kind {
        "emptyDir" => {
            let limit = source.str_at(&["sizeLimit"]).and_then(|limit| Quantity::parse(limit).ok());
            if limit.is_some_and(|limit| limit.sign() < 0) {
                let detail = "SizeLimit field must be a valid resource quantity";
                errors.push(Error::forbidden(&at.child("sizeLimit"), detail));
            }
            validate_bits(source, "mode", 0o1777, at, errors);
        }
        "secret" | "configMap" => {
            validate_mode(source, "defaultMode", at, errors);
            check_at(source, at, DEFAULT_USER, errors);
            validate_items(source, at, errors);
        }
        "downwardAPI" => {
            validate_mode(source, "defaultMode", at, errors);
            check_at(source, at, DEFAULT_USER, errors);
            validate_downward(source, at, errors);
        }
        "projected" => projected::validate(source, at, errors),
        "ephemeral" if !source["volumeClaimTemplate"].is_null() => {
            validate_claim_template(&source["volumeClaimTemplate"], &at.child("volumeClaimTemplate"), errors);
        }
        _ => {}
    }
}

/// Whose a file is.
pub(super) const USER: &[Rule] = &[("user", ID)];
pub(super) const DEFAULT_USER: &[Rule] = &[("defaultUser", ID)];

pub(super) fn validate_mode(source: &Value, name: &str, at: &Path, errors: &mut Errors) {
    validate_bits(source, name, 0o777, at, errors);
}

fn validate_bits(source: &Value, name: &str, all: i64, at: &Path, errors: &mut Errors) {
    if let Some(mode) = source.int_at(&[name]).filter(|mode| !(0..=all).contains(mode)) {
        let detail = format!("must be a number between 0 and 0{all:o} (octal), both inclusive");
        errors.push(Error::invalid(&at.child(name), mode, detail));
    }
}

/// Checks `items` that pick keys.
pub(super) fn validate_items(source: &Value, at: &Path, errors: &mut Errors) {
    for (i, item) in source.array_at(&["items"]).iter().enumerate() {
        let at = at.child("items").index(i);
        if item.str_at(&["key"]).unwrap_or_default().is_empty() {
            errors.push(Error::required(&at.child("key"), ""));
        }
        validate_item_path(item, &at, errors);
        validate_mode(item, "mode", &at, errors);
        check_at(item, &at, USER, errors);
    }
}

fn validate_item_path(item: &Value, at: &Path, errors: &mut Errors) {
    validate_file(item.str_at(&["path"]).unwrap_or_default(), &at.child("path"), errors);
}

pub(super) fn validate_file(path: &str, at: &Path, errors: &mut Errors) {
    if path.is_empty() {
        errors.push(Error::required(at, ""));
    } else {
        validate_descending(path, at, errors);
        if path.starts_with("..") && !path.starts_with("../") {
            errors.push(Error::invalid(at, path, "must not start with '..'"));
        }
    }
}

/// A relative path that does not leave its directory.
pub(super) fn validate_descending(path: &str, at: &Path, errors: &mut Errors) {
    errors.extend(descending(path).into_iter().map(|m| Error::invalid(at, path, m)));
}

fn descending(path: &str) -> Vec<String> {
    let mut wrong = fault(path.starts_with('/'), "must be a relative path");
    wrong.extend(no_way_up(path));
    wrong
}

/// Compat: upstream leaves out which item it is.
pub(super) fn validate_downward(source: &Value, at: &Path, errors: &mut Errors) {
    for item in source.array_at(&["items"]) {
        validate_item_path(item, at, errors);
        let (field, amount) = (&item["fieldRef"], &item["resourceFieldRef"]);
        if !field.is_null() {
            reference::validate_field(field, reference::VOLUME_FIELDS, &at.child("fieldRef"), errors);
            if !amount.is_null() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(Error::invalid(at, "resource", detail));
            }
        } else if !amount.is_null() {
            reference::validate_amount(amount, true, &at.child("resourceFieldRef"), errors);
        } else {
            errors.push(Error::required(at, "one of fieldRef and resourceFieldRef is required"));
        }
        validate_mode(item, "mode", at, errors);
        check_at(item, at, USER, errors);
    }
}

/// What a claim that a pod brings along can't say in its metadata.
const NOT_IN_TEMPLATES: &[&str] = &[
    "name", "generateName", "namespace", "selfLink", "uid", "resourceVersion", "generation", "creationTimestamp",
    "deletionTimestamp", "deletionGracePeriodSeconds", "ownerReferences", "finalizers", "managedFields",
];

fn validate_claim_template(template: &Value, at: &Path, errors: &mut Errors) {
    validate_template_meta(&template["metadata"], &at.child("metadata"), errors);
    persistentvolumeclaim::validate_spec(template, &at.child("spec"), errors);
}

/// Checks the metadata of a template of claims, for volumes or devices: labels and annotations only.
pub fn validate_template_meta(meta: &Value, meta_at: &Path, errors: &mut Errors) {
    if let Some(annotations) = meta["annotations"].as_object() {
        object_meta::validate_annotations(annotations, &meta_at.child("annotations"), errors);
    }
    check_at(meta, meta_at, &[("labels", Labels)], errors);
    for field in NOT_IN_TEMPLATES.iter().filter(|field| !meta[**field].is_null()) {
        let shown = if *field == "uid" { "uID" } else { field };
        errors.push(Error::forbidden(&meta_at.child(shown), "cannot be set"));
    }
}
