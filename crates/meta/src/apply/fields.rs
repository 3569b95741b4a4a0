//! Sets of fields in the form `fieldsV1` has them: `{"f:spec":{"f:replicas":{}},"f:metadata":{"f:labels":{".":{},"f:a":{}}}}`.
//!
//! A set is kept as that very document: members of an object are the steps of paths (`f:name`, `k:{..}`, `v:..`), an
//! empty object is a field of the set, and `.` marks one that is in the set and has others below it. So reading
//! and writing managedFields costs nothing. Invariant: no operation leaves an empty branch behind.

use compact_str::CompactString;

use crate::{Map, Value};

/// The step that says "this field itself".
pub(super) const HERE: &str = ".";

/// Is the field at which `node` stands itself in the set?
pub(super) fn is_here(node: &Map) -> bool {
    node.is_empty() || node.contains_key(HERE)
}

/// The field of a struct or map.
pub(super) fn field_step(name: &str) -> CompactString {
    let mut step = CompactString::with_capacity(name.len() + 2);
    step.push_str("f:");
    step.push_str(name);
    step
}

fn child<'a>(set: &'a Map, step: &str) -> Option<&'a Map> {
    set.get(step).and_then(Value::as_object)
}

/// Adds all fields of `other` to `set`.
pub(super) fn union(set: &mut Map, other: &Map) {
    for (step, theirs) in other.iter().filter(|(step, _)| *step != HERE) {
        let Some(theirs) = theirs.as_object() else { continue };
        match set.get_mut(step).and_then(Value::as_object_mut) {
            None => {
                set.insert(step, theirs.clone());
            }
            Some(ours) => {
                let here = is_here(ours) || is_here(theirs);
                union(ours, theirs);
                if here && !ours.is_empty() {
                    ours.insert(HERE, Value::object());
                }
            }
        }
    }
}

/// Takes all fields of `other` out of `set`.
pub(super) fn subtract(set: &mut Map, other: &Map) {
    if other.is_empty() || set.is_empty() {
        return;
    }
    set.retain(|step, ours| {
        let (Some(ours), Some(theirs)) = (ours.as_object_mut(), child(other, step)) else { return true };
        if step == HERE {
            return true; // decided by the parent
        }
        let keep_here = is_here(ours) && !is_here(theirs);
        ours.remove(HERE);
        subtract(ours, theirs);
        if keep_here && !ours.is_empty() {
            ours.insert(HERE, Value::object());
        }
        keep_here || !ours.is_empty()
    });
}

/// The fields that are in both sets.
pub(super) fn intersection(a: &Map, b: &Map) -> Map {
    let mut both: Vec<(CompactString, Value)> = Vec::new();
    for (step, ours) in a.iter().filter(|(step, _)| *step != HERE) {
        let (Some(ours), Some(theirs)) = (ours.as_object(), child(b, step)) else { continue };
        let mut below = intersection(ours, theirs);
        let here = is_here(ours) && is_here(theirs);
        if below.is_empty() && !here {
            continue;
        }
        if here && !below.is_empty() {
            below.insert(HERE, Value::object());
        }
        both.push((step.into(), Value::Object(below)));
    }
    both.into_iter().collect()
}

/// The paths of a set's fields as upstream prints them: `.spec.containers[name="web"].image`.
pub(super) fn paths(set: &Map) -> Vec<String> {
    let mut found = Vec::new();
    collect_paths(set, "", &mut found);
    found
}

fn collect_paths(set: &Map, prefix: &str, found: &mut Vec<String>) {
    let nodes =
        || set.iter().filter(|(step, _)| *step != HERE).filter_map(|(step, node)| Some((step, node.as_object()?)));
    let path = |step: &str| format!("{prefix}{}", step_text(step));
    // Compat: what stands here goes before all that stands deeper.
    found.extend(nodes().filter(|(_, node)| is_here(node)).map(|(step, _)| path(step)));
    for (step, node) in nodes().filter(|(_, node)| !node.is_empty()) {
        collect_paths(node, &path(step), found);
    }
}

/// One step of a path, as upstream prints it.
pub(super) fn step_text(step: &str) -> String {
    match step.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("k", keys)) => match crate::parse(keys.as_bytes()) {
            Ok(Value::Object(keys)) => {
                let pairs: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
                format!("[{}]", pairs.join(","))
            }
            _ => format!("[{keys}]"),
        },
        Some(("v", value)) => format!("[={value}]"),
        Some((_, index)) => format!("[{index}]"),
        None => step.to_string(),
    }
}

/// Takes out what no writer owns: the identity of an object and what the server keeps there itself.
pub(super) fn strip_identity(set: &mut Map) {
    set.retain(|step, _| !matches!(step, "f:apiVersion" | "f:kind"));
    if let Some(metadata) = set.get_mut("f:metadata").and_then(Value::as_object_mut) {
        metadata.retain(|step, _| {
            !matches!(
                step,
                HERE | "f:name"
                    | "f:namespace"
                    | "f:creationTimestamp"
                    | "f:selfLink"
                    | "f:uid"
                    | "f:generation"
                    | "f:managedFields"
                    | "f:resourceVersion"
            )
        });
        if metadata.is_empty() {
            set.remove("f:metadata");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> Map {
        match crate::parse(text.as_bytes()) {
            Ok(Value::Object(map)) => map,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn algebra() {
        golden::check!("../tests/field_sets.txt", |case| {
            let (a, b) = case.split_once(' ').expect("two sets");
            let (mut both, mut rest) = (set(a), set(a));
            union(&mut both, &set(b));
            subtract(&mut rest, &set(b));
            let shared = intersection(&set(a), &set(b));
            [both, rest, shared].map(|set| Value::Object(set).to_string()).join("\n")
        });
    }

    #[test]
    fn paths_as_upstream() {
        let fields =
            set(r#"{"f:spec":{"f:containers":{"k:{\"name\":\"web\"}":{".":{},"f:image":{}}},"f:x":{"v:\"a\"":{}}}}"#);
        assert_eq!(
            paths(&fields),
            [r#".spec.containers[name="web"]"#, r#".spec.containers[name="web"].image"#, r#".spec.x[="a"]"#]
        );
    }
}
