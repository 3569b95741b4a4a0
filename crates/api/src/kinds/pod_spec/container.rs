//! Validation of containers: names, images, environment, mounts, ports, resources.

use std::collections::HashSet;

use std::collections::BTreeSet;

use meta::field::{Error, Errors, Path};
use meta::{Value, names};

use super::volume::{Volumes, validate_descending};
use super::{probe, reference, resources, security};
use crate::kinds::rules::{Check, Rule, check_at};

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
    /// `spec.os.name`.
    pub os: &'a str,
    pub host_network: bool,
    pub host_users: bool,
    /// The pod is never restarted.
    pub once: bool,
    /// Names of `spec.resourceClaims`.
    pub claims: &'a BTreeSet<&'a str>,
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
            if role == Role::Ephemeral {
                let target = text(container, "targetContainerName");
                let mut others = ["containers", "initContainers"].iter().flat_map(|list| spec.array_at(&[list]));
                if !target.is_empty() && !others.any(|other| text(other, "name") == target) {
                    errors.push(Error::not_found(&at.child("targetContainerName"), target));
                }
                validate_ephemeral(container, &at, errors);
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
    if text(container, "image").is_empty() {
        errors.push(Error::required(&path.child("image"), ""));
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
    validate_env(container, &path.child("env"), around.volumes, errors);
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
    resources::validate(&container["resources"], &path.child("resources"), around.claims, errors);
    validate_resize(container, &path.child("resizePolicy"), around, errors);
    let at = path.child("securityContext");
    security::validate_context(&container["securityContext"], &at, around.host_users, errors);
    if role != Role::Ephemeral {
        validate_role(container, role, path, around, errors);
    }
}

/// Compat: upstream leaves out which of the policies it is, and which of its members.
fn validate_resize(container: &Value, path: &Path, around: &Surroundings<'_>, errors: &mut Errors) {
    let policies = container.array_at(&["resizePolicy"]);
    let mut known = HashSet::new();
    for (i, policy) in policies.iter().enumerate() {
        let resource = text(policy, "resourceName");
        if !known.insert(resource) {
            errors.push(Error::duplicate(&path.index(i), resource));
        }
        let restart = text(policy, "restartPolicy");
        for (value, supported) in [(resource, &["cpu", "memory"]), (restart, &["NotRequired", "RestartContainer"])] {
            if value.is_empty() {
                errors.push(Error::required(path, ""));
            } else if !supported.contains(&value) {
                errors.push(Error::not_supported(path, value, supported));
            }
        }
        if around.once && restart != "NotRequired" {
            let detail = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            errors.push(Error::invalid(path, restart, detail));
        }
    }
}

const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const RESTART_RULES: &[Rule] = &[
    ("action", Check::AnyOneOf(&["Restart", "RestartAllContainers"])),
    ("exitCodes", Check::Required("must be specified")),
    ("exitCodes.operator", Check::AnyOneOf(&["In", "NotIn"])),
    ("exitCodes.values", Check::MaxItems(EXIT_CODES_MAX)),
];

fn validate_restart(container: &Value, path: &Path, errors: &mut Errors) {
    let policies = &["Always", "Never", "OnFailure"];
    let policy = container.str_at(&["restartPolicy"]);
    if let Some(policy) = policy.filter(|policy| !policies.contains(policy)) {
        errors.push(Error::not_supported(&path.child("restartPolicy"), policy, policies));
    }
    let rules = container.array_at(&["restartPolicyRules"]);
    if policy.is_none() && !rules.is_empty() {
        let detail = "must specify restartPolicy when restart rules are used";
        errors.push(Error::required(&path.child("restartPolicy"), detail));
    }
    check_at(container, path, &[("restartPolicyRules", Check::MaxItems(RULES_MAX))], errors);
    for (i, rule) in rules.iter().enumerate().filter(|_| rules.len() <= RULES_MAX) {
        check_at(rule, &path.child("restartPolicyRules").index(i), RESTART_RULES, errors);
    }
}

/// What an ephemeral container may not have, in the order of its fields.
const NOT_EPHEMERAL: &[&str] = &[
    "ports", "resources", "resizePolicy", "restartPolicyRules", "livenessProbe", "readinessProbe", "startupProbe",
    "lifecycle",
];

fn validate_role(container: &Value, role: Role, path: &Path, around: &Surroundings<'_>, errors: &mut Errors) {
    let restart = text(container, "restartPolicy");
    let sidecar = role == Role::Init && restart == "Always";
    let probes = [("lifecycle", false), ("livenessProbe", true), ("readinessProbe", false), ("startupProbe", true)];
    for (name, must_be_one) in probes {
        let (value, at) = (&container[name], path.child(name));
        match role {
            _ if value.is_null() => {}
            Role::Init if !sidecar => {
                let detail = "may not be set for init containers without restartPolicy=Always";
                errors.push(Error::forbidden(&at, detail));
            }
            _ if name == "lifecycle" => probe::validate_lifecycle(value, &at, around.os, around.grace_seconds, errors),
            _ => probe::validate_probe(value, &at, name, must_be_one, around.grace_seconds, errors),
        }
    }
    validate_restart(container, path, errors);
}

/// More of an ephemeral container, which is there to look and not to serve.
fn validate_ephemeral(container: &Value, path: &Path, errors: &mut Errors) {
    if !text(container, "restartPolicy").is_empty() {
        errors.push(Error::forbidden(&path.child("restartPolicy"), "may not be set for ephemeral containers"));
    }
    let detail = "cannot be set for an Ephemeral Container";
    for field in NOT_EPHEMERAL.iter().filter(|f| !container[**f].is_empty()) {
        errors.push(Error::forbidden(&path.child(field), detail));
    }
    for (i, mount) in container.array_at(&["volumeMounts"]).iter().enumerate() {
        for field in ["subPath", "subPathExpr"].into_iter().filter(|f| !text(mount, f).is_empty()) {
            errors.push(Error::forbidden(&path.child("volumeMounts").index(i).child(field), detail));
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

fn validate_env(container: &Value, path: &Path, volumes: &Volumes, errors: &mut Errors) {
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
            let (reference, at) = (&from[kind], at.child(kind));
            match kind {
                "fieldRef" => reference::validate_field(reference, reference::ENV_FIELDS, &at, errors),
                "resourceFieldRef" => reference::validate_amount(reference, false, &at, errors),
                _ => reference::validate_key(kind, reference, &at, errors),
            }
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
    for (i, env) in container.array_at(&["env"]).iter().enumerate() {
        let reference = &env["valueFrom"]["fileKeyRef"];
        if !reference.is_null() {
            let at = path.index(i).child("valueFrom.fileKeyRef");
            reference::validate_volume(reference, volumes, &at, errors);
        }
    }
}

const REFERENCED: &[Rule] = &[("name", Check::Required("")), ("name", Check::Name(names::dns1123_subdomain))];

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
            check_at(&source[kind], &at.child(kind), REFERENCED, errors);
        }
        match found {
            // Compat: upstream leaves the index out.
            0 => errors.push(Error::invalid(path, "", "must specify one of: `configMapRef` or `secretRef`")),
            1 => {}
            _ => errors.push(Error::invalid(path, "", "may not have more than one field specified at a time")),
        }
    }
}

/// The mounts of a container and its block devices have names and paths apart.
fn validate_apart(others: &Others<'_>, item: &Value, path: &str, at: &Path, errors: &mut Errors) {
    let Others { list: others, names, paths } = others;
    if names.contains(text(item, "name")) {
        let detail = format!("must not already exist in {others}");
        errors.push(Error::invalid(&at.child("name"), text(item, "name"), detail));
    }
    if paths.contains(text(item, path)) {
        let detail = format!("must not already exist as a path in {others}");
        errors.push(Error::invalid(&at.child(path), text(item, path), detail));
    }
}

/// What the items of one list have to be apart from.
struct Others<'v> {
    list: &'static str,
    names: BTreeSet<&'v str>,
    paths: BTreeSet<&'v str>,
}

impl<'v> Others<'v> {
    fn of(container: &'v Value, (list, path): (&'static str, &'static str)) -> Others<'v> {
        let all = |field| container.array_at(&[list]).iter().map(|item| text(item, field)).collect();
        Others { list, names: all("name"), paths: all(path) }
    }
}

const MOUNTS: (&str, &str) = ("volumeMounts", "mountPath");
const DEVICES: (&str, &str) = ("volumeDevices", "devicePath");

fn validate_mounts(container: &Value, path: &Path, volumes: &Volumes, errors: &mut Errors) {
    let (mut taken, devices) = (BTreeSet::new(), Others::of(container, DEVICES));
    for (i, mount) in container.array_at(&["volumeMounts"]).iter().enumerate() {
        let at = path.child("volumeMounts").index(i);
        let (name, target) = (text(mount, "name"), text(mount, "mountPath"));
        if name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        }
        if !volumes.contains_key(name) {
            errors.push(Error::not_found(&at.child("name"), name));
        }
        if target.is_empty() {
            errors.push(Error::required(&at.child("mountPath"), ""));
        }
        if !taken.insert(target) {
            errors.push(Error::invalid(&at.child("mountPath"), target, "must be unique"));
        }
        validate_apart(&devices, mount, MOUNTS.1, &at, errors);
        let sub = (text(mount, "subPath"), text(mount, "subPathExpr"));
        // Compat: upstream leaves the index out.
        let all = path.child("volumeMounts");
        if !sub.0.is_empty() {
            validate_descending(sub.0, &all.child("subPath"), errors);
        }
        if !sub.1.is_empty() {
            if !sub.0.is_empty() {
                let detail = "subPathExpr and subPath are mutually exclusive";
                errors.push(Error::invalid(&at.child("subPathExpr"), sub.1, detail));
            }
            validate_descending(sub.1, &all.child("subPathExpr"), errors);
        }
        let propagation = mount.str_at(&["mountPropagation"]);
        let privileged = container.bool_at(&["securityContext", "privileged"]) == Some(true);
        if propagation == Some("Bidirectional") && !privileged {
            let detail = "Bidirectional mount propagation is available only to privileged containers";
            errors.push(Error::forbidden(&all.child("mountPropagation"), detail));
        }
        check_at(mount, &all, MOUNT, errors);
        if ["Enabled", "IfPossible"].contains(&text(mount, "recursiveReadOnly")) {
            let mut forbid = |detail| errors.push(Error::forbidden(&all.child("recursiveReadOnly"), detail));
            if mount.bool_at(&["readOnly"]) != Some(true) {
                forbid("may only be specified when readOnly is true");
            }
            if propagation.is_some_and(|p| p != "None") {
                forbid("may only be specified when mountPropagation is None or not specified");
            }
        }
        validate_bind_options(mount, volumes.get(name).copied(), &at, errors);
    }
    validate_devices(container, path, volumes, errors);
}

const BIND_OPTIONS: &[&str] = &["nodev", "noexec", "nosuid"];

fn validate_bind_options(mount: &Value, of: Option<&str>, at: &Path, errors: &mut Errors) {
    let (options, at) = (mount.array_at(&["bindMountOptions"]), at.child("bindMountOptions"));
    let mut known = BTreeSet::new();
    for (i, option) in options.iter().filter_map(Value::as_str).enumerate() {
        if !BIND_OPTIONS.contains(&option) {
            errors.push(Error::not_supported(&at.index(i), option, BIND_OPTIONS));
        }
        if !known.insert(option) {
            errors.push(Error::duplicate(&at.index(i), option));
        }
    }
    if of == Some("image") && !options.is_empty() {
        let detail = "bindMountOptions may not be used with image volumes";
        errors.push(Error::invalid(&at, options.to_vec(), detail));
    }
}

const MOUNT: &[Rule] = &[
    ("mountPropagation", Check::GivenOneOf(&["Bidirectional", "HostToContainer", "None"])),
    ("recursiveReadOnly", Check::GivenOneOf(&["Disabled", "Enabled", "IfPossible"])),
];

fn validate_devices(container: &Value, path: &Path, volumes: &Volumes, errors: &mut Errors) {
    let devices = container.array_at(&["volumeDevices"]);
    let (mut known, mounts) = (HashSet::new(), Others::of(container, MOUNTS));
    for (i, device) in devices.iter().enumerate() {
        let at = path.child("volumeDevices").index(i);
        let (name, target) = (text(device, "name"), text(device, "devicePath"));
        let [is_taken, is_used] = [("name", name), ("devicePath", target)].map(|pair| !known.insert(pair));
        if name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        }
        if is_taken {
            errors.push(Error::invalid(&at.child("name"), name, "must be unique"));
        }
        match volumes.get(name).copied() {
            None => errors.push(Error::not_found(&at.child("name"), name)),
            Some("persistentVolumeClaim" | "ephemeral") => {}
            Some(_) => {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(Error::invalid(&at.child("name"), name, detail));
            }
        }
        if target.is_empty() {
            errors.push(Error::required(&at.child("devicePath"), ""));
        }
        if is_used {
            errors.push(Error::invalid(&at.child("devicePath"), target, "must be unique"));
        }
        if target.split('/').any(|part| part == "..") {
            errors.push(Error::invalid(&at.child("devicePath"), target, "can not contain backsteps ('..')"));
        }
        validate_apart(&mounts, device, DEVICES.1, &at, errors);
    }
}
