//! NamespaceLifecycle: nothing new in a namespace that is absent or going, and three namespaces stay.
//!
//! Reads: namespaces. Invariant: a namespace that is only just created is found, since a miss in the cache is looked up
//! again at the store's newest state.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use meta::status::Cause;
use meta::{GroupResource, Status, Value, json};

use super::{Operation, Review};
use crate::bootstrap;
use crate::object::Object;

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

/// NamespaceAutoProvision: a namespace that something is made in comes into being.
pub fn provision<'a>(
    review: &'a mut Review<'_>,
    _: &'a mut Value,
    _: Option<&'a Value>,
) -> BoxFuture<'a, Result<(), Status>> {
    async {
        if review.operation == Operation::Create && !review.dry_run && find(review).await?.is_none() {
            let document = json!({"metadata": {"name": review.namespace.as_str()}});
            let made = bootstrap::ensure(&review.call.shared, "", "namespaces", "", &review.namespace, document).await;
            return made.or_else(|status| if status.code == 409 { Ok(()) } else { Err(status) });
        }
        Ok(())
    }
    .boxed()
}

/// NamespaceExists: nothing is written in a namespace that is absent, also where there is no NamespaceLifecycle.
pub fn exists<'a>(
    review: &'a mut Review<'_>,
    _: &'a mut Value,
    _: Option<&'a Value>,
) -> BoxFuture<'a, Result<(), Status>> {
    async {
        let found = find(review).await?;
        found.map_or_else(|| Err(absent(&review.namespace)), |_| Ok(()))
    }
    .boxed()
}

fn absent(name: &str) -> Status {
    Status::not_found(&GroupResource::new("", "namespaces"), name)
}

/// The namespace that is written in, if it is there. Of what is in none: something else.
async fn find(review: &Review<'_>) -> Result<Option<Found>, Status> {
    // Compat: who may do what can be asked about any namespace, whether it exists or not.
    let everywhere = !review.served.namespaced || review.namespace.is_empty();
    if everywhere || review.served.info.group == "authorization.k8s.io" {
        return Ok(Some(Found::Unneeded));
    }
    Ok(review.shared.namespace(&review.namespace).await?.map(Found::Namespace))
}

enum Found {
    Unneeded,
    Namespace(Arc<Object>),
}

async fn check(review: &Review<'_>) -> Result<(), Status> {
    if review.operation != Operation::Create {
        return Ok(());
    }
    let name = review.namespace.as_str();
    let namespace = match find(review).await?.ok_or_else(|| absent(name))? {
        Found::Unneeded => return Ok(()),
        Found::Namespace(namespace) => namespace,
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
