//! Validation of a PodSpec as a whole, and of a pod template.

use std::collections::HashSet;

use std::collections::BTreeSet;

use meta::field::{Error, Errors, Path};
use meta::selector::{LabelSelector, validate_labels};
use meta::{Value, names};

use super::affinity::{validate_affinity, validate_spread, validate_tolerations};
use super::container::{Surroundings, validate_containers};
use super::volume::validate_volumes;
use super::{resources, security};
use crate::kinds::object_meta;
use crate::kinds::rules::{Check, Rule, check_at};

const FIRST: &[Rule] = &[
    ("restartPolicy", Check::RequiredOneOf(&["Always", "OnFailure", "Never"])),
    ("dnsPolicy", Check::RequiredOneOf(&["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"])),
    ("nodeSelector", Check::Labels),
];
const LAST: &[Rule] = &[
    ("serviceAccountName", Check::Name(names::dns1123_subdomain)),
    ("nodeName", Check::Name(names::dns1123_subdomain)),
    ("activeDeadlineSeconds", Check::Range(1, i32::MAX as i64)),
    ("hostname", Check::Name(names::dns1123_label)),
    ("subdomain", Check::Name(names::dns1123_label)),
];
const FINALLY: &[Rule] = &[
    ("priorityClassName", Check::Name(names::dns1123_subdomain)),
    ("runtimeClassName", Check::GivenName(names::dns1123_subdomain)),
];

const PREEMPTION: &[Rule] = &[("preemptionPolicy", Check::RequiredOneOf(&["PreemptLowerPriority", "Never"]))];

/// Checks a PodSpec at `path`.
pub fn validate(spec: &Value, path: &Path, errors: &mut Errors) {
    let volumes = validate_volumes(spec, &path.child("volumes"), errors);
    let claims = validate_claims(spec, &path.child("resourceClaims"), errors);
    let around = Surroundings {
        volumes: &volumes,
        grace_seconds: spec.int_at(&["terminationGracePeriodSeconds"]).unwrap_or(30),
        os: spec.str_at(&["os", "name"]).unwrap_or_default(),
        host_network: spec.bool_at(&["hostNetwork"]) == Some(true),
        host_users: spec.bool_at(&["hostUsers"]) != Some(false),
        once: spec.str_at(&["restartPolicy"]) == Some("Never"),
        claims: &claims,
    };
    validate_containers(spec, path, &around, errors);
    resources::validate_of_pod(spec, &path.child("resources"), &claims, errors);
    check_at(spec, path, FIRST, errors);
    security::validate_pod_context(spec, path, errors);
    validate_affinity(&spec["affinity"], &path.child("affinity"), errors);
    validate_dns(spec, &path.child("dnsConfig"), errors);
    validate_gates(spec, path, errors);
    validate_spread(spec, &path.child("topologySpreadConstraints"), errors);
    security::validate_host_process(spec, path, errors);
    security::validate_host_users(spec, path, errors);
    if let Some(name) = spec.str_at(&["hostnameOverride"]) {
        let at = path.child("hostnameOverride");
        if around.host_network {
            errors.push(Error::forbidden(&at, "may not be specified when hostNetwork is true"));
        }
        if spec.bool_at(&["setHostnameAsFQDN"]) == Some(true) {
            errors.push(Error::forbidden(&at, "may not be specified when setHostnameAsFQDN is true"));
        }
        errors.extend(names::dns1123_subdomain(name).into_iter().map(|m| Error::invalid(&at, name, m)));
    }
    check_at(spec, path, LAST, errors);
    validate_tolerations(spec.array_at(&["tolerations"]), &path.child("tolerations"), errors);
    for (i, alias) in spec.array_at(&["hostAliases"]).iter().enumerate() {
        let at = path.child("hostAliases").index(i);
        let ip = alias.str_at(&["ip"]).unwrap_or_default();
        errors.extend(names::ip(ip).into_iter().map(|m| Error::invalid(&at.child("ip"), ip, m)));
        for (j, name) in alias.array_at(&["hostnames"]).iter().filter_map(Value::as_str).enumerate() {
            let wrong = names::dns1123_subdomain(name).into_iter();
            errors.extend(wrong.map(|m| Error::invalid(&at.child("hostnames").index(j), name, m)));
        }
    }
    check_at(spec, path, FINALLY, errors);
    resources::validate_overhead(&spec["overhead"], &path.child("overhead"), errors);
    if !spec["preemptionPolicy"].is_null() {
        check_at(spec, path, PREEMPTION, errors);
    }
    security::validate_os(spec, path, errors);
    validate_group(&spec["schedulingGroup"], &path.child("schedulingGroup").child("podGroupName"), errors);
    for list in ["containers", "initContainers"] {
        for (i, container) in spec.array_at(&[list]).iter().enumerate() {
            let image = container.str_at(&["image"]).unwrap_or_default();
            if image.trim() != image {
                let detail = "must not have leading or trailing whitespace";
                errors.push(Error::invalid(&path.child(list).index(i).child("image"), image, detail));
            }
        }
    }
}

/// Checks the name of the group that a pod is scheduled with.
fn validate_group(group: &Value, at: &Path, errors: &mut Errors) {
    match group["podGroupName"].as_str() {
        Some(name) => errors.extend(names::dns1123_subdomain(name).into_iter().map(|m| Error::invalid(at, name, m))),
        None if group.is_null() => {}
        None => errors.push(Error::invalid(at, Value::Null, "must specify one of: `podGroupName`")),
    }
}

/// What only a pod itself may not have, when it is made.
pub fn validate_new(spec: &Value, path: &Path, errors: &mut Errors) {
    if !spec.array_at(&["ephemeralContainers"]).is_empty() {
        errors.push(Error::forbidden(&path.child("ephemeralContainers"), "cannot be set on create"));
    }
    if !spec.array_at(&["schedulingGates"]).is_empty() && !spec["nodeName"].is_empty() {
        let detail = "cannot be set until all schedulingGates have been cleared";
        errors.push(Error::forbidden(&path.child("nodeName"), detail));
    }
}

/// Checks `spec.resourceClaims`; answers their names.
fn validate_claims<'a>(spec: &'a Value, path: &Path, errors: &mut Errors) -> BTreeSet<&'a str> {
    let mut known = BTreeSet::new();
    for (i, claim) in spec.array_at(&["resourceClaims"]).iter().enumerate() {
        let at = path.index(i);
        let name = claim.str_at(&["name"]).unwrap_or_default();
        if name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        } else if !known.insert(name) {
            errors.push(Error::duplicate(&at.child("name"), name));
        } else {
            errors.extend(names::dns1123_label(name).into_iter().map(|m| Error::invalid(&at.child("name"), name, m)));
        }
        let (by_name, by_template) = (&claim["resourceClaimName"], &claim["resourceClaimTemplateName"]);
        if by_name.is_null() == by_template.is_null() {
            let detail = match by_name.is_null() {
                true => "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
                false => "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            };
            let shown = format!(
                "{{\"Name\":{},\"ResourceClaimName\":{by_name},\"ResourceClaimTemplateName\":{by_template}}}",
                Value::from(name)
            );
            errors.push(Error::invalid_raw(&at, &shown, detail));
        }
        check_at(claim, &at, CLAIM, errors);
    }
    known
}

const CLAIM: &[Rule] = &[
    ("resourceClaimName", Check::GivenName(names::dns1123_subdomain)),
    ("resourceClaimTemplateName", Check::GivenName(names::dns1123_subdomain)),
];

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
    for (i, search) in config.array_at(&["searches"]).iter().filter_map(Value::as_str).enumerate() {
        // A trailing dot and underscores are common in search paths.
        let plain = search.strip_suffix('.').unwrap_or(search).replace('_', "a");
        let wrong = if search == "." { Vec::new() } else { names::dns1123_subdomain(&plain) };
        let wrong = wrong.into_iter().map(|m| {
            let m = m.replace("'-' or '.'", "'_', '-' or '.'");
            m.replace("[a-z0-9]([-a-z0-9]*[a-z0-9])?", "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?")
        });
        errors.extend(wrong.map(|m| Error::invalid(&path.child("searches").index(i), search, m)));
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
    let mut known = HashSet::new();
    for (i, gate) in gates.iter().enumerate() {
        let at = path.child("schedulingGates").index(i);
        let name = gate.str_at(&["name"]).unwrap_or_default();
        errors.extend(names::qualified_name(name).into_iter().map(|m| Error::invalid(&at, name, m)));
        if !known.insert(name) {
            errors.push(Error::duplicate(&at, name));
        }
    }
}

/// Checks the template of a controller, and that the controller's selector selects it.
pub fn validate_template(object: &Value, selector: Option<&LabelSelector>, errors: &mut Errors) {
    if let Some(selector) = selector {
        validate_template_labels(object, selector, errors);
    }
    validate_template_at(&object["spec"]["template"], &Path::new("spec.template"), errors);
}

/// Checks that an object selects the pods of its template.
pub fn validate_template_labels(object: &Value, selector: &LabelSelector, errors: &mut Errors) {
    let template = &object["spec"]["template"];
    if !selector.matches_object(template) {
        let labels = template.at(&["metadata", "labels"]).filter(|l| !l.is_null());
        let shown = labels.cloned().unwrap_or_default();
        let detail = "`selector` does not match template `labels`";
        errors.push(Error::invalid(&Path::new("spec.template.metadata.labels"), shown, detail));
    }
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
