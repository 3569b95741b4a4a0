//! Who owns a workload's replicas, as its Scale tells it, and back.
//!
//! Source: the managed fields of kube-apiserver's scale subresource. Pure. Invariant: whatever else managers own of the
//! workload stays as it was.

use super::entries::Entries;
use super::fields::{self, field_step};
use crate::{Map, Value};

/// The version of every Scale.
pub const API_VERSION: &str = "autoscaling/v1";
const REPLICAS: [&str; 2] = ["spec", "replicas"];

fn set_of(path: &[&str]) -> Map {
    let leaf = Value::object();
    let set = path.iter().rev().fold(leaf, |below, name| Value::Object(Map::from_iter([(field_step(name), below)])));
    set.as_object().cloned().unwrap_or_default()
}

/// Gives `scale` those managers of `workload` that own its replicas, which stand at `path` there.
pub fn tell_owners(scale: &mut Value, workload: &Value, path: &[&str]) {
    let mut entries = Entries::read(workload);
    let replicas = set_of(path);
    for at in 0..entries.len() {
        let owned = fields::intersection(entries.fields_mut(at), &replicas);
        *entries.fields_mut(at) = if owned.is_empty() { Map::new() } else { set_of(&REPLICAS) };
        entries.set_version(at, API_VERSION);
    }
    entries.drop_empty();
    entries.write(scale);
}

/// Makes the managers of `scale` those of `workload`'s replicas; `api_version` is the workload's.
pub fn take_owners(workload: &mut Value, path: &[&str], api_version: &str, scale: &Value) {
    let (mut entries, replicas) = (Entries::read(workload), set_of(path));
    for at in 0..entries.len() {
        fields::subtract(entries.fields_mut(at), &replicas);
    }
    let mut owners = Entries::read(scale);
    for at in 0..owners.len() {
        let owned = fields::intersection(owners.fields_mut(at), &set_of(&REPLICAS));
        *owners.fields_mut(at) = if owned.is_empty() { Map::new() } else { replicas.clone() };
        owners.set_version(at, api_version);
    }
    owners.drop_empty();
    entries.absorb(owners);
    entries.drop_empty();
    entries.cap_updates();
    entries.write(workload);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    const MANAGED_FIELDS: [&str; 2] = ["metadata", "managedFields"];

    #[test]
    fn only_replicas_change_hands() {
        let entry = |manager: &str, operation: &str, fields: Value| {
            json!({"manager": manager, "operation": operation, "apiVersion": "apps/v1", "fieldsType": "FieldsV1",
                "fieldsV1": fields, "time": "2020-01-01T00:00:00Z"})
        };
        let both = json!({"f:spec": {"f:paused": {}, "f:replicas": {}}});
        let mut workload = json!({"metadata": {"managedFields": [
            entry("a", "Apply", json!({"f:spec": {"f:paused": {}}})), entry("b", "Update", both)]}});
        let mut scale = json!({"metadata": {}});
        tell_owners(&mut scale, &workload, &REPLICAS);
        let mut told = entry("b", "Update", json!({"f:spec": {"f:replicas": {}}}));
        told.set(&["apiVersion"], API_VERSION);
        assert_eq!(scale.array_at(&MANAGED_FIELDS), [told.clone()]);
        told.set(&["manager"], "a");
        told.set(&["operation"], "Apply");
        scale.set(&MANAGED_FIELDS, vec![told]);
        take_owners(&mut workload, &REPLICAS, "apps/v1", &scale);
        let (a, b) = (json!({"f:spec": {"f:paused": {}, "f:replicas": {}}}), json!({"f:spec": {"f:paused": {}}}));
        assert_eq!(workload.array_at(&MANAGED_FIELDS), [entry("a", "Apply", a), entry("b", "Update", b)]);
    }
}
