//! Pods and what runs of them, in; the YAML a user sees, out.

use expect_test::{Expect, expect};
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

fn check(pod: &Pod, observed: &Observed, waiting: &[(&str, &str)], stage: Stage, want: Expect) {
    want.assert_eq(&show(pod, observed, waiting, stage));
}

fn sandbox() -> Sandbox {
    Sandbox { id: "sb".into(), ready: true, ips: vec!["10.0.0.2".into()], ..Sandbox::default() }
}

fn instance(name: &str, attempt: u32, state: State, exit_code: i32) -> Instance {
    Instance {
        id: format!("{name}{attempt}"),
        name: name.into(),
        attempt,
        sandbox_id: "sb".into(),
        state,
        exit_code,
        started: Some(at(100)),
        finished: (state == State::Exited).then(|| at(150)),
        ..Instance::default()
    }
}

#[test]
fn new_pod() {
    let pod = pod(json!({"containers": [{"name": "c", "image": "i"}]}));
    check(
        &pod,
        &Observed::default(),
        &[],
        Stage::Sync,
        expect![[r#"
        Pending ip=- start=200
        PodReadyToStartContainers=False None None
        Initialized=True None None
        Ready=False Some("ContainersNotReady") Some("containers with unready status: [c]")
        ContainersReady=False Some("ContainersNotReady") Some("containers with unready status: [c]")
        PodScheduled=True None None
        c ready=false started=Some(false) restarts=0 state={"waiting":{"reason":"ContainerCreating"}} last={}
    "#]],
    );
}

#[test]
fn waits_for_init() {
    let pod = pod(json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i"}]}));
    let observed = Observed { sandboxes: vec![sandbox()], instances: vec![instance("i", 0, State::Running, 0)] };
    check(
        &pod,
        &observed,
        &[],
        Stage::Sync,
        expect![[r#"
        Pending ip=10.0.0.2 start=200
        PodReadyToStartContainers=True None None
        Initialized=False Some("ContainersNotInitialized") Some("containers with incomplete status: [i]")
        Ready=False Some("ContainersNotReady") Some("containers with unready status: [c]")
        ContainersReady=False Some("ContainersNotReady") Some("containers with unready status: [c]")
        PodScheduled=True None None
        i ready=false started=Some(true) restarts=0 state={"running":{"startedAt":"1970-01-01T00:01:40Z"}} last={}
        c ready=false started=Some(false) restarts=0 state={"waiting":{"reason":"PodInitializing"}} last={}
    "#]],
    );
}

#[test]
fn running_after_a_crash() {
    let pod = pod(json!({"containers": [{"name": "c"}]}));
    let instances = vec![instance("c", 1, State::Running, 0), instance("c", 0, State::Exited, 1)];
    let observed = Observed { sandboxes: vec![sandbox()], instances };
    check(
        &pod,
        &observed,
        &[],
        Stage::Sync,
        expect![[r#"
        Running ip=10.0.0.2 start=200
        PodReadyToStartContainers=True None None
        Initialized=True None None
        Ready=True None None
        ContainersReady=True None None
        PodScheduled=True None None
        c ready=true started=Some(true) restarts=1 state={"running":{"startedAt":"1970-01-01T00:01:40Z"}} last={"terminated":{"containerID":"containerd://c0","exitCode":1,"finishedAt":"1970-01-01T00:02:30Z","reason":"Error","startedAt":"1970-01-01T00:01:40Z"}}
    "#]],
    );
}

#[test]
fn crash_loop() {
    let pod = pod(json!({"containers": [{"name": "c"}]}));
    let observed = Observed { sandboxes: vec![sandbox()], instances: vec![instance("c", 1, State::Exited, 1)] };
    check(
        &pod,
        &observed,
        &[("c", "CrashLoopBackOff")],
        Stage::Sync,
        expect![[r#"
        Running ip=10.0.0.2 start=200
        PodReadyToStartContainers=True None None
        Initialized=True None None
        Ready=False Some("ContainersNotReady") Some("containers with unready status: [c]")
        ContainersReady=False Some("ContainersNotReady") Some("containers with unready status: [c]")
        PodScheduled=True None None
        c ready=false started=Some(false) restarts=1 state={"waiting":{"message":"why","reason":"CrashLoopBackOff"}} last={"terminated":{"containerID":"containerd://c1","exitCode":1,"finishedAt":"1970-01-01T00:02:30Z","reason":"Error","startedAt":"1970-01-01T00:01:40Z"}}
    "#]],
    );
}

#[test]
fn completed() {
    let pod = pod(json!({"restartPolicy": "Never", "containers": [{"name": "c"}]}));
    let observed = Observed { sandboxes: vec![sandbox()], instances: vec![instance("c", 0, State::Exited, 0)] };
    check(
        &pod,
        &observed,
        &[],
        Stage::Sync,
        expect![[r#"
        Succeeded ip=10.0.0.2 start=200
        PodReadyToStartContainers=True None None
        Initialized=True Some("PodCompleted") None
        Ready=False Some("PodCompleted") None
        ContainersReady=False Some("PodCompleted") None
        PodScheduled=True None None
        c ready=false started=Some(false) restarts=0 state={"terminated":{"containerID":"containerd://c0","exitCode":0,"finishedAt":"1970-01-01T00:02:30Z","reason":"Completed","startedAt":"1970-01-01T00:01:40Z"}} last={}
    "#]],
    );
}

#[test]
fn deleted_while_running() {
    let pod = pod(json!({"containers": [{"name": "c"}]}));
    let stopped = Sandbox { ready: false, ..sandbox() };
    let observed = Observed { sandboxes: vec![stopped], instances: vec![instance("c", 0, State::Exited, 137)] };
    check(
        &pod,
        &observed,
        &[],
        Stage::Terminated,
        expect![[r#"
        Failed ip=- start=200
        PodReadyToStartContainers=False None None
        Initialized=True None None
        Ready=False Some("PodFailed") None
        ContainersReady=False Some("PodFailed") None
        PodScheduled=True None None
        c ready=false started=Some(false) restarts=0 state={"terminated":{"containerID":"containerd://c0","exitCode":137,"finishedAt":"1970-01-01T00:02:30Z","reason":"Error","startedAt":"1970-01-01T00:01:40Z"}} last={}
    "#]],
    );
}
