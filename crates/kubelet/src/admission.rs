//! Whether a pod that was bound here can run here. Pure.
//!
//! The scheduler has checked before; pods that name their node themselves have not been checked by anyone. Invariant: a
//! refused pod ends as Failed with upstream's reason, it is never left waiting.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::pods::Allocatable;
use crate::resources;
use crate::spec;
use crate::status::Verdict;

/// Sysctls a pod may set: they stay in its namespaces and harm nobody else. Upstream's list.
const SAFE_SYSCTLS: &str = include_str!("safe_sysctls.txt");

/// Refuses a pod that does not fit beside the `others`, or asks for what is not allowed.
pub fn check(pod: &Pod, others: &[Arc<Pod>], allocatable: &Allocatable) -> Result<(), Verdict> {
    let os = pod.spec.as_ref().and_then(|spec| spec.os.as_ref());
    if os.is_some_and(|os| os.name != "linux") {
        return Err(Verdict {
            reason: "PodOSNotSupported".to_string(),
            message: "Pod was rejected: Failed to admit pod as the OS field doesn't match node OS".to_string(),
        });
    }
    let sysctls = pod.spec.iter().flat_map(|spec| spec.security_context.iter());
    for sysctl in sysctls.flat_map(|context| context.sysctls.iter().flatten()) {
        let name = sysctl.name.replace('/', ".");
        if SAFE_SYSCTLS.lines().all(|safe| safe != name) {
            return Err(Verdict {
                reason: "SysctlForbidden".to_string(),
                message: format!("Pod was rejected: forbidden sysctl: \"{}\" not allowlisted", sysctl.name),
            });
        }
    }
    let active: Vec<&Arc<Pod>> = others.iter().filter(|other| !spec::is_terminal(other)).collect();
    let room = allocatable.get("pods").map_or(i64::MAX, spec::whole);
    if active.len() as i64 + 1 > room {
        return Err(too_much("pods", 1, active.len() as i64, room));
    }
    for (name, read) in [("cpu", spec::milli as fn(&_) -> i64), ("memory", spec::whole)] {
        let requested = resources::total(pod, name, read).request;
        let room = allocatable.get(name).map_or(i64::MAX, read);
        let used: i64 = active.iter().map(|other| resources::total(other, name, read).request).sum();
        if requested > 0 && used + requested > room {
            return Err(too_much(name, requested, used, room));
        }
    }
    Ok(())
}

fn too_much(name: &str, requested: i64, used: i64, room: i64) -> Verdict {
    Verdict {
        reason: format!("OutOf{name}"),
        message: format!(
            "Pod was rejected: Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {room}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use serde_json::json;

    fn pod(cpu: &str, sysctl: &str) -> Arc<Pod> {
        let sysctls = if sysctl.is_empty() { json!([]) } else { json!([{"name": sysctl, "value": "1"}]) };
        let value = json!({"metadata": {"name": "p"}, "spec": {"securityContext": {"sysctls": sysctls},
            "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
        Arc::new(serde_json::from_value(value).expect("pod"))
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let allocatable: Allocatable = Arc::new(
            [("cpu".to_string(), Quantity("2".into())), ("pods".to_string(), Quantity("2".into()))]
                .into_iter()
                .collect(),
        );
        assert_eq!(check(&pod("1", ""), &[pod("1", "")], &allocatable), Ok(()));
        let refused = check(&pod("1500m", ""), &[pod("1", "")], &allocatable).expect_err("too much");
        assert_eq!(
            (refused.reason.as_str(), refused.message.as_str()),
            (
                "OutOfcpu",
                "Pod was rejected: Node didn't have enough resource: cpu, requested: 1500, used: 1000, capacity: 2000"
            )
        );
        let refused = check(&pod("0", ""), &[pod("0", ""), pod("0", "")], &allocatable).expect_err("full");
        assert_eq!(refused.reason, "OutOfpods");
        let refused = check(&pod("0", "kernel.msgmax"), &[], &allocatable).expect_err("sysctl");
        assert_eq!(refused.message, "Pod was rejected: forbidden sysctl: \"kernel.msgmax\" not allowlisted");
    }
}
