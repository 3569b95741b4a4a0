//! Pods and what runs of them, in; the YAML a user sees, out.

use serde_json::json;

use super::*;
use crate::observed::{Instance, Sandbox};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn pod(spec: serde_json::Value) -> Pod {
    let value = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 1}, "spec": spec,
        "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True",
            "lastTransitionTime": "1970-01-01T00:00:01Z"}]}});
    serde_json::from_value(value).expect("pod")
}

fn show(pod: &Pod, observed: &Observed, waiting: &[(&str, &str)], stage: Stage) -> String {
    let waiting = waiting
        .iter()
        .map(|(name, reason)| (name.to_string(), WaitReason { reason: reason.to_string(), message: "why".into() }))
        .collect();
    let previous = pod.status.clone().unwrap_or_default();
    let status = pod_status(&View {
        pod,
        observed,
        previous: &previous,
        probes: &|_| ProbeView::default(),
        waiting: &waiting,
        node_ips: &["192.0.2.1".to_string()],
        stage,
        verdict: None,
        runtime: "containerd",
        now: at(200),
    });
    let mut out = format!(
        "{} ip={} start={}\n",
        status.phase.as_deref().unwrap_or_default(),
        status.pod_ip.as_deref().unwrap_or("-"),
        status.start_time.map(|time| time.0.as_second()).unwrap_or_default()
    );
    for condition in status.conditions.iter().flatten() {
        let (reason, message) = (condition.reason.as_deref(), condition.message.as_deref());
        out += &format!("{}={} {:?} {:?}\n", condition.type_, condition.status, reason, message);
    }
    let all = [&status.init_container_statuses, &status.container_statuses];
    for one in all.into_iter().flat_map(|list| list.iter().flatten()) {
        let (state, last) = (serde_json::to_string(&one.state), serde_json::to_string(&one.last_state));
        out += &format!(
            "{} ready={} started={:?} restarts={} state={} last={}\n",
            one.name,
            one.ready,
            one.started,
            one.restart_count,
            state.expect("json"),
            last.expect("json")
        );
    }
    out
}

/// `NAME ATTEMPT STATE EXIT_CODE`
fn instance(text: &str) -> Instance {
    let [name, attempt, state, exit_code] = text.split(' ').collect::<Vec<_>>().try_into().expect("four words");
    let state = if state == "Running" { State::Running } else { State::Exited };
    Instance {
        id: format!("{name}{attempt}"),
        name: name.into(),
        attempt: attempt.parse().expect("a number"),
        sandbox_id: "sb".into(),
        state,
        exit_code: exit_code.parse().expect("a number"),
        started: Some(at(100)),
        finished: (state == State::Exited).then(|| at(150)),
        ..Instance::default()
    }
}

#[test]
fn statuses() {
    let sandbox = |ready| Sandbox { id: "sb".into(), ready, ips: vec!["10.0.0.2".into()], ..Sandbox::default() };
    golden::check!("status_tests.txt", |case| {
        let case: serde_json::Value = serde_json::from_str(case.split_once(": ").expect("a name").1).expect("JSON");
        let words = |list: &serde_json::Value| serde_json::from_value::<Vec<String>>(list.clone()).expect("texts");
        let sandboxes = match case["sandbox"].as_str() {
            Some("none") => vec![],
            state => vec![sandbox(state == Some("ready"))],
        };
        let instances = words(&case["instances"]).iter().map(|text| instance(text)).collect();
        let waiting = case["waiting"].as_object().expect("names and reasons").iter();
        let waiting: Vec<_> = waiting.map(|(name, reason)| (name.as_str(), reason.as_str().expect("text"))).collect();
        let stage = if case["stage"] == "Sync" { Stage::Sync } else { Stage::Terminated };
        show(&pod(case["spec"].clone()), &Observed { sandboxes, instances }, &waiting, stage)
    });
}
