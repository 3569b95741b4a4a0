//! Which ReplicaSet is a Deployment's new one, how sets are named and numbered, and the annotations they carry.
//! Reads and writes nothing. Invariant: pure; a template decides by its content, never by its hash.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use serde_json::Value;

use crate::owner;

pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";
pub const HASH_LABEL: &str = "pod-template-hash";
/// Annotations of a Deployment that its sets do not inherit.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration", REVISION, REVISION_HISTORY, DESIRED, MAX,
    "deprecated.deployment.rollback.to",
];
/// Characters the revision history of a set may have.
const HISTORY_MAX: usize = 2000;
/// What `rand.SafeEncodeString` of upstream writes: no vowels, so no words.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The set whose template equals the Deployment's: the oldest, if there are several.
pub fn find_new(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Option<Arc<ReplicaSet>> {
    let template = &deployment.spec.template;
    let mut equal: Vec<&Arc<ReplicaSet>> =
        sets.iter().filter(|set| set.spec.template.as_ref().is_some_and(|t| same_template(t, template))).collect();
    equal.sort_by_key(|set| age_order(set));
    equal.first().map(|set| Arc::clone(set))
}

/// Sorts by creation, then name.
pub fn age_order(set: &ReplicaSet) -> (Option<k8s_openapi::jiff::Timestamp>, String) {
    (set.metadata.creation_timestamp.as_ref().map(|time| time.0), set.name_any())
}

/// Equal but for the hash label.
pub fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    let bare = |template: &PodTemplateSpec| {
        let mut template = template.clone();
        if let Some(labels) = template.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
            labels.remove(HASH_LABEL);
        }
        template
    };
    let (a, b) = (bare(a), bare(b));
    a == b || normal(&a) == normal(&b)
}

/// Without empty lists and the maps that may as well be absent, which mean the same as none at all.
fn normal(template: &PodTemplateSpec) -> Value {
    let mut value = serde_json::to_value(template).unwrap_or_default();
    prune(&mut value);
    value
}

fn prune(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(prune);
            map.retain(|key, value| match value {
                Value::Null => false,
                Value::Array(list) => !list.is_empty(),
                Value::Object(inner) => {
                    let optional = ["metadata", "labels", "annotations", "nodeSelector", "limits", "requests"];
                    !(inner.is_empty() && optional.contains(&key.as_str()))
                }
                _ => true,
            });
        }
        Value::Array(list) => list.iter_mut().for_each(prune),
        _ => {}
    }
}

/// FNV-1a over the canonical template and the count of collisions so far, in letters that make no words.
pub fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let mut hash: u32 = 0x811c_9dc5;
    let mut eat = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    };
    eat(normal(template).to_string().as_bytes());
    if let Some(collisions) = collisions {
        eat(&collisions.to_le_bytes());
    }
    hash.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

pub fn revision_of(annotations: Option<&BTreeMap<String, String>>) -> i64 {
    annotations.and_then(|map| map.get(REVISION)).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn revision(set: &ReplicaSet) -> i64 {
    revision_of(set.metadata.annotations.as_ref())
}

/// One more than the highest of the old sets.
pub fn next_revision(old: &[Arc<ReplicaSet>]) -> i64 {
    old.iter().map(|set| revision(set)).max().unwrap_or(0).max(0) + 1
}

/// The annotations the new set must have, if they differ from what it has.
pub fn annotations_for(
    deployment: &Deployment,
    current: Option<&BTreeMap<String, String>>,
    revision: i64,
) -> Option<BTreeMap<String, String>> {
    let old = current.cloned().unwrap_or_default();
    let mut wanted = old.clone();
    for (key, value) in deployment.annotations() {
        if !NOT_COPIED.contains(&key.as_str()) {
            wanted.insert(key.clone(), value.clone());
        }
    }
    let known = revision_of(Some(&old));
    if known < revision {
        wanted.insert(REVISION.to_string(), revision.to_string());
        if known > 0 {
            wanted.insert(REVISION_HISTORY.to_string(), longer_history(old.get(REVISION_HISTORY), known));
        }
    }
    (wanted != old).then_some(wanted)
}

fn longer_history(history: Option<&String>, revision: i64) -> String {
    let mut parts: Vec<String> = history.iter().flat_map(|text| text.split(',')).map(String::from).collect();
    parts.retain(|part| !part.is_empty());
    parts.push(revision.to_string());
    while parts.join(",").len() > HISTORY_MAX && parts.len() > 1 {
        parts.remove(0);
    }
    parts.join(",")
}

/// The set a Deployment needs and does not have yet.
pub fn new_set(deployment: &Deployment, revision: i64, replicas: i32, max: i32) -> ReplicaSet {
    let spec = deployment.spec.clone();
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let hash = template_hash(&spec.template, collisions);
    let mut template = spec.template;
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH_LABEL.to_string(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_string(), hash.clone());
    let mut annotations = annotations_for(deployment, None, revision).unwrap_or_default();
    annotations.insert(DESIRED.to_string(), spec.replicas.unwrap_or(1).to_string());
    annotations.insert(MAX.to_string(), max.to_string());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.name_any())),
            namespace: deployment.namespace(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![owner::reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        },
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template(value: Value) -> PodTemplateSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn templates_compare_by_meaning() {
        let plain = template(json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c"}]}}));
        let hashed = template(json!({"metadata": {"labels": {"a": "b", HASH_LABEL: "x"}, "annotations": {}},
            "spec": {"volumes": [], "containers": [{"name": "c"}]}}));
        let other = template(json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "d"}]}}));
        assert!(same_template(&plain, &hashed));
        assert!(!same_template(&plain, &other));
    }

    #[test]
    fn hashes_are_stable_and_differ_by_collision() {
        let plain = template(json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c"}]}}));
        let hashes = [template_hash(&plain, None), template_hash(&plain, Some(1))];
        expect_test::expect!["84dc89cb9 f9f777c76"].assert_eq(&hashes.join(" "));
    }

    #[test]
    fn history_grows_and_forgets() {
        assert_eq!(longer_history(None, 3), "3");
        assert_eq!(longer_history(Some(&"1,2".to_string()), 3), "1,2,3");
        let long = vec!["100"; 600].join(",");
        assert!(longer_history(Some(&long), 7).len() <= HISTORY_MAX);
        assert!(longer_history(Some(&long), 7).ends_with(",7"));
    }
}
