//! Node.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::conditions;
use super::devices::{bounded, duplicates};
use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Status", "The status of the node").by(status),
        Column::text("Roles", "The roles of the node").by(roles),
        AGE,
        Column::text("Version", "Kubelet Version reported by the node.").at("status.nodeInfo.kubeletVersion"),
        Column::text("Internal-IP", ".status.addresses").by(|n| address(n, "InternalIP")).wide(),
        Column::text("External-IP", ".status.addresses").by(|n| address(n, "ExternalIP")).wide(),
        Column::text("OS-Image", "").or("status.nodeInfo.osImage", "<unknown>").wide(),
        Column::text("Kernel-Version", "").or("status.nodeInfo.kernelVersion", "<unknown>").wide(),
        Column::text("Container-Runtime", "").or("status.nodeInfo.containerRuntimeVersion", "<unknown>").wide(),
    ],
    defaults: |n| {
        // Compat: the first range of addresses stands in the old field too.
        let first = n["spec"]["podCIDR"].clone();
        if !first.is_empty() && n["spec"]["podCIDRs"].is_empty() {
            n.set(&["spec", "podCIDRs"], vec![first]);
        }
        let capacity = n["status"]["capacity"].clone();
        if !capacity.is_null() && n["status"]["allocatable"].is_null() {
            n.set(&["status", "allocatable"], capacity);
        }
        // `podCIDR` is the first of `podCIDRs`, and wins over them.
        let (one, first) =
            (text(n, &["spec", "podCIDR"]).to_string(), n["spec"].array_at(&["podCIDRs"]).first().cloned());
        match first {
            Some(first) if one.is_empty() => n.set(&["spec", "podCIDR"], first),
            Some(first) if first.as_str() == Some(&one) => {}
            _ if !one.is_empty() => n.set(&["spec", "podCIDRs"], vec![one]),
            _ => {}
        }
    },
    // Compat: configuration that kubelets no longer take is dropped, where it was not there already.
    prepare_create: |n| {
        n.remove(&["spec", "configSource"]);
        n.remove(&["status", "config"]);
    },
    prepare_update: |new, old| {
        keep_status(new, old);
        if old["spec"]["configSource"].is_null() {
            new.remove(&["spec", "configSource"]);
        }
    },
    validate,
    validate_update: |new, old| {
        let mut errors = Errors::new();
        let was = |field: &str| !old["spec"][field].is_empty() && new["spec"][field] != old["spec"][field];
        if was("podCIDRs") {
            let detail = "node updates may not change podCIDR except from \"\" to valid";
            errors.push(Error::forbidden(&Path::new("spec.podCIDRs"), detail));
        }
        if was("providerID") {
            let (id, at) = (&new["spec"]["providerID"], Path::new("spec.providerID"));
            let verb = if id.is_empty() { "cleared" } else { "modified" };
            errors.push(Error::invalid(&at, Value::Null, format!("field cannot be {verb} once set")));
        }
        errors
    },
    validate_status_update: |new, _| {
        let mut errors = Errors::new();
        validate_amounts(new, &mut errors);
        validate_features(new, &mut errors);
        let addresses = new.array_at(&["status", "addresses"]);
        let mut known = HashSet::new();
        for (i, address) in addresses.iter().enumerate().filter(|(_, a)| !known.insert(a.to_string())) {
            errors.push(Error::duplicate(&Path::new("status.addresses").index(i), address));
        }
        errors
    },
    selectable: |n| vec![("spec.unschedulable", n.bool_at(&["spec", "unschedulable"]).unwrap_or(false).to_string())],
    selectable_names: &["spec.unschedulable"],
    ..Kind::PLAIN
};

fn address(n: &Value, ty: &str) -> Cell {
    let found = n.array_at(&["status", "addresses"]).iter().find(|a| text(a, &["type"]) == ty);
    found.map_or("<none>".into(), |a| text(a, &["address"]).into())
}

fn roles(n: &Value) -> Cell {
    let mut roles = std::collections::BTreeSet::new();
    if let Some(labels) = n["metadata"]["labels"].as_object() {
        for (key, value) in labels.iter() {
            if let Some(role) = key.strip_prefix("node-role.kubernetes.io/") {
                roles.insert(role.to_string());
            } else if key == "kubernetes.io/role" {
                roles.insert(value.as_str().unwrap_or_default().to_string());
            }
        }
    }
    roles.remove("");
    if roles.is_empty() { "<none>".into() } else { roles.into_iter().collect::<Vec<_>>().join(",").into() }
}

fn status(n: &Value) -> Cell {
    let mut status = match conditions::find(n, "Ready").map(|c| text(c, &["status"])) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_string();
    if n.bool_at(&["spec", "unschedulable"]) == Some(true) {
        status.push_str(",SchedulingDisabled");
    }
    status.into()
}

const RULES: &[Rule] = &[
    ("key", AnyName(names::qualified_name)),
    ("value", Name(names::label_value)),
    ("effect", RequiredOneOf(&["NoSchedule", "PreferNoSchedule", "NoExecute"])),
];

fn validate(n: &Value, errors: &mut Errors) {
    let taints = n.array_at(&["spec", "taints"]);
    let mut known = HashSet::new();
    for (i, taint) in taints.iter().enumerate() {
        // Compat: upstream looks for them in the metadata, where they once were.
        let at = Path::new("metadata.taints").index(i);
        check_at(taint, &at, RULES, errors);
        if !taint["effect"].is_empty() && !known.insert((text(taint, &["key"]), text(taint, &["effect"]))) {
            errors.push(Error::duplicate(&at, taint).with_detail("taints must be unique by key and effect pair"));
        }
    }
    validate_amounts(n, errors);
    validate_features(n, errors);
    let (cidrs, at) = (n.array_at(&["spec", "podCIDRs"]), Path::new("spec.podCIDRs"));
    for (i, cidr) in cidrs.iter().filter_map(Value::as_str).enumerate() {
        errors.extend(names::cidr(cidr).into_iter().map(|m| Error::invalid(&at.index(i), cidr, m)));
    }
    let v6 = |cidr: &Value| cidr.as_str().is_some_and(|cidr| cidr.contains(':'));
    if cidrs.len() > 2 || (cidrs.len() == 2 && v6(&cidrs[0]) == v6(&cidrs[1])) {
        errors.push(Error::invalid(&at, cidrs.to_vec(), "may specify no more than one CIDR for each IP family"));
    }
    validate_preemption(n, errors);
}

const OWNERS_MAX: usize = 20;

/// Who does not want pods to be preempted for the resize of another.
fn validate_preemption(n: &Value, errors: &mut Errors) {
    let at = Path::new("spec.podPreemptionPolicy.disableResizePreemption");
    let owners = &n["spec"]["podPreemptionPolicy"]["disableResizePreemption"];
    let owners = bounded(owners, &at, OWNERS_MAX, errors);
    for (i, owner) in owners.iter().filter_map(Value::as_str).enumerate() {
        errors.extend(names::qualified_name(owner).into_iter().map(|m| Error::invalid(&at.index(i), owner, m)));
    }
    duplicates(("", owners), &at, |owner| owner.as_str().unwrap_or_default(), errors);
}

/// What a node has and gives, in amounts that are not negative.
fn validate_amounts(n: &Value, errors: &mut Errors) {
    for list in ["capacity", "allocatable"] {
        for (name, amount) in n["status"][list].as_object().into_iter().flat_map(|map| map.iter()) {
            let at = Path::new("status").child(list).child(name);
            let whole = super::resourcequota::is_whole(name);
            if let Some(quantity) = super::pod_spec::validate_quantity(amount, &at, errors)
                && whole
                && !quantity.is_whole()
            {
                errors.push(Error::invalid(&at, quantity.to_string(), "must be an integer"));
            }
        }
    }
}

/// What the kubelet says it can do, for pods that need it: a sorted list of names.
fn validate_features(n: &Value, errors: &mut Errors) {
    const FORM: &str = "must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature \
                        or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes";
    let features = n.array_at(&["status", "declaredFeatures"]).iter().filter_map(Value::as_str);
    let mut before = "";
    for (i, feature) in features.enumerate() {
        let at = Path::new("status.declaredFeatures").index(i);
        match before.cmp(feature) {
            Ordering::Greater => errors.push(Error::invalid(&at, feature, "list must be sorted alphabetically")),
            Ordering::Equal if i > 0 => errors.push(Error::duplicate(&at, feature)),
            _ => {}
        }
        let begins = |part: &str| part.starts_with(|c: char| c.is_ascii_alphabetic());
        let plain = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric());
        let upper = feature.starts_with(|c: char| c.is_ascii_uppercase());
        if !(upper && feature.split('/').all(|part| begins(part) && plain(part))) {
            errors.push(Error::invalid(&at, feature, format!("invalid feature name {feature:?}: {FORM}")));
        }
        before = feature;
    }
}
