//! Node.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Status", "The status of the node").by(status),
        Column::text("Roles", "The roles of the node").by(roles),
        AGE,
        Column::text("Version", "Kubelet Version reported by the node.").at("status.nodeInfo.kubeletVersion"),
        Column::text("Internal-IP", "The address of the node inside the cluster.")
            .by(|n| address(n, "InternalIP"))
            .wide(),
        Column::text("External-IP", "The address of the node from outside.").by(|n| address(n, "ExternalIP")).wide(),
        Column::text("OS-Image", "OS Image reported by the node.").or("status.nodeInfo.osImage", "<unknown>").wide(),
        Column::text("Kernel-Version", "Kernel Version reported by the node.")
            .or("status.nodeInfo.kernelVersion", "<unknown>")
            .wide(),
        Column::text("Container-Runtime", "ContainerRuntime Version reported by the node.")
            .or("status.nodeInfo.containerRuntimeVersion", "<unknown>")
            .wide(),
    ],
    defaults: |n| {
        let capacity = n["status"]["capacity"].clone();
        if !capacity.is_null() && n["status"]["allocatable"].is_null() {
            n.set(&["status", "allocatable"], capacity);
        }
    },
    prepare_update: keep_status,
    rules: RULES,
    validate,
    validate_update: |new, old| {
        let fields = [("podCIDRs", "podCIDR"), ("providerID", "providerID")].into_iter();
        let changed = fields.filter(|(f, _)| !old["spec"][*f].is_empty() && new["spec"][*f] != old["spec"][*f]);
        let error = |(field, shown)| {
            let detail = format!("node updates may not change {shown} except from \"\" to valid");
            Error::forbidden(&Path::new("spec").child(field), detail)
        };
        changed.map(error).collect()
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
    status.into()
}

const RULES: &[Rule] = &[
    ("spec.taints[].key", Required("")),
    ("spec.taints[].key", Name(names::qualified_name)),
    ("spec.taints[].value", Name(names::label_value)),
    ("spec.taints[].effect", RequiredOneOf(&["NoExecute", "NoSchedule", "PreferNoSchedule"])),
];

fn validate(n: &Value, errors: &mut Errors) {
    let taints = n.array_at(&["spec", "taints"]);
    for (i, taint) in taints.iter().enumerate() {
        let same = |t: &&Value| t["key"] == taint["key"] && t["effect"] == taint["effect"];
        if taints[..i].iter().any(|t| same(&t)) {
            let at = Path::new("spec.taints").index(i);
            errors.push(Error::duplicate(&at, taint));
        }
    }
}
