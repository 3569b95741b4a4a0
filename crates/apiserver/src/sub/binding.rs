//! pods/binding, and the `bindings` resource: puts a pod on a node.
//!
//! Changes: the pod's node and its PodScheduled condition. Invariant: a pod is bound once.

use meta::field::{Error, Path};
use meta::{Status, Value, json, time};

use crate::admission::{Operation, outside, pod_topology_labels};
use crate::body::Response;
use crate::call::Call;
use crate::options::WriteOptions;
use crate::write::{self, Endpoint};
use crate::{decode, metadata, reply};

pub async fn create(call: &Call, body: &[u8]) -> Result<Response, Status> {
    let options = WriteOptions::parse(call, "CreateOptions")?;
    let ty = api::resource::root_type("", "v1", "Binding");
    let binding = decode::typed(call, body, options.validation, &["v1"], "Binding", ty)?;
    bind(call, &call.path.name, &binding, &options).await
}

/// Binds the pod `name` as the binding says.
pub async fn bind(call: &Call, name: &str, binding: &Value, options: &WriteOptions) -> Result<Response, Status> {
    if metadata::name(binding) != name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    check(binding)?;
    let mut binding = binding.clone();
    if let Some(node) = binding.str_at(&["target", "name"]).map(str::to_string) {
        pod_topology_labels::copy(&call.shared, &node, &mut binding);
    }
    outside::examine(call, Operation::Create, &mut binding, options.dry_run).await?;
    check(&binding)?;
    let binding = &binding;
    let Some(pods) = call.shared.registry.stored("", "pods") else { return Err(Status::unknown_resource()) };
    let key = pods.key(&call.path.namespace, name);
    let node = binding.str_at(&["target", "name"]).unwrap_or_default().to_string();
    let make = |old: &Value| assign(&pods.gr, name, old, binding, &node);
    write::update_key(call, &pods, &key, name, Endpoint::Sub("binding"), options, make).await?;
    let answer = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(reply::document(call, 201, &answer))
}

fn check(binding: &Value) -> Result<(), Status> {
    let path = Path::new("target");
    let mut errors = Vec::new();
    let kind = binding.str_at(&["target", "kind"]).unwrap_or_default();
    if !kind.is_empty() && kind != "Node" {
        errors.push(Error::not_supported(&path.child("kind"), kind, &["Node", "<empty>"]));
    }
    if binding.str_at(&["target", "name"]).unwrap_or_default().is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    }
    if errors.is_empty() {
        return Ok(());
    }
    // Compat: a bare error of the storage, so code 500 (pod/storage BindingREST).
    let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let message = if let [one] = &all[..] { one.clone() } else { format!("[{}]", all.join(", ")) };
    Err(Status::new(500, meta::Reason::Unknown, message))
}

fn assign(gr: &meta::GroupResource, name: &str, old: &Value, binding: &Value, node: &str) -> Result<Value, Status> {
    let mut pod = old.clone();
    let uid = binding.str_at(&["metadata", "uid"]).unwrap_or_default();
    let own = old.str_at(&["metadata", "uid"]).unwrap_or_default();
    if !uid.is_empty() && uid != own {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {own}");
        return Err(Status::conflict(gr, name, why));
    }
    if metadata::is_deleting(old) {
        return Err(Status::conflict(gr, name, format!("pod {name} is being deleted, cannot be assigned to a host")));
    }
    let bound = old.str_at(&["spec", "nodeName"]).unwrap_or_default();
    if !bound.is_empty() {
        // Compat: upstream's conflict is of the subresource, as schedulers' logs have it.
        let gr = meta::GroupResource::new("", "pods/binding");
        return Err(Status::conflict(&gr, name, format!("pod {name} is already assigned to node {bound:?}")));
    }
    if !old.array_at(&["spec", "schedulingGates"]).is_empty() {
        return Err(Status::conflict(gr, name, format!("pod {name} has non-empty .spec.schedulingGates")));
    }
    pod.set(&["spec", "nodeName"], node);
    for member in ["annotations", "labels"] {
        if let Some(map) = binding.at(&["metadata", member]).and_then(Value::as_object) {
            for (key, value) in map.iter() {
                pod.set(&["metadata", member, key], value);
            }
        }
    }
    let now = time::seconds(time::now());
    let conditions = pod.slot(&["status", "conditions"]).make_array();
    let generation = old.int_at(&["metadata", "generation"]).unwrap_or(0);
    let mut condition =
        json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    if generation > 0 {
        condition.set(&["observedGeneration"], generation);
    }
    match conditions.iter_mut().find(|c| c.str_at(&["type"]) == Some("PodScheduled")) {
        Some(found) => *found = condition,
        None => conditions.push(condition),
    }
    Ok(pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_bound_once() {
        let gr = meta::GroupResource::new("", "pods");
        let binding = json!({"metadata": {"annotations": {"a": "b"}}, "target": {"kind": "Node", "name": "n"}});
        let pod = json!({"metadata": {"name": "p"}, "spec": {}});
        let bound = assign(&gr, "p", &pod, &binding, "n").expect("bound");
        assert_eq!(bound["spec"]["nodeName"].as_str(), Some("n"));
        assert_eq!(bound["metadata"]["annotations"], json!({"a": "b"}));
        assert_eq!(bound["status"]["conditions"][0]["status"].as_str(), Some("True"));
        let refused = assign(&gr, "p", &bound, &binding, "m").expect_err("bound already");
        assert_eq!(
            refused.message,
            r#"Operation cannot be fulfilled on pods/binding "p": pod p is already assigned to node "n""#
        );
    }
}
