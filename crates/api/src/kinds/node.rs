//! Node.

use meta::field::{Error, Errors, Path};
use meta::time::Timestamp;
use meta::Value;

use super::columns::{AGE, Cell, Column, NAME, age, name, text, text_or};
use super::rules::{Check, Rule, check};
use super::{Kind, keep_all_but_status, keep_status};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Status", "The status of the node"),
        Column::text("Roles", "The roles of the node"),
        AGE,
        Column::text("Version", "Kubelet Version reported by the node."),
        Column::text("Internal-IP", "The address of the node inside the cluster.").wide(),
        Column::text("External-IP", "The address of the node from outside.").wide(),
        Column::text("OS-Image", "OS Image reported by the node.").wide(),
        Column::text("Kernel-Version", "Kernel Version reported by the node.").wide(),
        Column::text("Container-Runtime", "ContainerRuntime Version reported by the node.").wide(),
    ],
    row,
    defaults: |n| {
        let capacity = n["status"]["capacity"].clone();
        if !capacity.is_null() && n["status"]["allocatable"].is_null() {
            n.set(&["status", "allocatable"], capacity);
        }
    },
    prepare_update: keep_status,
    prepare_status_update: |new, old| {
        // Compat: a node's status update may change its labels too, which older kubelets rely on.
        let labels = new["metadata"]["labels"].clone();
        keep_all_but_status(new, old);
        if !labels.is_null() {
            new.set(&["metadata", "labels"], labels);
        }
    },
    validate_create: validate,
    validate_update: |new, old| {
        let mut errors = validate(new);
        let cidrs = |n: &Value| n["spec"]["podCIDRs"].clone();
        if !cidrs(old).is_empty() && cidrs(new) != cidrs(old) {
            let detail = "node updates may not change podCIDR except from \"\" to valid";
            errors.push(Error::forbidden(&Path::new("spec.podCIDRs"), detail));
        }
        let provider = |n: &Value| text(n, &["spec", "providerID"]).to_string();
        if !provider(old).is_empty() && provider(new) != provider(old) {
            let detail = "node updates may not change providerID except from \"\" to valid";
            errors.push(Error::forbidden(&Path::new("spec.providerID"), detail));
        }
        errors
    },
    selectable: |n| {
        vec![("spec.unschedulable", n.bool_at(&["spec", "unschedulable"]).unwrap_or(false).to_string())]
    },
    selectable_names: &["spec.unschedulable"],
    ..Kind::PLAIN
};

fn address(n: &Value, ty: &str) -> Cell {
    let found = n.array_at(&["status", "addresses"]).iter().find(|a| text(a, &["type"]) == ty);
    found.map_or("<none>".into(), |a| text(a, &["address"]).into())
}

fn roles(n: &Value) -> String {
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
    if roles.is_empty() { "<none>".into() } else { roles.into_iter().collect::<Vec<_>>().join(",") }
}

fn row(n: &Value, now: Timestamp) -> Vec<Cell> {
    let ready = n.array_at(&["status", "conditions"]).iter().find(|c| text(c, &["type"]) == "Ready");
    let mut status = match ready.map(|c| text(c, &["status"])) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_string();
    if n.bool_at(&["spec", "unschedulable"]) == Some(true) {
        status.push_str(",SchedulingDisabled");
    }
    let info = |field: &str| text_or(n, &["status", "nodeInfo", field], "<unknown>");
    vec![
        name(n),
        status.into(),
        roles(n).into(),
        age(n, now),
        text(n, &["status", "nodeInfo", "kubeletVersion"]).into(),
        address(n, "InternalIP"),
        address(n, "ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

const RULES: &[Rule] = &[
    ("spec.taints[].key", Check::Required("")),
    ("spec.taints[].key", Check::Name(meta::names::qualified_name)),
    ("spec.taints[].value", Check::Name(meta::names::label_value)),
    ("spec.taints[].effect", Check::RequiredOneOf(&["NoExecute", "NoSchedule", "PreferNoSchedule"])),
];

fn validate(n: &Value) -> Errors {
    let mut errors = Errors::new();
    check(n, RULES, &mut errors);
    let taints = n.array_at(&["spec", "taints"]);
    for (i, taint) in taints.iter().enumerate() {
        let same = |t: &&Value| t["key"] == taint["key"] && t["effect"] == taint["effect"];
        if taints[..i].iter().any(|t| same(&t)) {
            let at = Path::new("spec.taints").index(i);
            errors.push(Error::duplicate(&at, taint));
        }
    }
    errors
}
