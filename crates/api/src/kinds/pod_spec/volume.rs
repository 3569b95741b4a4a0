//! Validation of `spec.volumes`.

use std::collections::BTreeMap;

use meta::field::{Error, Errors, Path};
use meta::{Value, names};

use crate::kinds::rules::Check::*;
use crate::kinds::rules::{Check, Rule, check_at};

/// What the containers may mount: volume name to whether it is a claim (which may be a block device).
pub(super) type Volumes = BTreeMap<String, bool>;

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
            let claim = !volume["persistentVolumeClaim"].is_null() || !volume["ephemeral"].is_null();
            known.insert(name.to_string(), claim);
        }
        errors.extend(wrong);
    }
    known
}

fn validate_source(volume: &Value, path: &Path, errors: &mut Errors) {
    let Some(members) = volume.as_object() else { return };
    let mut found = 0;
    for (kind, source) in members.iter().filter(|(k, v)| *k != "name" && !v.is_null()) {
        let at = path.child(kind);
        found += 1;
        if found > 1 {
            errors.push(Error::forbidden(&at, "may not specify more than 1 volume type"));
        } else {
            validate_one(kind, source, &at, errors);
        }
    }
    if found == 0 {
        errors.push(Error::required(path, "must specify a volume type"));
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
        "iscsi" => &[
            ("targetPortal", Required("")),
            ("iqn", Required("")),
            ("iqn", Name(iqn)),
            ("lun", Range(0, 255)),
            ("secretRef.name", Required("")),
        ],
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
            ("cachingMode", OneOf(&["None", "ReadOnly", "ReadWrite"])),
            ("kind", OneOf(&["Dedicated", "Managed", "Shared"])),
        ],
        "scaleIO" => &[("gateway", Required("")), ("system", Required("")), ("volumeName", Required(""))],
        "flexVolume" => &[("driver", Required(""))],
        "secret" => &[("secretName", Required(""))],
        "configMap" => &[("name", Required(""))],
        "persistentVolumeClaim" => &[("claimName", Required(""))],
        "csi" => &[("driver", Required("")), ("driver", Name(names::dns1123_subdomain))],
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
            let initiator = text("initiatorName");
            let wrong = if initiator.is_empty() { Vec::new() } else { iqn(initiator) };
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

fn no_way_up(path: &str) -> Vec<String> {
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
            if let Some(limit) = source.get("sizeLimit").filter(|v| !v.is_null()) {
                super::validate_quantity(limit, &at.child("sizeLimit"), errors);
            }
        }
        "secret" | "configMap" => {
            validate_mode(source, "defaultMode", at, errors);
            validate_items(source, at, errors);
        }
        "downwardAPI" => {
            validate_mode(source, "defaultMode", at, errors);
            validate_downward(source, at, errors);
        }
        "projected" => validate_projected(source, at, errors),
        _ => {}
    }
}

fn validate_mode(source: &Value, name: &str, at: &Path, errors: &mut Errors) {
    if let Some(mode) = source.int_at(&[name]).filter(|m| !(0..=0o777).contains(m)) {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.push(Error::invalid(&at.child(name), mode, detail));
    }
}

/// Checks `items` that pick keys.
fn validate_items(source: &Value, at: &Path, errors: &mut Errors) {
    for (i, item) in source.array_at(&["items"]).iter().enumerate() {
        let at = at.child("items").index(i);
        if item.str_at(&["key"]).unwrap_or_default().is_empty() {
            errors.push(Error::required(&at.child("key"), ""));
        }
        validate_item_path(item, &at, errors);
        validate_mode(item, "mode", &at, errors);
    }
}

fn validate_item_path(item: &Value, at: &Path, errors: &mut Errors) {
    let path = item.str_at(&["path"]).unwrap_or_default();
    if path.is_empty() {
        errors.push(Error::required(&at.child("path"), ""));
    } else {
        validate_descending(path, &at.child("path"), errors);
        if path.starts_with("..") && !path.starts_with("../") && path != ".." {
            errors.push(Error::invalid(&at.child("path"), path, "must not start with '..'"));
        }
    }
}

/// A relative path that does not leave its directory.
pub(super) fn validate_descending(path: &str, at: &Path, errors: &mut Errors) {
    if path.starts_with('/') {
        errors.push(Error::invalid(at, path, "must be a relative path"));
    }
    if path.split('/').any(|part| part == "..") {
        errors.push(Error::invalid(at, path, "must not contain '..'"));
    }
}

fn validate_downward(source: &Value, at: &Path, errors: &mut Errors) {
    for (i, item) in source.array_at(&["items"]).iter().enumerate() {
        let at = at.child("items").index(i);
        validate_item_path(item, &at, errors);
        match (item["fieldRef"].is_null(), item["resourceFieldRef"].is_null()) {
            (true, true) => errors.push(Error::required(&at, "one of fieldRef and resourceFieldRef is required")),
            (false, false) => {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(Error::invalid(&at, "resource", detail));
            }
            _ => {}
        }
        validate_mode(item, "mode", &at, errors);
    }
}

fn validate_projected(source: &Value, at: &Path, errors: &mut Errors) {
    validate_mode(source, "defaultMode", at, errors);
    for (i, part) in source.array_at(&["sources"]).iter().enumerate() {
        let at = at.child("sources").index(i);
        let kinds =
            ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];
        let mut found = 0;
        for kind in kinds.into_iter().filter(|k| !part[*k].is_null()) {
            found += 1;
            let at = at.child(kind);
            if found > 1 {
                errors.push(Error::forbidden(&at, "may not specify more than 1 volume type"));
                continue;
            }
            match kind {
                "secret" | "configMap" => {
                    if part[kind]["name"].is_empty() {
                        errors.push(Error::required(&at.child("name"), ""));
                    }
                    validate_items(&part[kind], &at, errors);
                }
                "downwardAPI" => validate_downward(&part[kind], &at, errors),
                "serviceAccountToken" => {
                    if let Some(n) = part.int_at(&[kind, "expirationSeconds"]) {
                        let at = at.child("expirationSeconds");
                        if n < 600 {
                            errors.push(Error::invalid(&at, n, "may not specify a duration less than 10 minutes"));
                        } else if n > 1 << 32 {
                            errors.push(Error::invalid(&at, n, "may not specify a duration larger than 2^32 seconds"));
                        }
                    }
                    if part[kind]["path"].is_empty() {
                        errors.push(Error::required(&at.child("path"), ""));
                    }
                }
                _ => {}
            }
        }
        if found == 0 {
            errors.push(Error::required(&at, "must specify a volume type"));
        }
    }
}
