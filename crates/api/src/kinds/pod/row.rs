//! A pod's line in `kubectl get pods`: what its containers are up to, in one word.

use meta::Value;
use meta::time::{self, Timestamp};

use crate::kinds::columns::{Cell, age, ago, int, name, text, text_or};

/// What the container statuses add up to.
struct Tally {
    reason: String,
    ready: i64,
    total: i64,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

pub(super) fn row(pod: &Value, now: Timestamp) -> Vec<Cell> {
    let tally = tally(pod);
    let restarts = match tally.last_restart {
        Some(then) if tally.restarts != 0 => {
            format!("{} ({} ago)", tally.restarts, ago(then, now))
        }
        _ => tally.restarts.to_string(),
    };
    let ip = match pod.array_at(&["status", "podIPs"]) {
        [first, ..] => text_or(first, &["ip"], "<none>"),
        [] => text_or(pod, &["status", "podIP"], "<none>"),
    };
    let gates = pod.array_at(&["spec", "readinessGates"]);
    let gates = if gates.is_empty() {
        "<none>".to_string()
    } else {
        let passed = gates.iter().filter(|g| has_condition(pod, text(g, &["conditionType"]), None)).count();
        format!("{passed}/{}", gates.len())
    };
    vec![
        name(pod),
        format!("{}/{}", tally.ready, tally.total).into(),
        tally.reason.into(),
        restarts.into(),
        age(pod, now),
        ip,
        text_or(pod, &["spec", "nodeName"], "<none>"),
        text_or(pod, &["status", "nominatedNodeName"], "<none>"),
        gates.into(),
    ]
}

fn has_condition(pod: &Value, ty: &str, reason: Option<&str>) -> bool {
    let conditions = pod.array_at(&["status", "conditions"]);
    conditions.iter().any(|c| {
        text(c, &["type"]) == ty
            && match reason {
                Some(reason) => text(c, &["reason"]) == reason,
                None => text(c, &["status"]) == "True",
            }
    })
}

fn tally(pod: &Value) -> Tally {
    let phase = text(pod, &["status", "phase"]);
    let mut tally = Tally {
        reason: text_or(pod, &["status", "reason"], phase).as_str().unwrap_or_default().to_string(),
        ready: 0,
        total: pod.array_at(&["spec", "containers"]).len() as i64,
        restarts: 0,
        last_restart: None,
    };
    if has_condition(pod, "PodScheduled", Some("SchedulingGated")) {
        tally.reason = "SchedulingGated".into();
    }
    let initializing = tally_init(pod, &mut tally);
    if !initializing || has_condition(pod, "Initialized", None) {
        tally_main(pod, &mut tally);
    }
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        if text(pod, &["status", "reason"]) == "NodeLost" {
            tally.reason = "Unknown".into();
        } else if !["Succeeded", "Failed"].contains(&phase) {
            tally.reason = "Terminating".into();
        }
    }
    tally
}

fn is_sidecar(pod: &Value, status: &Value) -> bool {
    let name = text(status, &["name"]);
    let declared = pod.array_at(&["spec", "initContainers"]).iter().find(|c| text(c, &["name"]) == name);
    declared.is_some_and(|c| text(c, &["restartPolicy"]) == "Always")
}

/// How a container ended, when it did so without a reason.
fn ended(terminated: &Value) -> String {
    match int(terminated, &["signal"]) {
        0 => format!("ExitCode:{}", int(terminated, &["exitCode"])),
        signal => format!("Signal:{signal}"),
    }
}

fn last_end(status: &Value) -> Option<Timestamp> {
    time::parse(text(status, &["lastState", "terminated", "finishedAt"]))
}

/// Goes through the init containers; answers whether one of them still holds up the pod.
fn tally_init(pod: &Value, tally: &mut Tally) -> bool {
    let sidecars = pod.array_at(&["spec", "initContainers"]).iter().filter(|c| text(c, &["restartPolicy"]) == "Always");
    tally.total += sidecars.count() as i64;
    let (mut sidecar_restarts, mut sidecar_last) = (0, None);
    for (i, status) in pod.array_at(&["status", "initContainerStatuses"]).iter().enumerate() {
        let sidecar = is_sidecar(pod, status);
        tally.restarts += int(status, &["restartCount"]);
        tally.last_restart = tally.last_restart.max(last_end(status));
        if sidecar {
            sidecar_restarts += int(status, &["restartCount"]);
            sidecar_last = sidecar_last.max(last_end(status));
        }
        let (terminated, waiting) = (&status["state"]["terminated"], text(status, &["state", "waiting", "reason"]));
        if !terminated.is_null() && int(terminated, &["exitCode"]) == 0 {
            continue;
        }
        if sidecar && status.bool_at(&["started"]) == Some(true) {
            tally.ready += i64::from(status.bool_at(&["ready"]) == Some(true));
            continue;
        }
        tally.reason = if !terminated.is_null() {
            match text(terminated, &["reason"]) {
                "" => format!("Init:{}", ended(terminated)),
                reason => format!("Init:{reason}"),
            }
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{i}/{}", pod.array_at(&["spec", "initContainers"]).len())
        };
        return true;
    }
    tally.restarts = sidecar_restarts;
    tally.last_restart = sidecar_last;
    false
}

fn tally_main(pod: &Value, tally: &mut Tally) {
    let mut running = false;
    for status in pod.array_at(&["status", "containerStatuses"]).iter().rev() {
        tally.restarts += int(status, &["restartCount"]);
        tally.last_restart = tally.last_restart.max(last_end(status));
        let (waiting, terminated) = (text(status, &["state", "waiting", "reason"]), &status["state"]["terminated"]);
        if !waiting.is_empty() {
            tally.reason = waiting.into();
        } else if !terminated.is_null() {
            tally.reason = match text(terminated, &["reason"]) {
                "" => ended(terminated),
                reason => reason.into(),
            };
        } else if status.bool_at(&["ready"]) == Some(true) && !status["state"]["running"].is_null() {
            running = true;
            tally.ready += 1;
        }
    }
    // One container is done, others still run.
    if tally.reason == "Completed" && running {
        tally.reason = if has_condition(pod, "Ready", None) { "Running" } else { "NotReady" }.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::json;

    #[test]
    fn as_kubectl_prints_it() {
        let now = time::parse("2026-01-01T01:00:00Z").expect("a time");
        golden::check!("rows.txt", |change| {
            let mut pod = json!({"metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
            meta::patch::merge_patch(&mut pod, &meta::parse(change.as_bytes()).expect("JSON")).expect("a patch");
            let cells = row(&pod, now);
            cells[1..4].iter().map(|cell| cell.as_str().unwrap_or_default()).collect::<Vec<_>>().join(" ")
        });
    }
}
