//! What an update may change in a pod: little.

use meta::Value;
use meta::field::{Error, Errors, Path};

const MAY_NOT: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
                       `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions \
                       to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
                       previously negative)";

pub(super) fn validate(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    for list in ["containers", "initContainers"] {
        if new.array_at(&["spec", list]).len() != old.array_at(&["spec", list]).len() {
            errors.push(Error::forbidden(&path.child(list), "pod updates may not add or remove containers"));
            return errors;
        }
    }
    validate_deadline(new, old, &mut errors);
    validate_added_tolerations(new, old, &mut errors);
    let before = old.array_at(&["spec", "schedulingGates"]);
    for (i, gate) in new.array_at(&["spec", "schedulingGates"]).iter().enumerate() {
        if !before.contains(gate) {
            let name = gate.str_at(&["name"]).unwrap_or_default();
            let detail = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            errors.push(Error::forbidden(&path.child("schedulingGates").index(i), detail));
        }
    }
    let allowed = with_allowed_changes(&new["spec"], &old["spec"]);
    if allowed != old["spec"] {
        let changed = changed_fields(&allowed, &old["spec"]);
        errors.push(Error::forbidden(&path, format!("{MAY_NOT}\n{}", changed.join("\n"))));
    }
    errors
}

fn validate_deadline(new: &Value, old: &Value, errors: &mut Errors) {
    let path = ["spec", "activeDeadlineSeconds"];
    let at = Path::new("spec.activeDeadlineSeconds");
    match (old.int_at(&path), new.int_at(&path)) {
        (Some(was), Some(is)) if is > was => {
            errors.push(Error::invalid(&at, is, "must be less than or equal to previous value"));
        }
        (Some(_), None) => {
            errors.push(Error::invalid(&at, Value::Null, "must not update from a positive integer to nil value"));
        }
        _ => {}
    }
}

/// Existing tolerations stay, but for their `tolerationSeconds`.
fn validate_added_tolerations(new: &Value, old: &Value, errors: &mut Errors) {
    let bare = |t: &Value| {
        let mut t = t.clone();
        t.remove(&["tolerationSeconds"]);
        t
    };
    let now: Vec<Value> = new.array_at(&["spec", "tolerations"]).iter().map(bare).collect();
    if !old.array_at(&["spec", "tolerations"]).iter().all(|t| now.contains(&bare(t))) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(Error::forbidden(&Path::new("spec.tolerations"), detail));
    }
}

/// The new spec with everything that may change set back to what it was.
fn with_allowed_changes(new: &Value, old: &Value) -> Value {
    let mut spec = new.clone();
    for list in ["containers", "initContainers"] {
        let before = old.array_at(&[list]);
        if let Some(Value::Array(containers)) = spec.get_mut(list) {
            for (container, before) in containers.iter_mut().zip(before) {
                reset(container, before, "image");
            }
        }
    }
    for member in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        reset(&mut spec, old, member);
    }
    let grace = "terminationGracePeriodSeconds";
    if old.int_at(&[grace]).is_some_and(|n| n < 0) && new.int_at(&[grace]) == Some(1) {
        reset(&mut spec, old, grace);
    }
    // A pod that no scheduler has seen yet may still be told where to go.
    if !old.array_at(&["schedulingGates"]).is_empty() {
        let selected = old["nodeSelector"].as_object();
        let kept = selected.is_none_or(|old| old.iter().all(|(k, v)| new["nodeSelector"].get(k) == Some(v)));
        if kept {
            reset(&mut spec, old, "nodeSelector");
        }
        if old.at(&["affinity", "nodeAffinity"]).is_none() {
            reset(&mut spec, old, "affinity");
        }
    }
    spec
}

fn reset(new: &mut Value, old: &Value, member: &str) {
    match old.get(member) {
        Some(value) => new.set(&[member], value),
        None => {
            new.remove(&[member]);
        }
    }
}

/// The members that differ, old against new.
fn changed_fields(new: &Value, old: &Value) -> Vec<String> {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return Vec::new() };
    let mut keys: Vec<&str> = new.keys().chain(old.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let shown = |v: Option<&Value>| v.map_or("<none>".to_string(), |v| v.to_string().chars().take(200).collect());
    keys.into_iter()
        .filter(|k| new.get(k) != old.get(k))
        .flat_map(|k| [format!("-  {k}: {}", shown(old.get(k))), format!("+  {k}: {}", shown(new.get(k)))])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::json;

    #[test]
    fn allowed_and_forbidden_changes() {
        let spec = |change: &Value| {
            let mut pod = json!({"spec": {"containers": [{"name": "a", "image": "1"}],
                "tolerations": [{"key": "k", "operator": "Exists"}]}});
            (super::super::KIND.defaults)(&mut pod);
            meta::patch::merge_patch(pod.slot(&["spec"]), change).expect("a patch");
            (super::super::KIND.defaults)(&mut pod);
            pod
        };
        let old = spec(&Value::object());
        golden::check!("updates.txt", |change| {
            let new = spec(&meta::parse(change.as_bytes()).expect("JSON"));
            validate(&new, &old).iter().map(|e| e.to_string().chars().take(64).collect::<String>() + "\n").collect()
        });
    }
}
