//! AlwaysPullImages: whoever starts a container has to be let in by the registry of its image.
//!
//! Changes: the containers of new pods, and ephemeral ones when they come.

use meta::{Status, Value};

use super::Review;

pub fn mutate(review: &Review<'_>, pod: &mut Value, old: Option<&Value>) -> Result<(), Status> {
    if !review.is("", "pods") || !matches!(review.subresource, "" | "ephemeralcontainers") {
        return Ok(());
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        let was =
            |name: &Value| old.is_some_and(|old| old.array_at(&["spec", list]).iter().any(|c| c["name"] == *name));
        let all = pod.at_mut(&["spec", list]).and_then(Value::as_array_mut);
        for container in all.into_iter().flatten().filter(|c| !was(&c["name"])) {
            container.set(&["imagePullPolicy"], "Always");
        }
    }
    let volumes = pod.at_mut(&["spec", "volumes"]).and_then(Value::as_array_mut).into_iter().flatten();
    for volume in volumes.filter(|v| old.is_none() && v["image"].as_object().is_some()) {
        volume.set(&["image", "pullPolicy"], "Always");
    }
    Ok(())
}
