//! What an Eviction's status may become: responders work one after another, the one of the highest priority first.
//!
//! Reads the new status, the old one and the clock. Source: the comments of `lifecycle/v1alpha1` in k8s.io/api (states,
//! deadlines, what stays as it is), and how kube-apiserver v1.37.1 answers. Invariant: of responders whose states
//! are in order by priority, some are done, at most one is active, and the others have not begun; an eviction that has
//! ended has no active one.

use std::cmp::Reverse;
use std::collections::HashSet;

use super::{ENDS, FINAL, RESPONDERS, TARGETS, is_active, named, status_time};
use crate::declared::{OWN_PRIORITIES, OWN_PRIORITIES_DETAIL};
use crate::kinds::conditions;
use crate::kinds::prelude::*;

/// How far a time that should be the present may be from it.
const SKEW_MS: i128 = 30_000;
/// A responder that has not been heard of for this long may be given up.
const SILENCE_MS: i128 = 20 * 60_000 - SKEW_MS;
/// How far an expectation may be.
const FARTHEST_MS: i128 = 10 * 365 * 24 * 3_600_000;
/// Kubernetes' own responder, and its priority.
const CORE: (&str, i64) = ("imperative-eviction.k8s.io/evictor", 100);
/// What longer lists have wrong is declared.
const MAX_RESPONDERS: usize = 11;

/// Members of an item as messages show it: as upstream calls it, as it is called, and what is shown where it is not there.
type Shape = &'static [(&'static str, &'static str, &'static str)];
const CONDITION: Shape = &[
    ("type", "type", "\"\""),
    ("status", "status", "\"\""),
    ("observedGeneration", "observedGeneration", ""),
    ("lastTransitionTime", "lastTransitionTime", "null"),
    ("reason", "reason", "\"\""),
    ("message", "message", "\"\""),
];
const TARGET: Shape = &[("Name", "name", "\"\""), ("Priority", "priority", "null"), ("State", "state", "\"\"")];
const RESPONDER: Shape = &[
    ("Name", "name", "\"\""),
    ("StartTime", "startTime", "null"),
    ("HeartbeatTime", "heartbeatTime", "null"),
    ("ExpectedCompletionTime", "expectedCompletionTime", "null"),
    ("CompletionTime", "completionTime", "null"),
    ("Message", "message", "null"),
];

/// All errors of a status that is to replace that of `old`, beside what the type declares.
pub fn validate(new: &Value, old: &Value, now: Timestamp) -> Errors {
    let mut errors = conditions::validate(new);
    let reverted = reverted(new, old);
    let shown = shown_list(&new["status"]["conditions"], CONDITION);
    errors.extend(reverted.iter().map(|ty| {
        let detail = format!("{ty} condition status cannot be reverted");
        Error::invalid_raw(&Path::new("status.conditions"), &shown, detail)
    }));
    let has_ended = !reverted.is_empty() || ENDS.into_iter().any(|ty| conditions::holds(new, ty));
    check_targets(new, old, has_ended, now, &mut errors);
    check_responders(new, old, now, &mut errors);
    errors
}

/// The conditions that ended the eviction, and do not any more.
fn reverted<'v>(new: &Value, old: &'v Value) -> Vec<&'v str> {
    let ended = old
        .array_at(&["status", "conditions"])
        .iter()
        .filter(|condition| ENDS.contains(&text(condition, &["type"])) && text(condition, &["status"]) == "True");
    let is_gone = |condition: &&Value| match conditions::find(new, text(condition, &["type"])) {
        // Compat: kube-apiserver v1.37.1 takes `Unknown` for the same reason, and then the eviction goes on.
        Some(found) => text(found, &["status"]) == "False" || found["reason"] != condition["reason"],
        None => true,
    };
    ended.filter(is_gone).map(|condition| text(condition, &["type"])).collect()
}

/// Whether two lists differ in their names, and if so, whether in their lengths too.
fn difference(one: &[Value], other: &[Value]) -> Option<bool> {
    let names = |list: &[Value]| list.iter().map(|item| text(item, &["name"]).to_string()).collect::<HashSet<_>>();
    match one.len() == other.len() {
        false => Some(true),
        true => (names(one) != names(other)).then_some(false),
    }
}

/// What is to be looked at one by one: not too many, and none twice. Both is declared.
fn is_orderly(list: &[Value]) -> bool {
    let mut met = HashSet::new();
    list.len() <= MAX_RESPONDERS && list.iter().all(|item| met.insert(text(item, &["name"])))
}

fn check_targets(new: &Value, old: &Value, has_ended: bool, now: Timestamp, errors: &mut Errors) {
    let (targets, before) = (new.array_at(TARGETS), old.array_at(TARGETS));
    let path = Path::new("status.targetResponders");
    if let Some(is_length) = difference(targets, before).filter(|_| !before.is_empty()) {
        let what = if is_length { "the same length and the same keys" } else { "the same keys" };
        let shown = shown_list(&new["status"]["targetResponders"], TARGET);
        return errors.push(Error::invalid_raw(&path, &shown, format!("must preserve {what}")));
    }
    if !is_orderly(targets) {
        return;
    }
    let state = |list: &'_ [Value], i: usize| text(&list[i], &["state"]).to_string();
    let order = by_priority(targets);
    let line = Line {
        before: by_priority(before).into_iter().map(|i| state(before, i)).collect(),
        after: order.iter().map(|i| state(targets, *i)).collect(),
        has_ended,
    };
    for (place, i) in order.into_iter().enumerate() {
        let (target, at) = (&targets[i], path.index(i));
        let name = text(target, &["name"]);
        let Some(responder) = named(new.array_at(RESPONDERS), name) else {
            let detail = format!("{} has to be tracked in status.responders first", Value::from(name));
            errors.push(Error::invalid_raw(&at, &shown(target, TARGET), detail));
            continue;
        };
        let priority = &target["priority"];
        if let Some(why) = priority.as_i64().and_then(|number| priority_refusal(name, number)) {
            errors.push(Error::invalid(&at.child("priority"), priority, why));
        }
        let at = at.child("state");
        match line.refusal(place) {
            Some(why) => errors.push(Error::invalid(&at, text(target, &["state"]), why)),
            None => check_work(target, responder, &at, has_ended, now, errors),
        }
    }
}

/// Why a responder may not have this priority.
fn priority_refusal(name: &str, priority: i64) -> Option<String> {
    let (core, its) = CORE;
    match name == core {
        true => (priority >= 0 && priority != its)
            .then(|| format!("core k8s responder is expected to have priority: {its}")),
        false => OWN_PRIORITIES.contains(&priority).then(|| OWN_PRIORITIES_DETAIL.into()),
    }
}

/// Checks a responder's state against what it says of its work.
fn check_work(target: &Value, responder: &Value, at: &Path, has_ended: bool, now: Timestamp, errors: &mut Errors) {
    if !has_ended && !is_active(target) && is_at_work(responder, now) {
        errors.push(Error::forbidden(
            at,
            "must stay Active because the responder is in progress and it should report status.responders.heartbeatTime \
             or status.responders.completionTime",
        ));
    }
    if text(target, &["state"]) == "Completed" && responder["completionTime"].is_null() {
        let detail = "cannot become Completed because the responder didn't report status.responders.completionTime";
        errors.push(Error::invalid(at, &target["state"], detail));
    }
}

fn is_at_work(responder: &Value, now: Timestamp) -> bool {
    let start = status_time(responder, "startTime").filter(|_| responder["completionTime"].is_null());
    start.is_some_and(|start| {
        now.duration_since(status_time(responder, "heartbeatTime").unwrap_or(start)).as_millis() < SILENCE_MS
    })
}

/// The states of all responders in the order of their turns.
struct Line {
    /// Empty before the first is told of.
    before: Vec<String>,
    after: Vec<String>,
    has_ended: bool,
}

impl Line {
    /// Why the responder at this place may not have its state.
    fn refusal(&self, place: usize) -> Option<String> {
        const ACTIVE: &[&str] = &["Active"];
        const INACTIVE: &[&str] = &["Inactive"];
        const UNFINISHED: &str = "the previously active has not finished processing";
        const ENDED: &str = "the eviction request has finished processing";
        let state = self.after[place].as_str();
        let active = self.before.iter().position(|state| state == "Active");
        // The one whose turn it is as soon as no other is active.
        let next = match active {
            Some(active) => active + 1,
            None if self.before.is_empty() => 0,
            None => usize::MAX,
        };
        let own = self.before.get(place).map(String::as_str);
        let (may_be, why): (&[&str], &str) = match own {
            Some("Active") if active == Some(place) => match (state, self.has_ended) {
                ("Active", false) => return None,
                ("Active", true) => (FINAL, ENDED),
                _ => (FINAL, "this responder must reach a final state"),
            },
            Some(ref own) if place < active.unwrap_or(usize::MAX) => {
                (std::slice::from_ref(own), "final state is immutable")
            }
            _ if place > next || active.is_some_and(|active| self.after[active] == "Active") => (INACTIVE, UNFINISHED),
            _ if self.has_ended => (INACTIVE, ENDED),
            _ => (ACTIVE, "this responder is next in line"),
        };
        (!may_be.contains(&state)).then(|| format!("must be one of: {}, because {why}", may_be.join(", ")))
    }
}

/// The places of responders in the order of their turns: by priority, then by domain from its last label on, then by key.
fn by_priority(targets: &[Value]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..targets.len()).collect();
    order.sort_by_cached_key(|i| {
        let key = text(&targets[*i], &["name"]).split_once('/').map_or("", |(_, key)| key);
        let labels: Vec<&str> = domain(&targets[*i]).rsplit('.').collect();
        (Reverse(targets[*i].int_at(&["priority"])), labels, key)
    });
    order
}

fn domain(target: &Value) -> &str {
    text(target, &["name"]).split('/').next().unwrap_or_default()
}

fn check_responders(new: &Value, old: &Value, now: Timestamp, errors: &mut Errors) {
    let (responders, targets) = (new.array_at(RESPONDERS), new.array_at(TARGETS));
    let path = Path::new("status.responders");
    if let Some(is_length) = difference(responders, targets) {
        let what = if is_length { "be the same length as" } else { "contain the same keys as" };
        let rest = if is_length { " and contain the same keys" } else { "" };
        let shown_all = shown_list(&new["status"]["responders"], RESPONDER);
        let detail = format!("must {what} status.targetResponders{rest}");
        return errors.push(Error::invalid_raw(&path, &shown_all, detail));
    }
    if !is_orderly(responders) {
        return;
    }
    for (i, responder) in responders.iter().enumerate() {
        let name = text(responder, &["name"]);
        let before = named(old.array_at(RESPONDERS), name);
        let is_active = named(targets, name).is_some_and(is_active);
        match before {
            Some(before) if !is_active && before != responder => {
                errors.push(Error::invalid_raw(&path.index(i), &shown(responder, RESPONDER), "field is immutable"));
            }
            Some(_) if !is_active => {}
            _ => {
                let times = Times { responder, before: before.unwrap_or(&Value::Null), at: path.index(i), now };
                times.check(is_active, errors);
            }
        }
    }
}

/// The times of a responder that may be written.
struct Times<'v> {
    responder: &'v Value,
    before: &'v Value,
    at: Path,
    now: Timestamp,
}

impl Times<'_> {
    fn check(&self, is_active: bool, errors: &mut Errors) {
        let start = &self.before["startTime"];
        match status_time(self.responder, "startTime") {
            None if is_active && start.is_null() => {
                errors.push(Error::required(&self.at.child("startTime"), "is required for an active responder"))
            }
            Some(at) if start.is_null() && !self.is_present(at) => errors.push(self.refused("startTime", PRESENT)),
            _ => {}
        }
        if self.responder["heartbeatTime"].is_null() && !self.before["heartbeatTime"].is_null() {
            errors.push(Error::required(&self.at.child("heartbeatTime"), "is required once set"));
        }
        errors.extend(["heartbeatTime", "expectedCompletionTime", "completionTime"].into_iter().filter_map(|field| {
            let why = self.refusal(field, status_time(self.responder, field)?)?;
            Some(self.refused(field, &why))
        }));
    }

    /// Why a field may not have this time.
    fn refusal(&self, field: &str, time: Timestamp) -> Option<String> {
        let start = self.at.child("startTime");
        let (before, is_new) = (status_time(self.before, field), self.before[field] != self.responder[field]);
        let what = match status_time(self.responder, "startTime") {
            // That it may not change then is declared.
            _ if field == "completionTime" && before.is_some() && is_new => return None,
            _ if field != "completionTime" && !is_new => return None,
            None => format!("cannot be set before {start} is set"),
            _ if field == "heartbeatTime" && before.is_some_and(|before| time < before) => "cannot be decreased".into(),
            Some(at) if time < at => format!("must occur after {start}"),
            _ if field == "expectedCompletionTime" => match self.now.duration_since(time).as_millis() {
                since_ms if since_ms > SKEW_MS => "cannot be set to the past time".into(),
                since_ms if since_ms < -FARTHEST_MS => "must complete within 10 years".into(),
                _ => return None,
            },
            _ if is_new && !self.is_present(time) => PRESENT.into(),
            _ => return None,
        };
        Some(what)
    }

    fn is_present(&self, time: Timestamp) -> bool {
        self.now.duration_since(time).as_millis().abs() <= SKEW_MS
    }

    fn refused(&self, field: &str, why: &str) -> Error {
        Error::invalid(&self.at.child(field), &self.responder[field], why)
    }
}

const PRESENT: &str = "must be set to the present time";

fn shown(item: &Value, shape: Shape) -> String {
    let members = shape.iter().filter_map(|(label, member, otherwise)| match &item[*member] {
        Value::Null if otherwise.is_empty() => None,
        Value::Null => Some(format!("\"{label}\":{otherwise}")),
        value => Some(format!("\"{label}\":{value}")),
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

fn shown_list(list: &Value, shape: Shape) -> String {
    match list.as_array() {
        Some(items) => format!("[{}]", items.iter().map(|item| shown(item, shape)).collect::<Vec<_>>().join(",")),
        None => "null".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// States by their letters.
    fn states(letters: &str) -> Vec<String> {
        let state = |letter| match letter {
            'A' => "Active",
            'X' => "Canceled",
            'C' => "Completed",
            'R' => "Interrupted",
            _ => "Inactive",
        };
        letters.chars().map(|letter| state(letter).to_string()).collect()
    }

    #[test]
    fn responders_take_turns() {
        const FINAL: &str =
            "must be one of: Canceled, Completed, Interrupted, because this responder must reach a final state";
        const ENDED: &str = "must be one of: Inactive, because the eviction request has finished processing";
        const NEXT: &str = "must be one of: Active, because this responder is next in line";
        const WAIT: &str = "must be one of: Inactive, because the previously active has not finished processing";
        const DONE: &str = "must be one of: Completed, because final state is immutable";
        const END: &str =
            "must be one of: Canceled, Completed, Interrupted, because the eviction request has finished processing";
        for (before, after, has_ended, want) in [
            ("", "AI", false, vec![]),
            ("", "II", false, vec![(0, NEXT)]),
            ("", "IA", false, vec![(0, NEXT), (1, WAIT)]),
            ("", "II", true, vec![]),
            ("", "AI", true, vec![(0, ENDED)]),
            ("AI", "AI", false, vec![]),
            ("AI", "IA", false, vec![(0, FINAL)]),
            ("AI", "AA", false, vec![(1, WAIT)]),
            ("AI", "CI", false, vec![(1, NEXT)]),
            ("AII", "RAI", false, vec![]),
            ("AII", "RAA", false, vec![(2, WAIT)]),
            ("AI", "AI", true, vec![(0, END)]),
            ("AI", "XI", true, vec![]),
            ("AI", "XA", true, vec![(1, ENDED)]),
            ("CAI", "RAI", false, vec![(0, DONE)]),
            ("CA", "CC", false, vec![]),
            ("CC", "CA", false, vec![(1, DONE)]),
        ] {
            let line = Line { before: states(before), after: states(after), has_ended };
            let told = (0..after.len()).filter_map(|place| Some((place, line.refusal(place)?)));
            let want: Vec<_> = want.into_iter().map(|(place, text)| (place, text.to_string())).collect();
            assert_eq!(told.collect::<Vec<_>>(), want, "{before} {after} {has_ended}");
        }
    }

    #[test]
    fn the_order_of_turns() {
        let names = ["b.io/a", "a.com/z", "z.a.com/a", "a.com/a", "com/x", "x.k8s.io/late", "a/none", "z.io/first"];
        let priorities = [1000, 1000, 1000, 1000, 1000, 100, -1, 5000];
        let targets: Vec<Value> = names
            .into_iter()
            .zip(priorities)
            .map(|(name, priority)| match priority {
                -1 => json!({"name": name}),
                _ => json!({"name": name, "priority": priority}),
            })
            .collect();
        let order: Vec<&str> = by_priority(&targets).into_iter().map(|i| names[i]).collect();
        let want = ["z.io/first", "com/x", "a.com/a", "a.com/z", "z.a.com/a", "b.io/a", "x.k8s.io/late", "a/none"];
        assert_eq!(order, want);
    }

    const NAME: &str = "a.io/b";

    /// An eviction with one responder.
    fn eviction(state: &str, times: Value) -> Value {
        let mut responder = times;
        responder.set(&["name"], NAME);
        json!({"status": {
            "targetResponders": [{"name": NAME, "priority": 1000, "state": state}],
            "responders": [responder]}})
    }

    fn told(new: &Value, old: &Value) -> Vec<String> {
        let now = meta::time::parse("2026-01-01T01:00:00Z").expect("a time");
        validate(new, old, now).iter().map(Error::to_string).collect()
    }

    #[test]
    fn times() {
        let at = |time: &str| format!("2026-01-01T{time}Z");
        let active = |times: &[(&str, &str)]| {
            let times: Vec<(&str, String)> = times.iter().map(|(field, time)| (*field, at(time))).collect();
            let mut object = Value::object();
            times.into_iter().for_each(|(field, time)| object.set(&[field], time));
            eviction("Active", object)
        };
        let (start, heartbeat, completion) = ("startTime", "heartbeatTime", "completionTime");
        let expected = "expectedCompletionTime";
        let nothing = Value::object();
        let old = active(&[(start, "00:50:00"), (heartbeat, "00:55:00")]);
        for (new, old, want) in [
            (active(&[]), &nothing, vec!["startTime: Required value: is required for an active responder"]),
            (active(&[(start, "00:59:31")]), &nothing, vec![]),
            (
                active(&[(start, "00:59:29")]),
                &nothing,
                vec!["startTime: Invalid value: \"2026-01-01T00:59:29Z\": must be set to the present time"],
            ),
            (active(&[(start, "00:50:00"), (heartbeat, "01:00:10")]), &old, vec![]),
            (active(&[(start, "00:50:00")]), &old, vec!["heartbeatTime: Required value: is required once set"]),
            (
                active(&[
                    (start, "00:50:00"),
                    (heartbeat, "00:54:00"),
                    (expected, "00:59:00"),
                    (completion, "00:49:00"),
                ]),
                &old,
                vec![
                    "heartbeatTime: Invalid value: \"2026-01-01T00:54:00Z\": cannot be decreased",
                    "expectedCompletionTime: Invalid value: \"2026-01-01T00:59:00Z\": cannot be set to the past time",
                    "completionTime: Invalid value: \"2026-01-01T00:49:00Z\": must occur after \
                     status.responders[0].startTime",
                ],
            ),
        ] {
            let want: Vec<String> = want.into_iter().map(|text| format!("status.responders[0].{text}")).collect();
            assert_eq!(told(&new, old), want, "{new}");
        }
    }

    #[test]
    fn only_silence_lets_an_active_one_be_given_up() {
        const STAY: &str = "status.targetResponders[0].state: Forbidden: must stay Active because the responder is in progress and \
                            it should report status.responders.heartbeatTime or status.responders.completionTime";
        let done = json!({"startTime": "2026-01-01T00:50:00Z", "completionTime": "2026-01-01T00:51:00Z"});
        let started = |time: &str| json!({"startTime": format!("2026-01-01T{time}Z")});
        for (times, state, want) in [
            (started("00:40:31"), "Interrupted", vec![STAY]),
            (started("00:40:30"), "Interrupted", vec![]),
            (started("00:40:31"), "Canceled", vec![STAY]),
            (done.clone(), "Completed", vec![]),
            (done, "Canceled", vec![]),
        ] {
            let old = eviction("Active", times.clone());
            assert_eq!(told(&eviction(state, times.clone()), &old), want, "{times} {state}");
            let mut ended = eviction("Canceled", times.clone());
            let condition = json!({"type": "Failed", "status": "True", "reason": "R", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"});
            ended.set(&["status", "conditions"], json!([condition]));
            assert_eq!(told(&ended, &old), [""; 0]);
            let after = told(&eviction("Canceled", times), &ended);
            assert_eq!(after[0], "status.conditions: Invalid value: null: Failed condition status cannot be reverted");
        }
    }
}
