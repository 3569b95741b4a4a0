//! Validation of what names a field of a pod, an amount of a container or a key elsewhere: in environments and volumes.

use meta::field::{Error, Errors, Path};
use meta::quantity::Quantity;
use meta::{Value, names};

use super::volume::Volumes;

/// Fields of its pod that a container can see in its environment.
pub(super) const ENV_FIELDS: &[&str] = &[
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP",
    "status.hostIPs", "status.podIP", "status.podIPs",
];
/// Those that it can see as files.
pub(super) const VOLUME_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
/// Those that are fields, but can be seen nowhere.
const OTHER_FIELDS: &[&str] = &["spec.restartPolicy", "spec.schedulerName", "status.phase"];

const AMOUNTS: &[&str] = &[
    "limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage",
    "requests.memory",
];
const BYTES: &str = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei";

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.str_at(&[name]).unwrap_or_default()
}

/// Checks a `fieldRef`.
pub(super) fn validate_field(reference: &Value, supported: &[&str], path: &Path, errors: &mut Errors) {
    let (field, at) = (text(reference, "fieldPath"), path.child("fieldPath"));
    let (name, key) = match field.strip_suffix("']").and_then(|f| f.split_once("['")) {
        Some((name, key)) => (name, Some(key)),
        None => (field, None),
    };
    let known = [ENV_FIELDS, VOLUME_FIELDS, OTHER_FIELDS].iter().any(|fields| fields.contains(&name));
    let wrong = match text(reference, "apiVersion") {
        _ if field.is_empty() => return errors.push(Error::required(&at, "")),
        version if version != "v1" => Some(format!("unsupported pod version: {version}")),
        _ if !known => Some(format!("field label not supported: {name}")),
        _ => key
            .filter(|_| !["metadata.annotations", "metadata.labels"].contains(&name))
            .map(|_| format!("field label does not support subscript: {field}")),
    };
    match (wrong, key) {
        (Some(wrong), _) => errors.push(Error::invalid(&at, field, format!("error converting fieldPath: {wrong}"))),
        (None, Some(key)) => {
            let key = if name == "metadata.annotations" { key.to_lowercase() } else { key.to_string() };
            let faults = names::qualified_name(&key).into_iter();
            errors.extend(faults.map(|m| Error::invalid(path, key.as_str(), m)));
        }
        (None, None) if !supported.contains(&name) => errors.push(Error::not_supported(&at, field, supported)),
        _ => {}
    }
}

/// Checks a `resourceFieldRef`; that of a volume has to say of which container.
pub(super) fn validate_amount(reference: &Value, of_volume: bool, path: &Path, errors: &mut Errors) {
    let resource = text(reference, "resource");
    if of_volume && text(reference, "containerName").is_empty() {
        return errors.push(Error::required(&path.child("containerName"), ""));
    }
    if resource.is_empty() {
        return errors.push(Error::required(&path.child("resource"), ""));
    }
    let name = resource.strip_prefix("limits.").or_else(|| resource.strip_prefix("requests.")).unwrap_or_default();
    let (divisors, what) = match name {
        _ if !AMOUNTS.contains(&resource) && !name.starts_with("hugepages-") => {
            return errors.push(Error::not_supported(&path.child("resource"), resource, AMOUNTS));
        }
        "cpu" => ("1m and 1", "cpu"),
        "memory" => (BYTES, "memory"),
        "ephemeral-storage" => (BYTES, "local ephemeral storage"),
        _ => (BYTES, "hugepages"),
    };
    let divisor = Quantity::parse(text(reference, "divisor")).ok().filter(|d| !d.is_zero());
    if divisor.is_some_and(|d| !divisors.split([' ', ',']).any(|known| known == d.to_string())) {
        let detail = format!("only divisor's values {divisors} are supported with the {what} resource");
        errors.push(Error::invalid(&path.child("divisor"), resource, detail));
    }
}

/// Checks a `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`.
pub(super) fn validate_key(kind: &str, reference: &Value, path: &Path, errors: &mut Errors) {
    let in_file = kind == "fileKeyRef";
    let mut named = |field: &str, rule: fn(&str) -> Vec<String>, required: bool| {
        let (value, at) = (text(reference, field), path.child(field));
        if value.is_empty() && required {
            return errors.push(Error::required(&at, ""));
        }
        errors.extend(rule(value).into_iter().map(|m| Error::invalid(&at, value, m)));
    };
    if !in_file {
        named("name", names::dns1123_subdomain, false);
        named("key", names::config_map_key, true);
        return;
    }
    named("key", names::env_var_name, true);
    named("volumeName", names::dns1123_label, true);
    named("path", super::volume::no_way_up, true);
}

/// Checks that a `fileKeyRef` names a volume that can have the file.
pub(super) fn validate_volume(reference: &Value, volumes: &Volumes, path: &Path, errors: &mut Errors) {
    let (volume, at) = (text(reference, "volumeName"), path.child("volumeName"));
    match volumes.get(volume) {
        None => errors.push(Error::not_found(&at, volume)),
        Some(kind) if *kind != "emptyDir" => {
            errors.push(Error::invalid(&at, volume, "referenced volume must be of type emptyDir"));
        }
        _ => {}
    }
}
