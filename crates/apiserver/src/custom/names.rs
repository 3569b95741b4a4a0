//! The status of a definition: which of its names it gets, and its conditions.
//!
//! Source: "Create a CustomResourceDefinition" and the conditions of the API reference. Pure. Invariant: a name once
//! accepted stays with its definition until that is gone.

use std::collections::HashSet;

use api::kinds::conditions;
use api::kinds::customresourcedefinition::{APPROVED, is_protected};
use meta::time::{self, Timestamp};
use meta::{Value, json};

/// The names in one group that other definitions have: those of resources, and those of kinds.
#[derive(Default)]
pub struct Taken {
    resources: HashSet<String>,
    kinds: HashSet<String>,
}

fn text<'v>(names: &'v Value, member: &str) -> &'v str {
    names.str_at(&[member]).unwrap_or_default()
}

fn short_names(names: &Value) -> impl Iterator<Item = &str> {
    names.array_at(&["shortNames"]).iter().filter_map(Value::as_str)
}

impl Taken {
    /// Adds what a definition has been given.
    pub fn add(&mut self, definition: &Value) {
        let names = &definition["status"]["acceptedNames"];
        let all = [text(names, "plural"), text(names, "singular")].into_iter().chain(short_names(names));
        self.resources.extend(all.filter(|n| !n.is_empty()).map(str::to_string));
        let kinds = [text(names, "kind"), text(names, "listKind")];
        self.kinds.extend(kinds.into_iter().filter(|n| !n.is_empty()).map(str::to_string));
    }
}

/// The status that a definition is to have.
pub fn status(definition: &Value, taken: &Taken, now: Timestamp) -> Value {
    let mut status = definition.get("status").cloned().unwrap_or_else(Value::object);
    let (accepted, conflict) = accept(definition, taken);
    status.set(&["acceptedNames"], accepted);
    let mut set = |condition: Condition| condition.put(&mut status, now);
    match &conflict {
        None => set(Condition("NamesAccepted", "True", "NoConflicts", "no conflicts found".into())),
        Some((reason, message)) => set(Condition("NamesAccepted", "False", reason, message.clone())),
    }
    // Once established it stays so: its names are its own by then.
    if conflict.is_none() || conditions::holds(definition, "Established") {
        set(Condition("Established", "True", "InitialNamesAccepted", "the initial names have been accepted".into()));
    } else {
        set(Condition("Established", "False", "NotAccepted", "not all names are accepted".into()));
    }
    if let Some(condition) = approval(definition) {
        set(condition);
    }
    if let Some(stored) = storage(definition) {
        let list = status.slot(&["storedVersions"]).make_array();
        if !list.contains(&stored.into()) {
            list.push(stored.into());
        }
    }
    status
}

fn storage(definition: &Value) -> Option<&str> {
    let versions = definition.array_at(&["spec", "versions"]);
    versions.iter().find(|v| v.bool_at(&["storage"]) == Some(true))?.str_at(&["name"])
}

/// The names to accept; beside them the first conflict, as reason and message.
fn accept(definition: &Value, taken: &Taken) -> (Value, Option<(&'static str, String)>) {
    let wanted = &definition["spec"]["names"];
    let mut accepted = definition["status"].get("acceptedNames").cloned().unwrap_or_else(Value::object);
    let mut conflict: Option<(&'static str, String)> = None;
    let mut refuse = |reason: &'static str, name: &str| {
        conflict.get_or_insert((reason, format!("{name:?} is already in use")));
    };
    for (member, pool, reason) in [
        ("plural", &taken.resources, "PluralConflict"),
        ("singular", &taken.resources, "SingularConflict"),
        ("kind", &taken.kinds, "KindConflict"),
        ("listKind", &taken.kinds, "ListKindConflict"),
    ] {
        let name = text(wanted, member);
        if pool.contains(name) {
            refuse(reason, name);
        } else {
            accepted.set(&[member], name);
        }
    }
    let (free, used): (Vec<&str>, Vec<&str>) = short_names(wanted).partition(|n| !taken.resources.contains(*n));
    if let Some(name) = used.first() {
        refuse("ShortNamesConflict", name);
    }
    for (member, list) in [
        ("shortNames", free.into_iter().map(Value::from).collect()),
        ("categories", wanted.array_at(&["categories"]).to_vec()),
    ] {
        if list.is_empty() {
            accepted.remove(&[member]);
        } else {
            accepted.set(&[member], list);
        }
    }
    (accepted, conflict)
}

/// Whether the project has approved of a definition in one of its groups.
fn approval(definition: &Value) -> Option<Condition> {
    if !is_protected(definition.str_at(&["spec", "group"])?) {
        return None;
    }
    const NAME: &str = "KubernetesAPIApprovalPolicyConformant";
    let said = definition.str_at(&["metadata", "annotations", APPROVED]).unwrap_or_default();
    Some(if said.starts_with("unapproved") {
        Condition(NAME, "False", "UnapprovedAnnotation", format!("not approved: {said:?}"))
    } else if said.starts_with("https://") || said.starts_with("http://") {
        Condition(NAME, "True", "ApprovedAnnotation", format!("approved in {said}"))
    } else if said.is_empty() {
        let why = format!(
            "protected groups must have approval annotation {APPROVED:?}, see https://github.com/kubernetes/enhancements/pull/1111"
        );
        Condition(NAME, "False", "MissingAnnotation", why)
    } else {
        let why = format!(
            "protected groups must have approval annotation {APPROVED:?} with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111"
        );
        Condition(NAME, "False", "InvalidAnnotation", why)
    })
}

/// Type, status, reason, message.
pub struct Condition(pub &'static str, pub &'static str, pub &'static str, pub String);

impl Condition {
    /// Sets this condition in a status; its time changes only with its status.
    pub fn put(self, status: &mut Value, now: Timestamp) {
        let Condition(name, state, reason, message) = self;
        let mut new = json!({"type": name, "status": state, "reason": reason, "message": message,
            "lastTransitionTime": time::seconds(now)});
        let list = status.slot(&["conditions"]).make_array();
        match list.iter_mut().find(|c| c.str_at(&["type"]) == Some(name)) {
            Some(old) => {
                if let Some(at) = old.get("lastTransitionTime").filter(|_| old.str_at(&["status"]) == Some(state)) {
                    new.set(&["lastTransitionTime"], at);
                }
                if let Some(generation) = old.get("observedGeneration") {
                    new.set(&["observedGeneration"], generation);
                }
                *old = new;
            }
            None => list.push(new),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn definition(plural: &str, kind: &str, short: &str) -> Value {
        json!({"spec": {"group": "example.com", "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind,
            "listKind": format!("{kind}List"), "shortNames": [short]}, "versions": [{"name": "v1", "storage": true}]}})
    }

    #[test]
    fn names_go_to_who_came_first() {
        let now = time::parse("2026-01-01T00:00:00Z").expect("a time");
        let mut first = definition("foos", "Foo", "f");
        first.set(&["status"], status(&first, &Taken::default(), now));
        expect![[r#"{"acceptedNames":{"kind":"Foo","listKind":"FooList","plural":"foos","shortNames":["f"],"singular":"foo"},"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"no conflicts found","reason":"NoConflicts","status":"True","type":"NamesAccepted"},{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"the initial names have been accepted","reason":"InitialNamesAccepted","status":"True","type":"Established"}],"storedVersions":["v1"]}"#]]
            .assert_eq(&first["status"].to_string());
        let later = time::parse("2026-01-02T00:00:00Z").expect("a time");
        assert_eq!(status(&first, &Taken::default(), later), first["status"], "nothing changes");
        let mut taken = Taken::default();
        taken.add(&first);
        let second = definition("bars", "Foo", "f");
        expect![[r#"{"acceptedNames":{"plural":"bars"},"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"\"foo\" is already in use","reason":"SingularConflict","status":"False","type":"NamesAccepted"},{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"not all names are accepted","reason":"NotAccepted","status":"False","type":"Established"}],"storedVersions":["v1"]}"#]]
            .assert_eq(&status(&second, &taken, now).to_string());
    }
}
