//! ServiceAccount: every pod runs as an account, and gets its token, the cluster's CA and its namespace as a volume.
//!
//! Reads: service accounts. Changes: new pods. Invariant: a pod that names no account runs as `default`; a container that
//! mounts something at the token's path itself keeps that.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use meta::{Status, Value, json, names};

use super::{Operation, Review};
use crate::object::Object;

const DEFAULT: &str = "default";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// Compat: an hour and seven seconds, so that the kubelet can tell this token from others (upstream's constant).
const TOKEN_SECONDS: i64 = 3607;
/// Members of an account that a pod is made by.
const SAID: [&str; 2] = ["\"imagePullSecrets\"", "\"automountServiceAccountToken\""];
const MIRROR: &str = "kubernetes.io/config.mirror";
/// The account of a new namespace may be on its way: upstream looks ten times, 100 ms apart.
const LOOK_FOR: Duration = Duration::from_secs(1);

pub fn mutate<'a>(
    review: &'a mut Review<'_>,
    pod: &'a mut Value,
    _: Option<&'a Value>,
) -> BoxFuture<'a, Result<(), Status>> {
    async move {
        if review.operation != Operation::Create || !review.subresource.is_empty() || !review.is("", "pods") {
            return Ok(());
        }
        if !pod["metadata"]["annotations"][MIRROR].is_null() {
            return check_mirror(review, pod);
        }
        let name = match pod.str_at(&["spec", "serviceAccountName"]).unwrap_or_default() {
            "" => DEFAULT.to_string(),
            name => name.to_string(),
        };
        pod.set(&["spec", "serviceAccountName"], &name);
        pod.set(&["spec", "serviceAccount"], &name);
        let account = look_up(review, &name).await?.ok_or_else(|| {
            let namespace = &review.namespace;
            review.forbidden(format!(
                "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
            ))
        })?;
        // Every new pod comes by here: most accounts say nothing that it needs.
        let says = SAID.iter().any(|member| account.holds(member));
        apply(pod, &if says { account.document_without_owners() } else { Value::Null });
        Ok(())
    }
    .boxed()
}

/// A mirror of a static pod reaches nothing of the API.
fn check_mirror(review: &Review<'_>, pod: &Value) -> Result<(), Status> {
    if !pod.str_at(&["spec", "serviceAccountName"]).unwrap_or_default().is_empty() {
        return Err(review.forbidden("a mirror pod may not reference service accounts"));
    }
    let volumes = pod.array_at(&["spec", "volumes"]);
    let token = |v: &Value| v.array_at(&["projected", "sources"]).iter().any(|s| !s["serviceAccountToken"].is_null());
    if volumes.iter().any(|v| !v["secret"].is_null()) {
        return Err(review.forbidden("a mirror pod may not reference secrets"));
    }
    if volumes.iter().any(token) {
        return Err(review.forbidden("a mirror pod may not use ServiceAccountToken volume projections"));
    }
    Ok(())
}

async fn look_up(review: &Review<'_>, name: &str) -> Result<Option<Arc<Object>>, Status> {
    let shared = review.shared;
    if let Some(found) = shared.peek("", "serviceaccounts", &review.namespace, name) {
        return Ok(Some(found));
    }
    let Some(served) = shared.registry.stored("", "serviceaccounts") else { return Ok(None) };
    let key = served.key(&review.namespace, name);
    let mut changes = served.cache.changes();
    let wait = async {
        loop {
            if let Some(found) = served.cache.get(&key) {
                return Some(found);
            }
            if changes.changed().await.is_err() {
                return None;
            }
        }
    };
    Ok(tokio::time::timeout(LOOK_FOR, wait).await.ok().flatten())
}

fn apply(pod: &mut Value, account: &Value) {
    if pod.array_at(&["spec", "imagePullSecrets"]).is_empty() {
        let secrets = account.array_at(&["imagePullSecrets"]);
        if !secrets.is_empty() {
            pod.set(&["spec", "imagePullSecrets"], secrets.to_vec());
        }
    }
    let automount = pod
        .bool_at(&["spec", "automountServiceAccountToken"])
        .or_else(|| account.bool_at(&["automountServiceAccountToken"]))
        .unwrap_or(true);
    if automount {
        mount(pod);
    }
}

fn mount(pod: &mut Value) {
    let existing = pod
        .array_at(&["spec", "volumes"])
        .iter()
        .filter_map(|v| v.str_at(&["name"]))
        .find(|name| name.starts_with(VOLUME_PREFIX))
        .map(str::to_string);
    let volume = existing.clone().unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", names::random_suffix(5)));
    let mut used = false;
    for list in ["initContainers", "containers"] {
        let containers = pod.at_mut(&["spec", list]).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let own = |m: &Value| m.str_at(&["mountPath"]) == Some(MOUNT_PATH);
            if container.array_at(&["volumeMounts"]).iter().any(own) {
                continue;
            }
            let mount = json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH});
            container.slot(&["volumeMounts"]).make_array().push(mount);
            used = true;
        }
    }
    if used && existing.is_none() {
        pod.slot(&["spec", "volumes"]).make_array().push(token_volume(&volume));
    }
}

fn token_volume(name: &str) -> Value {
    static SOURCES: LazyLock<Value> = LazyLock::new(|| {
        json!([
            {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ])
    });
    let mut volume = Value::object();
    volume.set(&["name"], name);
    volume.set(&["projected", "defaultMode"], 420);
    volume.set(&["projected", "sources"], &*SOURCES);
    volume
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_get_the_token_once() {
        let own = json!({"name": "own", "volumeMounts": [{"name": "x", "mountPath": MOUNT_PATH}]});
        let mut pod = json!({"spec": {"containers": [{"name": "a"}]}});
        pod.slot(&["spec", "containers"]).make_array().push(own);
        apply(&mut pod, &json!({"imagePullSecrets": [{"name": "s"}]}));
        let once = pod.clone();
        apply(&mut pod, &json!({}));
        assert_eq!(pod, once);
        let volume = pod["spec"]["volumes"][0]["name"].clone();
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][0]["name"], volume);
        assert_eq!(pod["spec"]["containers"][1]["volumeMounts"].as_array().map(Vec::len), Some(1));
        assert_eq!(pod["spec"]["imagePullSecrets"], json!([{"name": "s"}]));

        let mut pod = json!({"spec": {"automountServiceAccountToken": false, "containers": [{"name": "a"}]}});
        let before = pod.clone();
        apply(&mut pod, &json!({}));
        assert_eq!(pod, before);
    }
}
