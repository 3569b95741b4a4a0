//! The verbs, one file each, and which of them a request gets to.

pub mod create;
pub mod delete;
pub mod delete_collection;
pub mod get;
pub mod list;
pub mod patch;
pub mod update;
pub mod watch;

use bytes::Bytes;
use meta::Status;

use crate::body::Response;
use crate::call::Call;
use crate::request::Verb;
use crate::{reviews, sub};

/// Does what the request asks. Streams (connect) do not come here. What takes more than a look into the cache is boxed: the
/// futures around this one are moved several times for each request, and would be as large as the largest of these.
pub async fn dispatch(call: &Call, body: Bytes) -> Result<Response, Status> {
    if !call.path.subresource.is_empty() {
        return Box::pin(sub::dispatch(call, body)).await;
    }
    // While a definition is being deleted discovery shows less; what is there may still be changed, so that its
    // finalizers can be taken away.
    if call.served.custom.is_none() && !call.served.can(call.verb.as_str()) {
        return Err(Status::method_not_allowed());
    }
    if call.verb == Verb::Create && !call.path.name.is_empty() {
        return Err(Status::method_not_allowed());
    }
    let named = !matches!(call.verb, Verb::List | Verb::Watch);
    if call.served.namespaced && call.path.namespace.is_empty() && named {
        // An object of a namespace without its namespace is not a path that exists.
        return Err(if call.path.name.is_empty() { Status::method_not_allowed() } else { Status::unknown_resource() });
    }
    if !call.served.namespaced && !call.path.namespace.is_empty() {
        return Err(Status::unknown_resource());
    }
    if !call.served.is_stored() {
        return Box::pin(reviews::dispatch(call, body)).await;
    }
    match call.verb {
        Verb::Get => get::get(call).await,
        Verb::List => Box::pin(list::list(call)).await,
        Verb::Watch => Box::pin(watch::watch(call)).await,
        Verb::Create => Box::pin(create::create(call, &body)).await,
        Verb::Update => Box::pin(update::update(call, &body)).await,
        Verb::Patch => Box::pin(patch::patch(call, &body)).await,
        Verb::Delete => Box::pin(delete::delete(call, &body)).await,
        Verb::DeleteCollection => Box::pin(delete_collection::delete_collection(call, &body)).await,
        Verb::Connect => Err(Status::method_not_allowed()),
    }
}
