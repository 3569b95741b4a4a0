//! Validation of `spec.volumes`.

use std::collections::BTreeMap;

use meta::field::{Error, Errors, Path};
use meta::{Value, names};

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

/// Members that a kind of volume can't do without.
fn required(kind: &str) -> &'static [&'static str] {
    match kind {
        "hostPath" => &["path"],
        "secret" => &["secretName"],
        "configMap" => &["name"],
        "persistentVolumeClaim" => &["claimName"],
        "nfs" => &["server", "path"],
        "csi" => &["driver"],
        "iscsi" => &["targetPortal", "iqn"],
        "flexVolume" => &["driver"],
        "cephfs" => &["monitors"],
        "rbd" => &["monitors", "image"],
        "ephemeral" => &["volumeClaimTemplate"],
        _ => &[],
    }
}

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

fn validate_one(kind: &str, source: &Value, at: &Path, errors: &mut Errors) {
    for name in required(kind) {
        if source[*name].is_empty() {
            errors.push(Error::required(&at.child(name), ""));
        }
    }
    match kind {
        "hostPath" => {
            let path = source.str_at(&["path"]).unwrap_or_default();
            if path.split('/').any(|part| part == "..") {
                errors.push(Error::invalid(&at.child("path"), path, "must not contain '..'"));
            }
            let ty = source.str_at(&["type"]).unwrap_or_default();
            if !HOST_PATH_TYPES.contains(&ty) {
                errors.push(Error::not_supported(&at.child("type"), ty, HOST_PATH_TYPES));
            }
        }
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
