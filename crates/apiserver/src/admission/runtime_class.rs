//! RuntimeClass: a pod that names a runtime class gets what the class adds to it: overhead, node selector, tolerations.
//!
//! Reads: runtime classes. Changes: new pods. Invariant: a stored pod's overhead is the one of its class when it was created.

use futures::FutureExt;
use futures::future::BoxFuture;
use meta::{Status, Value};

use super::{Operation, Review};

pub fn mutate<'a>(
    review: &'a mut Review<'_>,
    pod: &'a mut Value,
    _: Option<&'a Value>,
) -> BoxFuture<'a, Result<(), Status>> {
    async move {
        if review.operation != Operation::Create || !review.subresource.is_empty() || !review.is("", "pods") {
            return Ok(());
        }
        let class = match pod.str_at(&["spec", "runtimeClassName"]).filter(|name| !name.is_empty()) {
            None => None,
            Some(name) => {
                let found = review.shared.find("node.k8s.io", "runtimeclasses", "", name).await?;
                let found = found
                    .ok_or_else(|| review.forbidden(format!("pod rejected: RuntimeClass \"{name}\" not found")))?;
                Some(found.document())
            }
        };
        apply(pod, class.as_ref()).map_err(|why| review.forbidden(why))
    }
    .boxed()
}

/// Puts the class's demands into the pod, or says why the two do not go together.
fn apply(pod: &mut Value, class: Option<&Value>) -> Result<(), String> {
    let overhead = class.and_then(|class| class.at(&["overhead", "podFixed"])).filter(|fixed| !fixed.is_empty());
    match (overhead, pod.at(&["spec", "overhead"]).filter(|own| !own.is_empty())) {
        (Some(fixed), Some(own)) if own != fixed => {
            return Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".into());
        }
        (None, Some(_)) => {
            return Err("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".into());
        }
        (Some(fixed), None) => pod.set(&["spec", "overhead"], fixed),
        _ => {}
    }
    let Some(scheduling) = class.and_then(|class| class.get("scheduling")) else { return Ok(()) };
    for (key, value) in scheduling.get("nodeSelector").and_then(Value::as_object).iter().flat_map(|map| map.iter()) {
        let slot = pod.slot(&["spec", "nodeSelector"]).make_object().get_or_insert_with(key, || value.clone());
        if slot != value {
            let (wanted, own) = (value.as_str().unwrap_or_default(), slot.as_str().unwrap_or_default());
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted}; pod.spec.nodeSelector[{key}] = {own}"
            ));
        }
    }
    for toleration in scheduling.array_at(&["tolerations"]) {
        let own = pod.slot(&["spec", "tolerations"]).make_array();
        if !own.contains(toleration) {
            own.push(toleration.clone());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::json;

    #[test]
    fn what_a_class_adds() {
        let class = json!({
            "overhead": {"podFixed": {"cpu": "10m"}},
            "scheduling": {"nodeSelector": {"a": "1"}, "tolerations": [{"key": "k", "operator": "Exists"}]},
        });
        let full = json!({"overhead": {"cpu": "10m"}, "nodeSelector": {"a": "1"}, "tolerations": [{"key": "k", "operator": "Exists"}]});
        let own = json!({"nodeSelector": {"b": "2"}, "tolerations": [{"key": "k", "operator": "Exists"}]});
        let mut both = full.clone();
        both.set(&["nodeSelector", "b"], "2");
        let overhead = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
        let alone = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
        let conflict = "conflict: runtimeClass.scheduling.nodeSelector[a] = 1; pod.spec.nodeSelector[a] = 2";
        for (spec, class, want) in [
            (json!({}), Some(&class), Ok(full.clone())),
            (own, Some(&class), Ok(both)),
            (json!({"overhead": {"cpu": "1"}}), Some(&class), Err(overhead)),
            (json!({"overhead": {"cpu": "1"}}), None, Err(alone)),
            (json!({"nodeSelector": {"a": "2"}}), Some(&class), Err(conflict)),
            (json!({}), None, Ok(json!({}))),
        ] {
            let mut pod = json!({"spec": {}});
            pod.set(&["spec"], spec);
            let said = apply(&mut pod, class).map(|()| pod["spec"].clone());
            assert_eq!(said, want.map_err(String::from));
        }
    }
}
