//! Validation of containers: names, images, environment, mounts, ports, resources.

use std::collections::BTreeSet;

use meta::field::{Error, Errors, Path};
use meta::{Value, names};

use super::volume::{Volumes, validate_descending};
use super::{probe, resources};

/// Which list a container stands in.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Role {
    Main,
    Init,
    Ephemeral,
}

/// What of its pod a container is checked against.
pub(super) struct Surroundings<'a> {
    pub volumes: &'a Volumes,
    pub grace_seconds: i64,
    pub host_network: bool,
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.str_at(&[name]).unwrap_or_default()
}

/// Checks all containers of a spec.
pub(super) fn validate_containers(spec: &Value, path: &Path, around: &Surroundings<'_>, errors: &mut Errors) {
    let mut taken = BTreeSet::new();
    let lists = [("containers", Role::Main), ("initContainers", Role::Init), ("ephemeralContainers", Role::Ephemeral)];
    for (list, role) in lists {
        let containers = spec.array_at(&[list]);
        if role == Role::Main && containers.is_empty() {
            errors.push(Error::required(&path.child(list), ""));
        }
        for (i, container) in containers.iter().enumerate() {
            let at = path.child(list).index(i);
            validate_container(container, role, &at, around, errors);
            let name = text(container, "name");
            if !name.is_empty() && !taken.insert(name.to_string()) {
                errors.push(Error::duplicate(&at.child("name"), name));
            }
        }
    }
    validate_host_ports(spec, path, errors);
}

fn validate_container(container: &Value, role: Role, path: &Path, around: &Surroundings<'_>, errors: &mut Errors) {
    let name = text(container, "name");
    if name.is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    } else {
        errors.extend(names::dns1123_label(name).into_iter().map(|m| Error::invalid(&path.child("name"), name, m)));
    }
    let image = text(container, "image");
    if image.is_empty() {
        errors.push(Error::required(&path.child("image"), ""));
    } else if image.trim() != image {
        errors.push(Error::invalid(&path.child("image"), image, "must not have leading or trailing whitespace"));
    }
    match text(container, "terminationMessagePolicy") {
        "" => errors.push(Error::required(&path.child("terminationMessagePolicy"), "")),
        "File" | "FallbackToLogsOnError" => {}
        other => {
            let at = path.child("terminationMessagePolicy");
            errors.push(Error::not_supported(&at, other, &["File", "FallbackToLogsOnError"]));
        }
    }
    validate_ports(container, &path.child("ports"), around, errors);
    validate_env(container, &path.child("env"), errors);
    validate_env_from(container, &path.child("envFrom"), errors);
    validate_mounts(container, path, around.volumes, errors);
    match text(container, "imagePullPolicy") {
        "" => errors.push(Error::required(&path.child("imagePullPolicy"), "")),
        "Always" | "IfNotPresent" | "Never" => {}
        other => {
            let at = path.child("imagePullPolicy");
            errors.push(Error::not_supported(&at, other, &["Always", "IfNotPresent", "Never"]));
        }
    }
    resources::validate(&container["resources"], &path.child("resources"), errors);
    validate_security(&container["securityContext"], &path.child("securityContext"), errors);
    validate_role(container, role, path, around, errors);
}

fn validate_role(container: &Value, role: Role, path: &Path, around: &Surroundings<'_>, errors: &mut Errors) {
    let restart = text(container, "restartPolicy");
    let sidecar = role == Role::Init && restart == "Always";
    if !restart.is_empty() && role == Role::Ephemeral {
        errors.push(Error::forbidden(&path.child("restartPolicy"), "may not be set for ephemeral containers"));
    } else if !restart.is_empty() && !["Always", "Never", "OnFailure"].contains(&restart) {
        let at = path.child("restartPolicy");
        errors.push(Error::not_supported(&at, restart, &["Always", "Never", "OnFailure"]));
    }
    let probes = [("lifecycle", false), ("livenessProbe", true), ("readinessProbe", false), ("startupProbe", true)];
    for (name, must_be_one) in probes {
        let (value, at) = (&container[name], path.child(name));
        match role {
            _ if value.is_null() => {}
            Role::Ephemeral => errors.push(Error::forbidden(&at, "cannot be set for an Ephemeral Container")),
            Role::Init if !sidecar => {
                let detail = "may not be set for init containers without restartPolicy=Always";
                errors.push(Error::forbidden(&at, detail));
            }
            _ if name == "lifecycle" => probe::validate_lifecycle(value, &at, around.grace_seconds, errors),
            _ => probe::validate_probe(value, &at, must_be_one, around.grace_seconds, errors),
        }
    }
}

fn validate_ports(container: &Value, path: &Path, around: &Surroundings<'_>, errors: &mut Errors) {
    let mut taken = BTreeSet::new();
    for (i, port) in container.array_at(&["ports"]).iter().enumerate() {
        let at = path.index(i);
        let name = text(port, "name");
        if !name.is_empty() {
            let wrong = names::port_name(name);
            if wrong.is_empty() {
                if !taken.insert(name.to_string()) {
                    errors.push(Error::duplicate(&at.child("name"), name));
                }
            } else {
                errors.extend(wrong.into_iter().map(|m| Error::invalid(&at.child("name"), name, m)));
            }
        }
        let number = port.int_at(&["containerPort"]).unwrap_or(0);
        if number == 0 {
            errors.push(Error::required(&at.child("containerPort"), ""));
        } else {
            let wrong = names::port_number(number);
            errors.extend(wrong.into_iter().map(|m| Error::invalid(&at.child("containerPort"), number, m)));
        }
        let host = port.int_at(&["hostPort"]).unwrap_or(0);
        if host != 0 {
            let wrong = names::port_number(host);
            errors.extend(wrong.into_iter().map(|m| Error::invalid(&at.child("hostPort"), host, m)));
            if around.host_network && host != number {
                let detail = "must match `containerPort` when `hostNetwork` is true";
                errors.push(Error::invalid(&at.child("hostPort"), host, detail));
            }
        }
        match text(port, "protocol") {
            "" => errors.push(Error::required(&at.child("protocol"), "")),
            "TCP" | "UDP" | "SCTP" => {}
            other => {
                errors.push(Error::not_supported(&at.child("protocol"), other, &["SCTP", "TCP", "UDP"]));
            }
        }
    }
}

/// Two containers of one pod can't have the same port of the host.
fn validate_host_ports(spec: &Value, path: &Path, errors: &mut Errors) {
    let mut taken = BTreeSet::new();
    for (c, container) in spec.array_at(&["containers"]).iter().enumerate() {
        for (i, port) in container.array_at(&["ports"]).iter().enumerate() {
            let host = port.int_at(&["hostPort"]).unwrap_or(0);
            if host == 0 {
                continue;
            }
            let key = format!("{}/{}/{host}", text(port, "protocol"), text(port, "hostIP"));
            if !taken.insert(key.clone()) {
                let at = path.child("containers").index(c).child("ports").index(i).child("hostPort");
                errors.push(Error::duplicate(&at, key));
            }
        }
    }
}

fn validate_env(container: &Value, path: &Path, errors: &mut Errors) {
    for (i, env) in container.array_at(&["env"]).iter().enumerate() {
        let at = path.index(i);
        let name = text(env, "name");
        if name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        } else {
            errors.extend(names::env_var_name(name).into_iter().map(|m| Error::invalid(&at.child("name"), name, m)));
        }
        let Some(from) = env.get("valueFrom").filter(|v| !v.is_null()) else { continue };
        let at = at.child("valueFrom");
        let mut found = 0;
        for kind in ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"] {
            if from[kind].is_null() {
                continue;
            }
            found += 1;
            validate_reference(kind, &from[kind], &at.child(kind), errors);
        }
        if found == 0 {
            let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
            errors.push(Error::invalid(&at, "", detail));
        } else if !text(env, "value").is_empty() {
            errors.push(Error::invalid(&at, "", "may not be specified when `value` is not empty"));
        } else if found > 1 {
            errors.push(Error::invalid(&at, "", "may not have more than one field specified at a time"));
        }
    }
}

/// Fields of its pod that a container can see in its environment.
const FIELDS: &[&str] = &[
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP",
    "status.hostIPs", "status.podIP", "status.podIPs",
];

fn validate_reference(kind: &str, reference: &Value, at: &Path, errors: &mut Errors) {
    match kind {
        "fieldRef" => {
            let field = text(reference, "fieldPath");
            if field.is_empty() {
                errors.push(Error::required(&at.child("fieldPath"), ""));
            } else if !FIELDS.contains(&field)
                && !((field.starts_with("metadata.labels['") || field.starts_with("metadata.annotations['"))
                    && field.ends_with("']"))
            {
                errors.push(Error::not_supported(&at.child("fieldPath"), field, FIELDS));
            }
        }
        "resourceFieldRef" if text(reference, "resource").is_empty() => {
            errors.push(Error::required(&at.child("resource"), ""));
        }
        "configMapKeyRef" | "secretKeyRef" => {
            if text(reference, "name").is_empty() {
                errors.push(Error::required(&at.child("name"), ""));
            }
            let key = text(reference, "key");
            if key.is_empty() {
                errors.push(Error::required(&at.child("key"), ""));
            } else {
                errors.extend(names::config_map_key(key).into_iter().map(|m| Error::invalid(&at.child("key"), key, m)));
            }
        }
        _ => {}
    }
}

fn validate_env_from(container: &Value, path: &Path, errors: &mut Errors) {
    for (i, source) in container.array_at(&["envFrom"]).iter().enumerate() {
        let at = path.index(i);
        let prefix = text(source, "prefix");
        if !prefix.is_empty() {
            let wrong = names::env_var_name(prefix);
            errors.extend(wrong.into_iter().map(|m| Error::invalid(&at.child("prefix"), prefix, m)));
        }
        let mut found = 0;
        for kind in ["configMapRef", "secretRef"] {
            if source[kind].is_null() {
                continue;
            }
            found += 1;
            if text(&source[kind], "name").is_empty() {
                errors.push(Error::required(&at.child(kind).child("name"), ""));
            }
        }
        match found {
            0 => errors.push(Error::invalid(&at, "", "must specify one of: `configMapRef` or `secretRef`")),
            1 => {}
            _ => errors.push(Error::invalid(&at, "", "may not have more than one field specified at a time")),
        }
    }
}

fn validate_mounts(container: &Value, path: &Path, volumes: &Volumes, errors: &mut Errors) {
    let mut taken = BTreeSet::new();
    for (i, mount) in container.array_at(&["volumeMounts"]).iter().enumerate() {
        let at = path.child("volumeMounts").index(i);
        let (name, target) = (text(mount, "name"), text(mount, "mountPath"));
        if name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        } else if !volumes.contains_key(name) {
            errors.push(Error::not_found(&at.child("name"), name));
        }
        if target.is_empty() {
            errors.push(Error::required(&at.child("mountPath"), ""));
        } else if !taken.insert(target.to_string()) {
            errors.push(Error::invalid(&at.child("mountPath"), target, "must be unique"));
        }
        let sub = (text(mount, "subPath"), text(mount, "subPathExpr"));
        if !sub.0.is_empty() {
            // Compat: upstream leaves the index out.
            validate_descending(sub.0, &path.child("volumeMounts.subPath"), errors);
        }
        if !sub.1.is_empty() {
            if !sub.0.is_empty() {
                let detail = "subPathExpr and subPath are mutually exclusive";
                errors.push(Error::invalid(&at.child("subPathExpr"), sub.1, detail));
            }
            validate_descending(sub.1, &at.child("subPathExpr"), errors);
        }
        let propagation = text(mount, "mountPropagation");
        let supported: &[&str] = &["Bidirectional", "HostToContainer", "None"];
        if !propagation.is_empty() && !supported.contains(&propagation) {
            errors.push(Error::not_supported(&at.child("mountPropagation"), propagation, supported));
        }
        if propagation == "Bidirectional" && container.bool_at(&["securityContext", "privileged"]) != Some(true) {
            let detail = "Bidirectional mount propagation is available only to privileged containers";
            errors.push(Error::forbidden(&at.child("mountPropagation"), detail));
        }
    }
    for (i, device) in container.array_at(&["volumeDevices"]).iter().enumerate() {
        let at = path.child("volumeDevices").index(i);
        let name = text(device, "name");
        match volumes.get(name) {
            _ if name.is_empty() => errors.push(Error::required(&at.child("name"), "")),
            None => errors.push(Error::not_found(&at.child("name"), name)),
            Some(false) => {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(Error::invalid(&at.child("name"), name, detail));
            }
            Some(true) => {}
        }
        if text(device, "devicePath").is_empty() {
            errors.push(Error::required(&at.child("devicePath"), ""));
        }
    }
}

pub(super) fn validate_security(context: &Value, path: &Path, errors: &mut Errors) {
    for name in ["runAsUser", "runAsGroup", "fsGroup"] {
        if let Some(n) = context.int_at(&[name]).filter(|n| !(0..=i64::from(i32::MAX)).contains(n)) {
            errors.push(Error::invalid(&path.child(name), n, "must be between 0 and 2147483647, inclusive"));
        }
    }
    if context.bool_at(&["allowPrivilegeEscalation"]) == Some(false) {
        if context.bool_at(&["privileged"]) == Some(true) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(Error::invalid(path, context, detail));
        }
        let added = context.array_at(&["capabilities", "add"]);
        if added.iter().any(|c| c.as_str() == Some("CAP_SYS_ADMIN")) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(Error::invalid(path, context, detail));
        }
    }
    if let Some(seccomp) = context.get("seccompProfile").filter(|v| !v.is_null()) {
        let at = path.child("seccompProfile");
        let (ty, local) = (text(seccomp, "type"), text(seccomp, "localhostProfile"));
        match ty {
            "" => errors.push(Error::required(&at.child("type"), "type is required when seccompProfile is set")),
            "Localhost" if local.is_empty() => {
                let detail = "must be set when seccomp type is Localhost";
                errors.push(Error::required(&at.child("localhostProfile"), detail));
            }
            "RuntimeDefault" | "Unconfined" if !local.is_empty() => {
                let detail = "can only be set when seccomp type is Localhost";
                errors.push(Error::invalid(&at.child("localhostProfile"), local, detail));
            }
            "Localhost" | "RuntimeDefault" | "Unconfined" => {}
            other => {
                let supported = &["Localhost", "RuntimeDefault", "Unconfined"];
                errors.push(Error::not_supported(&at.child("type"), other, supported));
            }
        }
    }
}
