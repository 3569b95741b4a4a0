//! Pod.

mod row;
mod status;
mod update;

use super::prelude::*;
use super::{keep_all_but_status, pod_spec};
use crate::quota::{amounts, pod_sum};

pub static KIND: Kind = Kind {
    columns: COLUMNS,
    row: Some(row::row),
    defaults,
    prepare_create,
    prepare_update: keep_status_count_spec,
    prepare_status_update,
    validate: |pod, errors| {
        pod_spec::validate(&pod["spec"], &Path::new("spec"), errors);
        validate_tokens(&pod["spec"], errors);
    },
    validate_create: |pod| {
        let mut errors = Errors::new();
        pod_spec::validate_new(&pod["spec"], &Path::new("spec"), &mut errors);
        errors
    },
    validate_update: update::validate,
    validate_status_update: status::validate,
    selectable,
    selectable_names: FIELDS,
    status_restores: &["ownerReferences"],
    declared: &[("spec", pod_spec::DECLARED)],
    ..Kind::PLAIN
};

/// A token is somebody's.
fn validate_tokens(spec: &Value, errors: &mut Errors) {
    if !spec["serviceAccountName"].is_empty() {
        return;
    }
    for (i, volume) in spec.array_at(&["volumes"]).iter().enumerate() {
        for (k, source) in volume.array_at(&["projected", "sources"]).iter().enumerate() {
            if !source["serviceAccountToken"].is_null() {
                let at = Path::new("spec.volumes").index(i).child("projected.sources").index(k);
                let detail = "must not be specified when serviceAccountName is not set";
                errors.push(Error::forbidden(&at.child("serviceAccountToken"), detail));
            }
        }
    }
}

const FIELDS: &[&str] = &[
    "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork",
    "status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName", "spec.host",
];

const COLUMNS: &[Column] = &[
    NAME,
    Column::text("Ready", "The aggregate readiness state of this pod for accepting traffic."),
    Column::text("Status", "The aggregate status of the containers in this pod."),
    Column::text(
        "Restarts",
        "The number of times the containers in this pod have been restarted and when the last container in this pod has \
         restarted.",
    ),
    AGE,
    Column::text("IP", ".status.podIP").wide(),
    Column::text("Node", ".spec.nodeName").wide(),
    Column::text("Nominated Node", ".status.nominatedNodeName").wide(),
    Column::text("Readiness Gates", ".spec.readinessGates").wide(),
];

fn defaults(pod: &mut Value) {
    fill::at(pod, &["status"], status::defaults);
    let spec = pod.slot(&["spec"]);
    pod_spec::requests_from_limits(spec);
    resources_of_all(pod);
    let spec = pod.slot(&["spec"]);
    spec.set_default(&["enableServiceLinks"], true);
    // Compat: what is less than no time is a second, of a pod.
    if spec.int_at(&["terminationGracePeriodSeconds"]).is_some_and(|seconds| seconds < 0) {
        spec.set(&["terminationGracePeriodSeconds"], 1);
    }
    if spec.bool_at(&["hostNetwork"]) == Some(true) {
        for list in ["initContainers", "containers"] {
            fill::each(spec, &[list], |container| {
                fill::each(container, &["ports"], |port| {
                    if port.int_at(&["hostPort"]).unwrap_or(0) == 0 {
                        let number = port["containerPort"].clone();
                        port.set(&["hostPort"], number);
                    }
                });
            });
        }
    }
    pod_spec::defaults(spec);
}

/// What a pod with resources of its own leaves open: what its containers say together, or else its limits.
fn resources_of_all(pod: &mut Value) {
    if ["limits", "requests"].iter().all(|list| pod["spec"]["resources"][*list].is_empty()) {
        return;
    }
    let huge = |name: &str| name.starts_with("hugepages-");
    let sum = |pod: &Value, list| pod_sum(pod, list, |container| amounts(&container["resources"][list]));
    for (name, amount) in sum(pod, "limits").iter().filter(|(name, _)| huge(name)) {
        pod.set_default(&["spec", "resources", "limits", name], amount.to_string());
    }
    for (name, amount) in sum(pod, "requests").iter().filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory")) {
        pod.set_default(&["spec", "resources", "requests", name], amount.to_string());
    }
    let Some(Value::Object(limits)) = pod.at(&["spec", "resources", "limits"]).cloned() else { return };
    for (name, limit) in limits.iter() {
        pod.set_default(&["spec", "resources", "requests", name], limit);
    }
}

fn prepare_create(pod: &mut Value) {
    first_generation(pod);
    pod.set(&["status"], json!({"phase": "Pending", "qosClass": qos_class(&pod["spec"])}));
    if !pod.array_at(&["spec", "schedulingGates"]).is_empty() {
        let condition = json!({"type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates", "lastProbeTime": null,
            "lastTransitionTime": pod["metadata"]["creationTimestamp"]});
        pod.set(&["status", "conditions"], vec![condition]);
    }
}

fn prepare_status_update(new: &mut Value, old: &Value) {
    let kept = new["status"]["qosClass"].is_empty();
    keep_all_but_status(new, old);
    // A client that leaves the class out does not mean to clear it.
    if kept && !old["status"]["qosClass"].is_empty() {
        new.set(&["status", "qosClass"], &old["status"]["qosClass"]);
    }
}

/// Guaranteed: every container limits cpu and memory and asks for as much; BestEffort: none asks for anything.
pub fn qos_class(spec: &Value) -> &'static str {
    use meta::quantity::Quantity;
    // Amounts of the pod as a whole go before those of its containers.
    let whole = &spec["resources"];
    let of_pod = ["limits", "requests"].iter().any(|l| whole[*l].as_object().is_some_and(|m| !m.is_empty()));
    let amount = |c: &Value, list: &str, name: &str| {
        let text = c.str_at(&["resources", list, name])?;
        Quantity::parse(text).ok().filter(|q| q.sign() > 0)
    };
    let all: Vec<&Value> = if of_pod {
        vec![spec]
    } else {
        spec.array_at(&["containers"]).iter().chain(spec.array_at(&["initContainers"])).collect()
    };
    let containers = || all.iter().copied();
    let asks = |c: &Value, name: &str| amount(c, "requests", name).is_some() || amount(c, "limits", name).is_some();
    if !containers().any(|c| asks(c, "cpu") || asks(c, "memory")) {
        return "BestEffort";
    }
    let pinned = |c: &Value, name: &str| match (amount(c, "limits", name), amount(c, "requests", name)) {
        (Some(limit), Some(request)) => limit == request,
        (Some(_), None) => true,
        _ => false,
    };
    if containers().all(|c| pinned(c, "cpu") && pinned(c, "memory")) { "Guaranteed" } else { "Burstable" }
}

fn selectable(pod: &Value) -> Vec<(&'static str, String)> {
    let value = |field: &str| match field {
        "spec.hostNetwork" => pod.bool_at(&["spec", "hostNetwork"]).unwrap_or(false).to_string(),
        "spec.host" => text(pod, &["spec", "nodeName"]).to_string(), // as the first versions called it
        "status.podIPs" => text(pod, &["status", "podIP"]).to_string(),
        _ => super::rules::at(pod, field).as_str().unwrap_or_default().to_string(),
    };
    FIELDS.iter().map(|field| (*field, value(field))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes() {
        let pod = |requests, limits| json!({"containers": [{"resources": {"requests": requests, "limits": limits}}]});
        let empty = || meta::serde_json::json!({});
        let full = || meta::serde_json::json!({"cpu": "1", "memory": "1Gi"});
        for (spec, want) in [
            (pod(empty(), empty()), "BestEffort"),
            (pod(full(), full()), "Guaranteed"),
            (pod(empty(), full()), "Guaranteed"),
            (pod(full(), empty()), "Burstable"),
            (pod(meta::serde_json::json!({"cpu": "1"}), meta::serde_json::json!({"cpu": "1"})), "Burstable"),
            (pod(meta::serde_json::json!({"cpu": "0"}), empty()), "BestEffort"),
        ] {
            assert_eq!(qos_class(&spec), want, "{spec}");
        }
    }

    #[test]
    fn faults_as_upstream() {
        golden::check!("pod/faults.txt", |pod| {
            let mut pod = meta::parse(pod.as_bytes()).expect("JSON");
            (KIND.defaults)(&mut pod);
            let errors = super::super::check_create(&KIND, &pod, true);
            let shown =
                |e: &meta::field::Error| e.to_string().chars().take(150).collect::<String>().trim_end().to_string();
            errors.iter().map(|e| shown(e) + "\n").collect()
        });
    }
}
