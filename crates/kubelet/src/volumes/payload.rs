//! What the files of a configMap, secret, downwardAPI or projected volume hold. Pure.
//!
//! Paths are relative to the volume; error texts are upstream's.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret};

use crate::env::{fields, resources};
use crate::pods::Allocatable;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub data: Vec<u8>,
    pub mode: u32,
    /// The owner; None leaves root.
    pub user: Option<u32>,
}

/// Files by path.
pub type Payload = BTreeMap<String, File>;

/// What a source says about all of its files.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    pub mode: u32,
    pub user: Option<u32>,
}

impl Defaults {
    pub fn new(mode: Option<i32>, user: Option<i64>) -> Self {
        Self { mode: mode.unwrap_or(0o644) as u32, user: user.and_then(|user| u32::try_from(user).ok()) }
    }
}

/// Files of a ConfigMap; None is one that does not exist and need not.
pub fn config_map(
    map: Option<&ConfigMap>,
    items: Option<&[KeyToPath]>,
    defaults: Defaults,
    optional: bool,
) -> Result<Payload, String> {
    let Some(map) = map else { return Ok(Payload::new()) };
    let text = map.data.iter().flatten().map(|(key, value)| (key.as_str(), value.as_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice()));
    keyed(text.chain(binary).collect(), items, defaults, optional, "configmap references non-existent config key")
}

/// Files of a Secret; None is one that does not exist and need not.
pub fn secret(
    secret: Option<&Secret>,
    items: Option<&[KeyToPath]>,
    defaults: Defaults,
    optional: bool,
) -> Result<Payload, String> {
    let Some(secret) = secret else { return Ok(Payload::new()) };
    let data = secret.data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice()));
    keyed(data.collect(), items, defaults, optional, "references non-existent secret key")
}

fn keyed(
    data: BTreeMap<&str, &[u8]>,
    items: Option<&[KeyToPath]>,
    defaults: Defaults,
    optional: bool,
    missing: &str,
) -> Result<Payload, String> {
    let items = items.unwrap_or_default();
    if items.is_empty() {
        let file = |data: &[u8]| File { data: data.to_vec(), mode: defaults.mode, user: defaults.user };
        return Ok(data.into_iter().map(|(key, data)| (key.to_owned(), file(data))).collect());
    }
    let mut payload = Payload::new();
    for item in items {
        match data.get(item.key.as_str()) {
            Some(data) => {
                let own = Defaults::new(item.mode.or(Some(defaults.mode as i32)), item.user);
                payload.insert(
                    item.path.clone(),
                    File { data: data.to_vec(), mode: own.mode, user: own.user.or(defaults.user) },
                );
            }
            None if optional => {}
            None => return Err(format!("{missing}: {}", item.key)),
        }
    }
    Ok(payload)
}

/// Files of a downwardAPI source. All errors are collected, as upstream does.
pub fn downward(
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    defaults: Defaults,
    allocatable: &Allocatable,
) -> Result<Payload, String> {
    let mut payload = Payload::new();
    let mut errors = Vec::new();
    for item in items {
        let text = if let Some(field) = &item.field_ref {
            fields::metadata(pod, &field.field_path).map_err(|error| error.to_string())
        } else if let Some(resource) = &item.resource_field_ref {
            let name = resource.container_name.as_deref().unwrap_or_default();
            match resources::find_container(pod, name) {
                Some(container) => {
                    resources::value(container, resource, allocatable).map_err(|error| error.to_string())
                }
                None => Err(format!("container {name} not found")),
            }
        } else {
            Ok(String::new())
        };
        match text {
            Ok(text) => {
                let own = Defaults::new(item.mode.or(Some(defaults.mode as i32)), item.user);
                let file = File { data: text.into_bytes(), mode: own.mode, user: own.user.or(defaults.user) };
                payload.insert(item.path.clone(), file);
            }
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(payload) } else { Err(aggregate(errors)) }
}

/// Several errors as one: a list in brackets when there are more than one.
pub fn aggregate(mut errors: Vec<String>) -> String {
    let mut seen = std::collections::BTreeSet::new();
    errors.retain(|error| seen.insert(error.clone()));
    match errors.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

/// The user that every container of the pod runs as, if they all name the same one.
pub fn common_user(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let of_pod = spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let mut common = None;
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        let own = container.security_context.as_ref().and_then(|context| context.run_as_user).or(of_pod)?;
        if common.is_some_and(|common| common != own) {
            return None;
        }
        common = Some(own);
    }
    u32::try_from(common?).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    const PLAIN: Defaults = Defaults { mode: 0o644, user: None };

    fn file(data: &str, mode: u32, user: Option<u32>) -> File {
        File { data: data.as_bytes().to_vec(), mode, user }
    }

    fn items(value: serde_json::Value) -> Vec<KeyToPath> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn config_maps_and_secrets() {
        let map: ConfigMap =
            serde_json::from_value(json!({"metadata": {}, "data": {"a": "1"}, "binaryData": {"b": "Ag=="}})).unwrap();
        let all = config_map(Some(&map), None, PLAIN, false).unwrap();
        assert_eq!(
            all,
            Payload::from([("a".into(), file("1", 0o644, None)), ("b".into(), file("\u{2}", 0o644, None))])
        );
        let chosen = items(json!([{"key": "a", "path": "d/x", "mode": 0o400}, {"key": "b", "path": "y", "user": 7}]));
        let some = config_map(Some(&map), Some(&chosen), PLAIN, false).unwrap();
        assert_eq!(
            some,
            Payload::from([("d/x".into(), file("1", 0o400, None)), ("y".into(), file("\u{2}", 0o644, Some(7)))])
        );
        let absent = items(json!([{"key": "z", "path": "z"}]));
        assert_eq!(config_map(Some(&map), Some(&absent), PLAIN, true), Ok(Payload::new()));
        let found = config_map(Some(&map), Some(&absent), PLAIN, false);
        assert_eq!(found, Err("configmap references non-existent config key: z".into()));
        assert_eq!(config_map(None, Some(&absent), PLAIN, true), Ok(Payload::new()));
        let sealed: Secret = serde_json::from_value(json!({"metadata": {}, "data": {"k": "cw=="}})).unwrap();
        let found = secret(Some(&sealed), None, PLAIN, false);
        assert_eq!(found, Ok(Payload::from([("k".into(), file("s", 0o644, None))])));
        let found = secret(Some(&sealed), Some(&absent), PLAIN, false);
        assert_eq!(found, Err("references non-existent secret key: z".into()));
    }

    #[test]
    fn downward_api_collects_errors() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"memory": "2Mi"}}}]},
        }))
        .unwrap();
        let allocatable: Allocatable = Arc::default();
        let good: Vec<DownwardAPIVolumeFile> = serde_json::from_value(json!([
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
            {"path": "memory", "mode": 256, "resourceFieldRef": {"containerName": "c", "resource": "limits.memory", "divisor": "1Mi"}},
        ]))
        .unwrap();
        let payload = downward(&pod, &good, PLAIN, &allocatable).unwrap();
        assert_eq!(
            payload,
            Payload::from([("labels".into(), file("a=\"b\"", 0o644, None)), ("memory".into(), file("2", 0o400, None))])
        );
        let bad: Vec<DownwardAPIVolumeFile> = serde_json::from_value(json!([
            {"path": "x", "fieldRef": {"fieldPath": "status.podIP"}},
            {"path": "y", "resourceFieldRef": {"containerName": "no", "resource": "limits.memory"}},
        ]))
        .unwrap();
        let error = downward(&pod, &bad, PLAIN, &allocatable).unwrap_err();
        assert_eq!(error, "[unsupported fieldPath: status.podIP, container no not found]");
    }

    #[test]
    fn the_common_user() {
        golden::check!("users.txt", |spec| {
            let spec: serde_json::Value = serde_json::from_str(spec).unwrap();
            let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
            format!("{:?}", common_user(&pod))
        });
    }
}
