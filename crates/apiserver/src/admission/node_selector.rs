//! PodNodeSelector: an annotation of the namespace says which nodes its pods may run on.
//!
//! Reads: namespaces. Changes: new pods. Invariant: what the pod asks for does not contradict its namespace.

use meta::status::Reason;
use meta::{Status, Value};

use super::{Operation, Review};

const ANNOTATION: &str = "scheduler.alpha.kubernetes.io/node-selector";

pub fn mutate(review: &Review<'_>, pod: &mut Value, _: Option<&Value>) -> Result<(), Status> {
    if review.operation != Operation::Create || !review.subresource.is_empty() || !review.is("", "pods") {
        return Ok(());
    }
    let Some(namespace) = review.shared.peek("", "namespaces", "", &review.namespace) else { return Ok(()) };
    let namespace = namespace.document();
    let wanted = namespace["metadata"]["annotations"][ANNOTATION].as_str().unwrap_or_default();
    for pair in wanted.split(',').filter(|pair| !pair.is_empty()) {
        let Some((key, value)) = pair.split_once('=').map(|(key, value)| (key.trim(), value.trim())) else {
            // Compat: an error without a reason (PodNodeSelector).
            return Err(Status::new(500, Reason::named(""), format!("invalid selector: [{wanted}]")));
        };
        let slot = pod.slot(&["spec", "nodeSelector", key]);
        if slot.as_str().is_some_and(|own| own != value) {
            return Err(review.forbidden("pod node label selector conflicts with its namespace node label selector"));
        }
        *slot = value.into();
    }
    Ok(())
}
