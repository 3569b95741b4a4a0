//! Tables for [`super::plan`]: a pod and what runs, in; steps, out.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::observed::Sandbox;

fn pod(spec: serde_json::Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec})).expect("pod")
}

fn ready_sandbox() -> Sandbox {
    Sandbox { id: "sb".into(), ready: true, ips: vec!["10.0.0.2".into()], ..Sandbox::default() }
}

/// `name:state[:code]` in the ready sandbox; a leading `old/` puts it in another sandbox.
fn instance(text: &str) -> Instance {
    let (sandbox_id, text) = text.strip_prefix("old/").map_or(("sb", text), |rest| ("old", rest));
    let parts: Vec<&str> = text.split(':').collect();
    let state = match parts[1] {
        "run" => State::Running,
        "new" => State::Created,
        "odd" => State::Unknown,
        _ => State::Exited,
    };
    Instance {
        id: format!("id-{}", parts[0]),
        name: parts[0].into(),
        sandbox_id: sandbox_id.into(),
        state,
        exit_code: parts.get(2).map_or(0, |code| code.parse().expect("code")),
        finished: (state == State::Exited).then(|| at(100)),
        ..Instance::default()
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn observed(instances: &[&str]) -> Observed {
    Observed { sandboxes: vec![ready_sandbox()], instances: instances.iter().map(|text| instance(text)).collect() }
}

fn show(plan: &Plan) -> String {
    let mut words: Vec<String> = Vec::new();
    for step in &plan.steps {
        words.push(match step {
            Step::StopSandbox { id } => format!("stop-sandbox {id}"),
            Step::CreateSandbox { attempt } => format!("create-sandbox {attempt}"),
            Step::Remove { name, .. } => format!("remove {name}"),
            Step::Kill { message, .. } => format!("kill ({message})"),
            Step::Start { name, attempt, .. } => format!("start {name}#{attempt}"),
        });
    }
    words.extend(plan.waiting.iter().map(|waiting| format!("wait ({})", waiting.message)));
    words.extend(plan.outcome.iter().map(|outcome| format!("{outcome:?}")));
    words.join(", ")
}

fn steps(spec: serde_json::Value, observed: &Observed, view: ProbeView, backoff: &Backoff) -> String {
    let pod = pod(spec);
    show(&plan(&Situation { pod: &pod, observed, probes: &|_| view, backoff, now: at(105) }))
}

fn no_backoff() -> Backoff {
    Backoff::new(Duration::from_secs(10), Duration::from_secs(300))
}

#[test]
fn one_container() {
    let spec = || json!({"restartPolicy": "Always", "containers": [{"name": "c"}]});
    for (instances, want) in [
        (&[][..], "start c#0"),
        (&["c:run"], ""),
        (&["c:exit:1"], "start c#1"),
        (&["c:exit:0"], "start c#1"),
        (&["c:new"], "remove c, start c#0"),
        (&["c:odd"], "kill (Container c is in unknown state, try killing it before restart)"),
    ] {
        assert_eq!(steps(spec(), &observed(instances), ProbeView::default(), &no_backoff()), want, "{instances:?}");
    }
}

#[test]
fn a_crash_loop_waits() {
    let mut backoff = no_backoff();
    backoff.next("c", at(90));
    backoff.next("c", at(100));
    let spec = json!({"containers": [{"name": "c"}]});
    // the second was made and could not be started
    for instance in ["c:exit:1", "c:new"] {
        let found = steps(spec.clone(), &observed(&[instance]), ProbeView::default(), &backoff);
        assert_eq!(found, "wait (back-off 20s restarting failed container=c pod=p_n(u))");
    }
}

#[test]
fn ends() {
    let two = [json!({"name": "a"}), json!({"name": "b"})];
    for (policy, instances, want) in [
        ("Never", &["a:exit:0", "b:exit:0"][..], "Succeeded"),
        ("Never", &["a:exit:0", "b:exit:3"], "Failed"),
        ("Never", &["a:exit:0", "b:run"], ""),
        ("OnFailure", &["a:exit:0", "b:exit:3"], "start b#1"),
        ("OnFailure", &["a:exit:0", "b:exit:0"], "Succeeded"),
    ] {
        let spec = json!({"restartPolicy": policy, "containers": two});
        let found = steps(spec, &observed(instances), ProbeView::default(), &no_backoff());
        assert_eq!(found, want, "{policy} {instances:?}");
    }
}

#[test]
fn init_containers_run_in_order() {
    let spec = |policy: &str| {
        json!({"restartPolicy": policy, "containers": [{"name": "c"}],
            "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}, {"name": "j"}]})
    };
    for (policy, instances, want) in [
        ("Always", &[][..], "start i#0"),
        ("Always", &["i:run"], ""),
        ("Always", &["i:exit:1"], "start i#1"),
        ("Never", &["i:exit:1"], "Failed"),
        ("Always", &["i:exit:0"], "start s#0"),
        ("Always", &["i:exit:0", "s:run"], "start j#0"),
        ("Always", &["i:exit:0", "s:run", "j:exit:0"], "start c#0"),
        ("Always", &["i:exit:0", "s:exit:1", "j:exit:0", "c:run"], "start s#1"),
        // a new sandbox runs all of them again
        ("Always", &["old/i:exit:0", "old/s:exit:137", "old/j:exit:0", "old/c:exit:137"], "start i#1"),
    ] {
        let got = steps(spec(policy), &observed(instances), ProbeView::default(), &no_backoff());
        assert_eq!(got, want, "{policy} {instances:?}");
    }
}

#[test]
fn sandboxes() {
    let spec = || json!({"restartPolicy": "Always", "containers": [{"name": "c"}]});
    let dead = Sandbox { id: "dead".into(), attempt: 2, ..Sandbox::default() };
    let mut in_dead = instance("c:run");
    in_dead.sandbox_id = "dead".into();
    for (observed, want) in [
        (Observed::default(), "create-sandbox 0"),
        (Observed { sandboxes: vec![dead.clone()], instances: vec![] }, "stop-sandbox dead, create-sandbox 3"),
        (Observed { sandboxes: vec![dead], instances: vec![in_dead] }, "stop-sandbox dead"),
        (
            Observed { sandboxes: vec![Sandbox { ips: vec![], ..ready_sandbox() }], instances: vec![] },
            "stop-sandbox sb, create-sandbox 1",
        ),
    ] {
        assert_eq!(steps(spec(), &observed, ProbeView::default(), &no_backoff()), want, "{observed:?}");
    }
}

#[test]
fn probes_kill() {
    let view = ProbeView { liveness: Some(false), ..ProbeView::default() };
    let spec =
        json!({"containers": [{"name": "c", "livenessProbe": {"exec": {}, "terminationGracePeriodSeconds": 5}}]});
    let found = steps(spec, &observed(&["c:run"]), view, &no_backoff());
    assert_eq!(found, "kill (Container c failed liveness probe, will be restarted)");
    let view = ProbeView::default();
    let spec = json!({"containers": [{"name": "c"}],
        "initContainers": [{"name": "s", "restartPolicy": "Always", "startupProbe": {"exec": {}}}]});
    assert_eq!(steps(spec, &observed(&["s:run"]), view, &no_backoff()), "", "waits for the sidecar's startup probe");
}
