//! NamespaceLifecycle: nothing new in a namespace that is absent or going, and three namespaces stay.
//!
//! Reads: namespaces. Invariant: a namespace that is only just created is found, since a miss in the cache is looked up
//! again at the store's newest state.

use futures::FutureExt;
use futures::future::BoxFuture;
use meta::status::Cause;
use meta::{GroupResource, Status, Value};

use super::{Operation, Review};

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub fn mutate<'a>(
    review: &'a mut Review<'_>,
    _: &'a mut Value,
    _: Option<&'a Value>,
) -> BoxFuture<'a, Result<(), Status>> {
    check(review).boxed()
}

pub fn validate(review: &Review<'_>, _: Option<&Value>, _: Option<&Value>) -> Result<(), Status> {
    let immortal = review.operation == Operation::Delete
        && review.is("", "namespaces")
        && IMMORTAL.contains(&review.name.as_str());
    let refused = immortal.then(|| review.forbidden("this namespace may not be deleted"));
    refused.map_or(Ok(()), Err)
}

async fn check(review: &Review<'_>) -> Result<(), Status> {
    if !review.served.namespaced || review.operation != Operation::Create || review.namespace.is_empty() {
        return Ok(());
    }
    // Compat: who may do what can be asked about any namespace, whether it exists or not.
    if review.served.info.group == "authorization.k8s.io" {
        return Ok(());
    }
    let name = review.namespace.as_str();
    let found = match review.shared.peek("", "namespaces", "", name) {
        Some(found) => Some(found),
        None => review.shared.find("", "namespaces", "", name).await?,
    };
    let Some(namespace) = found else {
        return Err(Status::not_found(&GroupResource::new("", "namespaces"), name));
    };
    if namespace.deleting {
        let why = format!("unable to create new content in namespace {name} because it is being terminated");
        let cause = Cause {
            reason: "NamespaceTerminating".into(),
            message: format!("namespace {name} is being terminated"),
            field: "metadata.namespace".into(),
        };
        return Err(review.forbidden(why).with_causes(vec![cause]));
    }
    Ok(())
}
