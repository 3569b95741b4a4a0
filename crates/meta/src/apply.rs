//! Server-side apply: who owns which field (`metadata.managedFields`), and what that means for a write.
//!
//! `apply` merges an applied document into the live one and answers conflicts; `track_update` records what any other
//! write changed. Pure functions over documents and the schema. Invariant: no two writes lose a field silently: a field
//! changes hands only by being changed, and leaves the object only when its last applier stops applying it.

mod compare;
mod entries;
mod fields;
mod merge;
pub mod scale;
mod shape;
mod typed;

use crate::schema::TypeRef;
use crate::status::{Cause, Reason, Status};
use crate::time::{self, Timestamp};
use crate::{Map, Value};
use compare::Change;
use entries::{Entries, Operation};
use shape::Slot;

/// Who writes.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    /// The field manager: the request's `fieldManager`, or else `manager_of_user_agent`.
    pub manager: &'a str,
    /// The apiVersion of the request.
    pub api_version: &'a str,
    /// `status`, `scale`, ...; empty for the object itself.
    pub subresource: &'a str,
    pub now: Timestamp,
    /// The version whose managers' fields are not those of the writer's.
    pub other: Option<Other<'a>>,
}

/// Another version of a kind, in which some fields have another name or place.
#[derive(Clone, Copy)]
pub struct Other<'a> {
    pub api_version: &'a str,
    pub ty: TypeRef<'a>,
    /// Makes a document of this version of one of the writer's.
    pub convert: &'a dyn Fn(&mut Value),
}

impl Other<'_> {
    fn compare(&self, old: &Value, new: &Value) -> Change {
        let [mut old, mut new] = [old.clone(), new.clone()];
        [&mut old, &mut new].into_iter().filter(|document| !document.is_null()).for_each(self.convert);
        compare::compare(&old, &new, self.ty)
    }
}

/// A change as managers of either version see it.
struct Changes<'a> {
    own: Change,
    other: Option<(&'a str, Change)>,
}

impl<'a> Changes<'a> {
    fn new(old: &Value, new: &Value, ty: TypeRef<'_>, writer: &Writer<'a>, entries: &Entries) -> Self {
        let other = writer.other.filter(|other| entries.any_of(other.api_version));
        let other = other.map(|other| (other.api_version, other.compare(old, new)));
        Changes { own: compare::compare(old, new, ty), other }
    }

    /// As managers of this version see it.
    fn told(&self, api_version: &str) -> &Change {
        match &self.other {
            Some((other, change)) if *other == api_version => change,
            _ => &self.own,
        }
    }
}

/// A field that the applier wants and another manager holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    /// As upstream words a manager: `"x" using v1`.
    pub manager: String,
    pub path: String,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ApplyError {
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// The applied document can't be merged (an item of a keyed list without its key, or twice).
    #[error("{0}")]
    Malformed(String),
}

impl ApplyError {
    pub fn to_status(&self) -> Status {
        match self {
            // Compat: upstream has no reason for these; kubectl prints them after a bare "Error from server".
            ApplyError::Malformed(message) => Status::new(500, Reason::Unknown, message.clone()),
            ApplyError::Conflicts(conflicts) => {
                let cause = |c: &Conflict| Cause {
                    reason: "FieldManagerConflict".into(),
                    message: format!("conflict with {}", c.manager),
                    field: c.path.clone(),
                };
                Status::new(409, Reason::Conflict, self.to_string()).with_causes(conflicts.iter().map(cause).collect())
            }
        }
    }
}

fn malformed(applied: &Value, why: &str) -> ApplyError {
    ApplyError::Malformed(format!("failed to create typed patch object ({}): {why}", described(applied)))
}

/// `namespace/name; group/version, Kind=kind`, as a document itself says.
pub fn described(document: &Value) -> String {
    let text = |path: &[&str]| document.str_at(path).unwrap_or_default();
    format!("{}/{}; {}", text(&["metadata", "namespace"]), text(&["metadata", "name"]), kind_of(document))
}

/// `group/version, Kind=kind`, as a document itself says.
pub fn kind_of(document: &Value) -> String {
    let text = |member: &str| document.str_at(&[member]).unwrap_or_default();
    let slash = if text("apiVersion").contains('/') { "" } else { "/" };
    format!("{slash}{}, Kind={}", text("apiVersion"), text("kind"))
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", one.manager, one.path);
    }
    let mut managers: Vec<&str> = conflicts.iter().map(|c| c.manager.as_str()).collect();
    managers.sort_unstable();
    managers.dedup();
    let mut lines = Vec::new();
    for manager in managers {
        lines.push(format!("conflicts with {manager}:"));
        lines.extend(conflicts.iter().filter(|c| c.manager == manager).map(|c| format!("- {}", c.path)));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

/// The manager of a client that names none: the user agent up to its first slash, at most 128 bytes.
pub fn manager_of_user_agent(user_agent: &str) -> &str {
    let first = user_agent.split('/').next().unwrap_or_default();
    let mut end = first.len().min(128);
    while !first.is_char_boundary(end) {
        end -= 1;
    }
    &first[..end]
}

/// Whether an applied document fits its type, in the parts too that its endpoint does not write.
pub fn check(ty: TypeRef<'_>, applied: &Value) -> Result<(), ApplyError> {
    typed::fields_of(applied, ty).map(drop).map_err(|why| malformed(applied, &why))
}

/// The live object (null when there is none yet) with `applied` applied to it, managedFields included.
///
/// With `force`, fields of other managers are taken over instead of conflicting. When nothing changes the answer
/// equals `live`.
pub fn apply(
    ty: TypeRef<'_>,
    live: &Value,
    applied: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    let mut applied = applied.clone();
    applied.remove(&["metadata", "managedFields"]);
    let mut before = live.clone();
    before.remove(&["metadata", "managedFields"]);
    let mut entries = Entries::read(live);
    entries.keep_group(writer.api_version);
    let known = entries.clone();
    if entries.is_empty() && !live.is_null() {
        // Nobody tracked this object so far: what it holds was set by somebody.
        let set = compare::compare(&Value::Null, &before, ty).taken;
        let at = entries.push(&Writer { manager: BEFORE_FIRST_APPLY, ..*writer }, Operation::Update);
        *entries.fields_mut(at) = set;
        fields::strip_identity(entries.fields_mut(at));
        // Nobody came to own by this endpoint what it does not write.
        entries.fields_mut(at).retain(|step, _| match writer.subresource {
            "" => step != "f:status",
            "status" => matches!(step, "f:status" | "f:metadata"),
            _ => true,
        });
        entries.touch(at, writer.now);
    }

    // kubectl keeps its client-side annotation true when it applies on the server.
    if writer.manager == KUBECTL && live.at(&LAST_APPLIED).is_some() {
        refresh_last_applied(&mut applied);
    }
    let set = typed::fields_of(&applied, ty).map_err(|why| malformed(&applied, &why))?;
    let mine = entries.find(writer, Operation::Apply);
    let last = mine.map(|at| std::mem::take(entries.fields_mut(at))).unwrap_or_default();
    let mine = mine.unwrap_or_else(|| entries.push(writer, Operation::Apply));
    *entries.fields_mut(mine) = set;
    entries.set_version(mine, writer.api_version);

    let mut merged = merge::merge(&before, &applied, ty);
    if !last.is_empty() {
        merge::prune(&mut merged, &last, &entries.all_fields(), ty);
    }
    // Only now: while pruning, the applied name keeps `metadata` in place.
    fields::strip_identity(entries.fields_mut(mine));
    let change = Changes::new(&before, &merged, ty, writer, &entries);
    if change.own.nameless
        && let Err(why) = typed::fields_of(&before, ty)
    {
        return Err(ApplyError::Malformed(format!(
            "failed to create typed live object ({}): {why}",
            described(&before)
        )));
    }
    let conflicts = entries.conflicts(mine, |version| &change.told(version).taken);
    if !conflicts.is_empty() && !force && !conflicts_are_kubectls_own(live, writer, ty, &conflicts) {
        return Err(ApplyError::Conflicts(entries.describe(&conflicts)));
    }
    for (at, fields) in &conflicts {
        fields::subtract(entries.fields_mut(*at), fields);
    }
    for at in (0..entries.len()).filter(|at| *at != mine) {
        let removed = &change.told(entries.version(at)).removed;
        fields::subtract(entries.fields_mut(at), removed);
    }
    entries.drop_empty();
    if change.own.empty_lists {
        forget_empty_lists(ty, &mut merged);
    }
    if merged == before && entries.same_fields(&known) {
        return Ok(live.clone());
    }
    // Compat: an apply that changes hands but no value has no time of its own.
    if merged != before
        && let Some(mine) = entries.find(writer, Operation::Apply)
    {
        entries.touch(mine, writer.now);
    }
    entries.write(&mut merged);
    Ok(merged)
}

/// Records in `new` who owns what after a write other than apply. `old` is null when the object is created.
///
/// A client may send managedFields along: its list is the starting point; an empty one, or a single empty entry, clears
/// that of an object that was there.
pub fn track_update(ty: TypeRef<'_>, old: &Value, new: &mut Value, writer: &Writer<'_>) {
    let sent = new.remove(&["metadata", "managedFields"]);
    if let Some(Value::Array(list)) = &sent
        && !old.is_null()
        && (list.is_empty() || matches!(list.as_slice(), [Value::Object(only)] if only.is_empty()))
    {
        return forget_empty_lists(ty, new);
    }
    let mut entries = match &sent {
        Some(Value::Array(list)) if !list.is_empty() => Entries::sent(list).unwrap_or_else(|| Entries::read(old)),
        _ => Entries::read(old),
    };
    let mut change = Changes::new(old, new, ty, writer, &entries);
    if change.own.empty_lists {
        forget_empty_lists(ty, new);
    }
    if change.own.nameless {
        // Compat: what does not fit its type changes no owners.
        return entries.write(new);
    }
    for change in [&mut change.own].into_iter().chain(change.other.as_mut().map(|(_, change)| change)) {
        fields::strip_identity(&mut change.taken);
        fields::strip_identity(&mut change.removed);
    }
    if entries.is_empty() {
        // An object that nobody tracked so far stays untracked until it is applied.
        if old.is_null() && !change.own.taken.is_empty() {
            let at = entries.push(writer, Operation::Update);
            *entries.fields_mut(at) = change.own.taken;
            entries.touch(at, writer.now);
        }
        return entries.write(new);
    }
    entries.keep_group(writer.api_version);
    let mine = entries.find(writer, Operation::Update);
    for at in 0..entries.len() {
        let told = change.told(entries.version(at));
        let set = entries.fields_mut(at);
        fields::subtract(set, &told.removed);
        if Some(at) != mine {
            fields::subtract(set, &told.taken);
        }
    }
    if !change.own.taken.is_empty() {
        let at = mine.unwrap_or_else(|| entries.push(writer, Operation::Update));
        fields::union(entries.fields_mut(at), &change.own.taken);
        entries.touch(at, writer.now);
    }
    entries.drop_empty();
    entries.cap_updates();
    entries.write(new);
    if change.own.empty_lists && differ_in_times(old, new) {
        // What is empty was set to nothing once more.
        *new = old.clone();
    }
}

/// Makes null of empty lists that are always written: what is left of them once they are stored.
pub fn forget_empty_lists(ty: TypeRef<'_>, document: &mut Value) {
    shape::forget_empty_lists(document, Slot::root(ty));
}

/// Whether two versions of an object differ in nothing but the times of their managed fields.
pub fn differ_in_times(old: &Value, new: &Value) -> bool {
    let mut same = new.clone();
    match old.at(&["metadata", "managedFields"]) {
        Some(entries) => same.set(&["metadata", "managedFields"], entries),
        None => return false,
    }
    same == *old && Entries::read(old).same_fields(&Entries::read(new))
}

/// Who owns the fields of an object that was never tracked.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
const KUBECTL: &str = "kubectl";
const LAST_APPLIED: [&str; 3] = ["metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration"];

fn refresh_last_applied(applied: &mut Value) {
    let mut plain = applied.clone();
    plain.remove(&LAST_APPLIED);
    if plain.at(&LAST_APPLIED[..2]).is_some_and(Value::is_empty) {
        plain.remove(&LAST_APPLIED[..2]);
    }
    let text = format!("{plain}\n");
    // Upstream's bound on annotations.
    if text.len() < 256 * 1024 {
        applied.set(&LAST_APPLIED, text);
    }
}

/// Fields that kubectl itself set by client-side apply, and that still have the value it set, are its own.
fn conflicts_are_kubectls_own(live: &Value, writer: &Writer<'_>, ty: TypeRef<'_>, conflicts: &[(usize, Map)]) -> bool {
    if writer.manager != KUBECTL {
        return false;
    }
    let Some(last) = live.str_at(&LAST_APPLIED).and_then(|text| crate::parse(text.as_bytes()).ok()) else {
        return false;
    };
    let Ok(mut own) = typed::fields_of(&last, ty) else { return false };
    let since = compare::compare(live, &merge::merge(live, &last, ty), ty);
    fields::subtract(&mut own, &since.taken);
    let annotation: Map =
        typed::fields_of(&crate::json!({"metadata": {"annotations": {LAST_APPLIED[2]: ""}}}), ty).unwrap_or_default();
    fields::union(&mut own, &annotation);
    conflicts.iter().all(|(_, wanted)| {
        let mut rest = wanted.clone();
        fields::subtract(&mut rest, &own);
        rest.is_empty()
    })
}

fn timestamp(now: Timestamp) -> String {
    time::seconds(now)
}

#[cfg(test)]
mod tests {
    //! The rules themselves are held against upstream's answers in `crates/api/tests/server_side_apply.rs`.
    use super::*;
    use crate::{json, test_schema};
    use expect_test::expect;

    fn writer(manager: &str, second: i64) -> Writer<'_> {
        let now = Timestamp::from_second(second).expect("a small number");
        Writer { manager, api_version: "v1", subresource: "", now, other: None }
    }

    #[test]
    fn conflicts_name_manager_and_path() {
        let ty = test_schema::pod();
        let applied = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "1", "b": "1"}},
            "spec": {"containers": [{"name": "web", "image": "1"}]}});
        let live = apply(ty, &Value::Null, &applied, &writer("one", 1), false).expect("first");
        let mut updated = live.clone();
        updated.set(&["spec", "containers"], json!([{"name": "web", "image": "2"}]));
        track_update(ty, &live, &mut updated, &Writer { subresource: "status", ..writer("two", 2) });
        let mut again = applied.clone();
        again.set(&["metadata", "labels"], json!({"a": "2"}));
        let error = apply(ty, &updated, &again, &writer("three", 3), false).expect_err("conflicts");
        expect![[r#"
            Apply failed with 2 conflicts: conflicts with "one":
            - .metadata.labels.a
            conflicts with "two" with subresource "status" using v1:
            - .spec.containers[name="web"].image"#]]
        .assert_eq(&error.to_string());
        expect![[r#"{"apiVersion":"v1","code":409,"details":{"causes":[{"field":".metadata.labels.a","message":"conflict with \"one\"","reason":"FieldManagerConflict"},{"field":".spec.containers[name=\"web\"].image","message":"conflict with \"two\" with subresource \"status\" using v1","reason":"FieldManagerConflict"}]},"kind":"Status","message":"Apply failed with 2 conflicts: conflicts with \"one\":\n- .metadata.labels.a\nconflicts with \"two\" with subresource \"status\" using v1:\n- .spec.containers[name=\"web\"].image","metadata":{},"reason":"Conflict","status":"Failure"}"#]]
        .assert_eq(&error.to_status().to_value().to_string());
    }

    #[test]
    fn updates_that_change_nothing_keep_the_times() {
        let ty = test_schema::pod();
        let mut first = json!({"metadata": {"name": "p"}, "spec": {"replicas": 1}});
        track_update(ty, &Value::Null, &mut first, &writer("one", 1));
        let mut second = first.clone();
        track_update(ty, &first, &mut second, &writer("one", 2));
        assert_eq!(first, second);
        let mut cleared = first.clone();
        cleared.set(&["metadata", "managedFields"], json!([{}]));
        track_update(ty, &first, &mut cleared, &writer("one", 3));
        assert_eq!(cleared, json!({"metadata": {"name": "p"}, "spec": {"replicas": 1}}));
    }

    #[test]
    fn at_most_ten_updaters_are_kept_apart() {
        let ty = test_schema::pod();
        let mut live = json!({"metadata": {"name": "p"}});
        for i in 0..15 {
            let mut next = live.clone();
            next.set(&["metadata", "labels", &format!("l{i}")], "x");
            let old = if i == 0 { &Value::Null } else { &live };
            track_update(ty, old, &mut next, &writer(&format!("m{i}"), i));
            live = next;
        }
        let entries = live.array_at(&["metadata", "managedFields"]);
        let managers: Vec<&str> = entries.iter().filter_map(|e| e.str_at(&["manager"])).collect();
        assert_eq!(managers, ["ancient-changes", "m6", "m7", "m8", "m9", "m10", "m11", "m12", "m13", "m14"]);
    }

    #[test]
    fn untracked_objects_belong_to_whoever_came_before() {
        let ty = test_schema::pod();
        let live = json!({"metadata": {"name": "p"}, "spec": {"replicas": 1}});
        let applied = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"replicas": 2}});
        let error = apply(ty, &live, &applied, &writer("one", 1), false).expect_err("conflict");
        expect![[r#"Apply failed with 1 conflict: conflict with "before-first-apply" using v1: .spec.replicas"#]]
            .assert_eq(&error.to_string());
    }

    #[test]
    fn kubectl_takes_over_what_it_applied_client_side() {
        let ty = test_schema::pod();
        let annotation = |image: &str| {
            json!({LAST_APPLIED[2]: format!(
            "{{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{{\"name\":\"p\"}},\"spec\":{{\"serviceName\":\"{image}\"}}}}\n")})
        };
        let mut live = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "annotations": annotation("a")}, "spec": {"serviceName": "a"}});
        track_update(ty, &Value::Null, &mut live, &writer("kubectl-client-side-apply", 1));
        let applied =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"serviceName": "b"}});
        let got = apply(ty, &live, &applied, &writer("kubectl", 2), false).expect("no conflict with itself");
        assert_eq!(got["metadata"]["annotations"], annotation("b"));
        assert!(apply(ty, &live, &applied, &writer("other", 2), false).is_err());
    }

    #[test]
    fn managers_of_user_agents() {
        for (agent, manager) in [("kubectl/v1.37.0 (linux/amd64)", "kubectl"), ("curl", "curl"), ("", "")] {
            assert_eq!(manager_of_user_agent(agent), manager);
        }
    }
}
