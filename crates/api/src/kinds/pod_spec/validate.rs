//! Validation of a PodSpec as a whole, and of a pod template.

use meta::field::{Error, Errors, Path};
use meta::selector::{LabelSelector, validate_labels};
use meta::{Value, names};

use super::affinity::{validate_affinity, validate_spread, validate_tolerations};
use super::container::{Surroundings, validate_containers, validate_security};
use super::volume::validate_volumes;
use crate::kinds::object_meta;
use crate::kinds::rules::{Check, Rule, check_at};

const RULES: &[Rule] = &[
    ("restartPolicy", Check::RequiredOneOf(&["Always", "OnFailure", "Never"])),
    ("dnsPolicy", Check::RequiredOneOf(&["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"])),
    ("nodeSelector", Check::Labels),
    ("serviceAccountName", Check::Name(names::dns1123_subdomain)),
    ("nodeName", Check::Name(names::dns1123_subdomain)),
    ("activeDeadlineSeconds", Check::Range(1, i32::MAX as i64)),
    ("hostname", Check::Name(names::dns1123_label)),
    ("subdomain", Check::Name(names::dns1123_label)),
    ("priorityClassName", Check::Name(names::dns1123_subdomain)),
    ("runtimeClassName", Check::Name(names::dns1123_subdomain)),
    ("schedulerName", Check::Name(names::dns1123_subdomain)),
    ("preemptionPolicy", Check::OneOf(&["Never", "PreemptLowerPriority"])),
    ("imagePullSecrets[].name", Check::Required("")),
    ("terminationGracePeriodSeconds", Check::NonNegative),
    ("securityContext.fsGroupChangePolicy", Check::OneOf(&["Always", "OnRootMismatch"])),
];

/// Checks a PodSpec at `path`.
pub fn validate(spec: &Value, path: &Path, errors: &mut Errors) {
    let volumes = validate_volumes(spec, &path.child("volumes"), errors);
    let around = Surroundings {
        volumes: &volumes,
        grace_seconds: spec.int_at(&["terminationGracePeriodSeconds"]).unwrap_or(30),
        host_network: spec.bool_at(&["hostNetwork"]) == Some(true),
    };
    validate_containers(spec, path, &around, errors);
    check_at(spec, path, RULES, errors);
    let os = &spec["os"];
    match os.str_at(&["name"]).unwrap_or_default() {
        _ if os.is_null() => {}
        "" => errors.push(Error::required(&path.child("os.name"), "cannot be empty")),
        "linux" | "windows" => {}
        name => errors.push(Error::not_supported(&path.child("os"), name, &["linux", "windows"])),
    }
    validate_security(&spec["securityContext"], &path.child("securityContext"), errors);
    validate_sysctls(spec, &path.child("securityContext.sysctls"), errors);
    validate_affinity(&spec["affinity"], &path.child("affinity"), errors);
    validate_dns(spec, &path.child("dnsConfig"), errors);
    validate_gates(spec, path, errors);
    validate_spread(spec, &path.child("topologySpreadConstraints"), errors);
    // Compat: upstream lists operators of a gate that is off.
    let operators = &["Equal", "Exists", "Lt", "Gt"];
    validate_tolerations(spec.array_at(&["tolerations"]), &path.child("tolerations"), operators, errors);
    for (i, alias) in spec.array_at(&["hostAliases"]).iter().enumerate() {
        let at = path.child("hostAliases").index(i);
        let ip = alias.str_at(&["ip"]).unwrap_or_default();
        errors.extend(names::ip(ip).into_iter().map(|m| Error::invalid(&at.child("ip"), ip, m)));
        for (j, name) in alias.array_at(&["hostnames"]).iter().filter_map(Value::as_str).enumerate() {
            let wrong = names::dns1123_subdomain(name).into_iter();
            errors.extend(wrong.map(|m| Error::invalid(&at.child("hostnames").index(j), name, m)));
        }
    }
}

const SYSCTL_MAX: usize = 253;

fn validate_sysctls(spec: &Value, path: &Path, errors: &mut Errors) {
    let sysctls = spec.array_at(&["securityContext", "sysctls"]);
    for (i, sysctl) in sysctls.iter().enumerate() {
        let at = path.index(i).child("name");
        let name = sysctl.str_at(&["name"]).unwrap_or_default();
        if name.is_empty() {
            errors.push(Error::required(&at, ""));
        } else if name.len() > SYSCTL_MAX || !name.split(['.', '/']).all(is_sysctl_segment) {
            let detail = format!(
                "must have at most {SYSCTL_MAX} characters and match regex \
                 ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\.\\/])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
            );
            errors.push(Error::invalid(&at, name, detail));
        } else if sysctls[..i].iter().any(|other| other.str_at(&["name"]) == Some(name)) {
            errors.push(Error::duplicate(&at, name));
        }
    }
}

fn is_sysctl_segment(segment: &str) -> bool {
    let plain = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = segment.as_bytes();
    bytes.first().is_some_and(plain)
        && bytes.last().is_some_and(plain)
        && bytes.iter().all(|c| plain(c) || matches!(c, b'-' | b'_'))
}

const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;

fn validate_dns(spec: &Value, path: &Path, errors: &mut Errors) {
    let config = &spec["dnsConfig"];
    let servers = config.array_at(&["nameservers"]);
    if spec.str_at(&["dnsPolicy"]) == Some("None") {
        if config.is_null() {
            errors.push(Error::required(path, "must provide `dnsConfig` when `dnsPolicy` is None"));
        } else if servers.is_empty() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.push(Error::required(&path.child("nameservers"), detail));
        }
    }
    if servers.len() > NAMESERVERS_MAX {
        let detail = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        errors.push(Error::invalid(&path.child("nameservers"), &config["nameservers"], detail));
    }
    for (i, server) in servers.iter().filter_map(Value::as_str).enumerate() {
        let at = path.child("nameservers").index(i);
        errors.extend(names::ip(server).into_iter().map(|m| Error::invalid(&at, server, m)));
    }
    if config.array_at(&["searches"]).len() > SEARCHES_MAX {
        let detail = format!("must not have more than {SEARCHES_MAX} search paths");
        errors.push(Error::invalid(&path.child("searches"), &config["searches"], detail));
    }
    for (i, option) in config.array_at(&["options"]).iter().enumerate() {
        if option.str_at(&["name"]).unwrap_or_default().is_empty() {
            errors.push(Error::required(&path.child("options").index(i), "must not be empty"));
        }
    }
}

fn validate_gates(spec: &Value, path: &Path, errors: &mut Errors) {
    for (i, gate) in spec.array_at(&["readinessGates"]).iter().enumerate() {
        let at = path.child("readinessGates").index(i).child("conditionType");
        let ty = gate.str_at(&["conditionType"]).unwrap_or_default();
        errors.extend(names::qualified_name(ty).into_iter().map(|m| Error::invalid(&at, ty, m)));
    }
    let gates = spec.array_at(&["schedulingGates"]);
    for (i, gate) in gates.iter().enumerate() {
        let at = path.child("schedulingGates").index(i);
        let name = gate.str_at(&["name"]).unwrap_or_default();
        errors.extend(names::qualified_name(name).into_iter().map(|m| Error::invalid(&at, name, m)));
        if gates[..i].iter().any(|g| g["name"] == gate["name"]) {
            errors.push(Error::duplicate(&at, name));
        }
    }
    if !gates.is_empty() && !spec["nodeName"].is_empty() {
        let detail = "cannot be set until all schedulingGates have been cleared";
        errors.push(Error::forbidden(&path.child("nodeName"), detail));
    }
}

/// Checks the template of a controller, and that the controller's selector selects it.
pub fn validate_template(object: &Value, selector: Option<&LabelSelector>, errors: &mut Errors) {
    let template = &object["spec"]["template"];
    let path = Path::new("spec.template");
    if let Some(selector) = selector
        && !selector.matches_object(template)
    {
        let labels = template.at(&["metadata", "labels"]).filter(|l| !l.is_null());
        let shown = labels.cloned().unwrap_or_default();
        let detail = "`selector` does not match template `labels`";
        errors.push(Error::invalid(&path.child("metadata.labels"), shown, detail));
    }
    validate_template_at(template, &path, errors);
}

/// Checks a template: its labels, annotations and spec.
pub fn validate_template_at(template: &Value, path: &Path, errors: &mut Errors) {
    // Compat: without `metadata`, as upstream calls them.
    if let Some(Value::Object(labels)) = template.at(&["metadata", "labels"]) {
        validate_labels(labels, &path.child("labels"), errors);
    }
    if let Some(Value::Object(annotations)) = template.at(&["metadata", "annotations"]) {
        object_meta::validate_annotations(annotations, &path.child("annotations"), errors);
    }
    validate(&template["spec"], &path.child("spec"), errors);
    if !template.array_at(&["spec", "ephemeralContainers"]).is_empty() {
        let detail = "ephemeral containers not allowed in pod template";
        errors.push(Error::forbidden(&path.child("spec.ephemeralContainers"), detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::json;

    #[test]
    fn sysctls() {
        let wrong = "must have at most 253 characters and match regex \
                     ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\.\\/])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
        let names = ["kernel.shmmax", "net/ipv4.conf.eth0-1", "foo-", "", "kernel.shmmax", "bar.."];
        let sysctls: Vec<Value> = names.iter().map(|name| json!({"name": (*name), "value": "1"})).collect();
        let mut errors = Vec::new();
        let spec = json!({"securityContext": {"sysctls": (Value::Array(sysctls))}});
        validate_sysctls(&spec, &Path::new("spec.securityContext.sysctls"), &mut errors);
        let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let want = [
            format!("spec.securityContext.sysctls[2].name: Invalid value: \"foo-\": {wrong}"),
            "spec.securityContext.sysctls[3].name: Required value".to_string(),
            "spec.securityContext.sysctls[4].name: Duplicate value: \"kernel.shmmax\"".to_string(),
            format!("spec.securityContext.sysctls[5].name: Invalid value: \"bar..\": {wrong}"),
        ];
        assert_eq!(said, want);
    }
}
