//! The part of metadata that the system keeps: names made up, uid, times, what an update may not change.
//!
//! Works on documents. Invariant: uid and creationTimestamp are set once and never change.

use std::collections::HashSet;

use meta::{Status, Value, names, time};

use crate::call::Call;
use crate::registry::Served;

/// Upstream's bound of a generated name's base: 63 less the random end.
const BASE_MAX_BYTES: usize = 63 - SUFFIX;
const SUFFIX: usize = 5;

/// Members of metadata that only the system sets.
const KEPT: [&str; 6] =
    ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink"];

pub fn name(document: &Value) -> &str {
    document.str_at(&["metadata", "name"]).unwrap_or_default()
}

pub fn namespace(document: &Value) -> &str {
    document.str_at(&["metadata", "namespace"]).unwrap_or_default()
}

/// Puts the request's namespace into the object, or refuses another one.
pub fn settle_namespace(call: &Call, served: &Served, document: &mut Value) -> Result<(), Status> {
    let asked = call.path.namespace.as_str();
    let found = namespace(document);
    if !served.namespaced {
        if !found.is_empty() {
            // The kind's validation words the refusal.
            return Ok(());
        }
        document.remove(&["metadata", "namespace"]);
        return Ok(());
    }
    if found.is_empty() {
        document.set(&["metadata", "namespace"], asked);
    } else if found != asked {
        let message = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Status::bad_request(message));
    }
    Ok(())
}

/// Refuses an object whose name or namespace is not the one in the path.
pub fn check_names(call: &Call, served: &Served, document: &mut Value) -> Result<(), Status> {
    settle_namespace(call, served, document)?;
    check_name(call, name(document))
}

/// Refuses an object of another name than the one in the path.
pub fn check_name(call: &Call, found: &str) -> Result<(), Status> {
    let asked = call.path.name.as_str();
    match found {
        "" => Err(nameless(call)),
        found if found != asked => Err(Status::bad_request(format!(
            "the name of the object ({found}) does not match the name on the URL ({asked})"
        ))),
        _ => Ok(()),
    }
}

/// Keeps one of the owner references that are equal, and warns of them. `when` follows the warning's first words.
pub fn merge_owners(call: &Call, document: &mut Value, when: &str) {
    let Some(Value::Array(owners)) = document.at_mut(&["metadata", "ownerReferences"]) else { return };
    if owners.len() < 2 {
        return;
    }
    let (mut known, mut again) = (HashSet::with_capacity(owners.len()), Vec::new());
    owners.retain(|owner| {
        let is_new = known.insert(owner.to_string());
        if !is_new {
            again.push(owner.str_at(&["uid"]).unwrap_or_default().to_string());
        }
        is_new
    });
    if !again.is_empty() {
        again.sort();
        call.warn(format!(
            ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, \
             and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            again.join(", ")
        ));
    }
}

pub fn nameless(call: &Call) -> Status {
    Status::bad_request(format!(
        "the name of the object ({} based on URL) was undeterminable: name must be provided",
        call.path.name
    ))
}

/// Makes up a name from `generateName`; `false` when there is none to make.
pub fn generate_name(document: &mut Value) -> bool {
    if !name(document).is_empty() {
        return false;
    }
    let base = document.str_at(&["metadata", "generateName"]).unwrap_or_default();
    if base.is_empty() {
        return false;
    }
    let mut cut = base.len().min(BASE_MAX_BYTES);
    while !base.is_char_boundary(cut) {
        cut -= 1;
    }
    let made = format!("{}{}", &base[..cut], names::random_suffix(SUFFIX));
    document.set(&["metadata", "name"], made);
    true
}

/// What a new object gets, whatever the client said.
pub fn fill_new(document: &mut Value) {
    let metadata = document.slot(&["metadata"]).make_object();
    for member in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"] {
        metadata.remove(member);
    }
    metadata.insert("uid", uuid::Uuid::new_v4().to_string());
    metadata.insert("creationTimestamp", time::seconds(time::now()));
}

/// Sets what an update may not change to what it was; an empty uid is filled in, another one is left for the caller.
pub fn keep(new: &mut Value, old: &Value) {
    let metadata = new.slot(&["metadata"]).make_object();
    for member in KEPT {
        // What is refused when it is another one.
        let own = ["uid", "deletionTimestamp", "deletionGracePeriodSeconds"].contains(&member);
        if own && metadata.get(member).is_some_and(|given| !given.is_empty()) {
            continue;
        }
        match old.at(&["metadata", member]) {
            Some(value) => {
                metadata.insert(member, value.clone());
            }
            None => {
                metadata.remove(member);
            }
        }
    }
}

/// The resourceVersion that the document names; `None` for one that it does not.
pub fn version(document: &Value) -> Option<&str> {
    document.str_at(&["metadata", "resourceVersion"]).filter(|v| !v.is_empty() && *v != "0")
}

/// The stored bytes of a document: everything but its resourceVersion.
pub fn stored_bytes(document: &mut Value) -> bytes::Bytes {
    document.remove(&["metadata", "resourceVersion"]);
    document.to_vec().into()
}

pub fn finalizers(document: &Value) -> &[Value] {
    document.array_at(&["metadata", "finalizers"])
}

pub fn is_deleting(document: &Value) -> bool {
    document.str_at(&["metadata", "deletionTimestamp"]).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::json;

    #[test]
    fn names_are_made_up_within_63_bytes() {
        let mut document = json!({"metadata": {"generateName": "a".repeat(80)}});
        assert!(generate_name(&mut document));
        assert_eq!(name(&document).len(), 63);
        assert!(!generate_name(&mut document));
        assert!(!generate_name(&mut json!({"metadata": {}})));
    }

    #[test]
    fn the_system_keeps_its_own() {
        let old = json!({"metadata": {"uid": "u", "creationTimestamp": "t", "generation": 2, "labels": {"a": "b"}}});
        let mut new = json!({"metadata": {"creationTimestamp": "x", "deletionTimestamp": "d", "name": "n"}});
        keep(&mut new, &old);
        // A mark of deletion stays, for validation to refuse it.
        let kept =
            json!({"uid": "u", "creationTimestamp": "t", "generation": 2, "name": "n", "deletionTimestamp": "d"});
        assert_eq!(new, json!({"metadata": kept}));
    }
}
