//! Eviction (of `lifecycle.k8s.io`): who asked for a target to go, and which responders see to it, one after another.

mod status;

use super::columns::{ago, due};
use super::conditions;
use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        TARGET,
        TARGET_TYPE,
        STATUS,
        Column::text("Active Responder", ".status.targetResponders.state").by(|eviction| {
            let (responder, met) = latest(eviction);
            let name = responder.map_or("<unset>", |responder| text(responder, &["name"]));
            format!("{name} ({met}/{})", eviction.array_at(TARGETS).len()).into()
        }),
        Column::text(
            "Responder Status",
            "ResponderStatus represents the last observed status of the eviction process of the responder. It should be \
             only updated by the designated responder whose name is .name field.",
        )
        .by_time(progress),
        Column::text("Responder Expected Finish", ".status.responders.expectedCompletionTime").by_time(expected_finish),
        Column::text("Requesters", ".status.requesters").by(requesters),
        AGE,
        Column::text("Responder Heartbeat", ".status.responders.heartbeatTime")
            .by_time(|eviction, now| {
                let at = latest_status(eviction).and_then(|(_, status)| status_time(status, "heartbeatTime"));
                at.map_or("<unset>".into(), |at| format!("{} ago", ago(at, now)).into())
            })
            .wide(),
        Column::text("Responder Status Message", ".status.responders.message")
            .by(|eviction| match latest_status(eviction).map_or("", |(_, status)| text(status, &["message"])) {
                "" => "<unset>".into(),
                message => message.into(),
            })
            .wide(),
    ],
    prepare_create: |eviction| new_object(eviction, Value::object()),
    prepare_update: keep_status_count_spec,
    validate_status_update: |new, old| status::validate(new, old, meta::time::now()),
    declared: &[("", ("lifecycle", "Eviction"))],
    declares_name: true,
    status_restores: &OWN_METADATA,
    unconditional_update: false,
    ..Kind::PLAIN
};

pub(super) const TARGET: Column = Column::text("Target", ".spec.target").or("spec.target.pod.name", "<unset>");
pub(super) const TARGET_TYPE: Column =
    Column::text("Target Type", ".spec.target").by(|object| match &object["spec"]["target"]["pod"] {
        Value::Null => "<unset>".into(),
        _ => "Pod".into(),
    });
pub(super) const STATUS: Column = Column::text("Status", ".status.conditions").by(|object| {
    match ENDS.into_iter().find_map(|ty| conditions::holding(object, ty)) {
        Some(end) => format!("{} ({})", text(end, &["type"]), text(end, &["reason"])).into(),
        None if int(object, &["status", "observedGeneration"]) > 0 => "Progressing".into(),
        None => "Pending".into(),
    }
});

/// The conditions that end an eviction, the more telling first.
const ENDS: [&str; 2] = ["TargetEvicted", "Failed"];

const TARGETS: &[&str] = &["status", "targetResponders"];
const RESPONDERS: &[&str] = &["status", "responders"];

/// States of responders that are done.
const FINAL: &[&str] = &["Canceled", "Completed", "Interrupted"];

fn is_active(responder: &Value) -> bool {
    text(responder, &["state"]) == "Active"
}

/// The responder that is at work, or was last; and how many have been by now.
fn latest(eviction: &Value) -> (Option<&Value>, usize) {
    let met = |responder: &&Value| is_active(responder) || FINAL.contains(&text(responder, &["state"]));
    let responders: Vec<&Value> = eviction.array_at(TARGETS).iter().filter(met).collect();
    let active = responders.iter().rfind(|responder| is_active(responder));
    (active.or(responders.last()).copied(), responders.len())
}

/// That responder, and what it says of itself.
fn latest_status(eviction: &Value) -> Option<(&Value, &Value)> {
    let responder = latest(eviction).0?;
    Some((responder, named(eviction.array_at(RESPONDERS), text(responder, &["name"]))?))
}

/// The item of this name; of several the last, as upstream.
fn named<'v>(list: &'v [Value], name: &str) -> Option<&'v Value> {
    list.iter().rfind(|item| text(item, &["name"]) == name)
}

fn status_time(status: &Value, field: &str) -> Option<Timestamp> {
    status.str_at(&[field]).and_then(meta::time::parse)
}

fn progress(eviction: &Value, now: Timestamp) -> Cell {
    let Some((responder, status)) = latest_status(eviction) else { return "<unset>".into() };
    let state = text(responder, &["state"]);
    let (word, since) = match state {
        "Active" => ("Started", "startTime"),
        _ => (state, "completionTime"),
    };
    match status_time(status, since).filter(|_| ["Active", "Completed"].contains(&state)) {
        Some(at) => format!("{word} ({} ago)", ago(at, now)).into(),
        None => state.into(),
    }
}

fn expected_finish(eviction: &Value, now: Timestamp) -> Cell {
    match latest_status(eviction) {
        Some((responder, _)) if !is_active(responder) => "-".into(),
        Some((_, status)) => {
            status_time(status, "expectedCompletionTime").map_or("<unknown>".into(), |at| due(at, now).into())
        }
        None => "<unknown>".into(),
    }
}

/// The first that still wants the eviction, and how many more do.
fn requesters(eviction: &Value) -> Cell {
    let all = eviction.array_at(&["status", "requesters"]);
    let wanting: Vec<&str> =
        all.iter().filter(|r| text(r, &["intent"]) == "Eviction").map(|r| text(r, &["name"])).collect();
    match wanting.as_slice() {
        [] if all.is_empty() => "<none>".into(),
        [] => "<withdrawn>".into(),
        [one] => (*one).into(),
        [first, rest @ ..] => format!("{first} + {} more...", rest.len()).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells() {
        let now = meta::time::parse("2026-01-01T01:00:00Z").expect("a time");
        let target = json!({"pod": {"name": "p"}});
        for (status, want) in [
            (
                json!({"requesters": [{"name": "a/b", "intent": "Withdrawn"}]}),
                json!(["Pending", "<unset> (0/0)", "<unset>", "<unknown>", "<withdrawn>", "<unset>", "<unset>"]),
            ),
            (
                json!({
                    "observedGeneration": 1,
                    "requesters": [{"name": "a/b", "intent": "Eviction"}, {"name": "c/d", "intent": "Eviction"}],
                    "targetResponders": [{"name": "a/1", "state": "Completed"}, {"name": "a/2", "state": "Active"},
                        {"name": "a/3", "state": "Inactive"}],
                    "responders": [{"name": "a/2", "startTime": "2026-01-01T00:58:20Z", "message": "soon",
                        "heartbeatTime": "2026-01-01T00:59:10Z", "expectedCompletionTime": "2026-01-01T01:05:00Z"}]}),
                json!([
                    "Progressing", "a/2 (2/3)", "Started (100s ago)", "in 5m", "a/b + 1 more...", "50s ago", "soon"
                ]),
            ),
            (
                json!({
                    "conditions": [{"type": "Failed", "status": "True", "reason": "NoFurtherResponder"}],
                    "targetResponders": [{"name": "a/1", "state": "Completed"}],
                    "responders": [{"name": "a/1", "completionTime": "2026-01-01T00:59:59Z"}]}),
                json!([
                    "Failed (NoFurtherResponder)", "a/1 (1/1)", "Completed (1s ago)", "-", "<none>", "<unset>",
                    "<unset>"
                ]),
            ),
        ] {
            let eviction = json!({"spec": {"target": target.clone()}, "status": status});
            let cells = KIND.cells(&eviction, now);
            assert_eq!((&cells[1], &cells[2]), (&"p".into(), &"Pod".into()));
            let told: Vec<Value> = [3, 4, 5, 6, 7, 9, 10].map(|i| cells[i].clone()).into();
            assert_eq!(Value::Array(told), want);
        }
    }
}
