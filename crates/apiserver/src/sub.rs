//! Subresources that are no streams: which file a request for one gets to.

mod binding;
mod eviction;
mod pod;
mod scale;
mod token;

use bytes::Bytes;
use meta::Status;

use crate::body::Response;
use crate::call::Call;
use crate::request::Verb;
use crate::verbs::{get, patch, update};
use crate::write::Endpoint;

pub use binding::bind;
pub use scale::scale_in;

pub async fn dispatch(call: &Call, body: Bytes) -> Result<Response, Status> {
    let subresource = call.path.subresource.as_str();
    let Some(info) = call.served.info.subresource(subresource) else { return Err(Status::unknown_resource()) };
    if !info.can(call.verb.as_str()) {
        return Err(Status::method_not_allowed());
    }
    if call.served.namespaced == call.path.namespace.is_empty() {
        return Err(Status::unknown_resource());
    }
    let plural = if call.served.custom.is_none() { &*call.served.info.plural } else { "" };
    match (plural, subresource) {
        (_, "status") => endpoint(call, &body, Endpoint::Status).await,
        (_, "scale") => scale::scale(call, &body).await,
        ("pods", "binding") => binding::create(call, &body).await,
        ("pods", "eviction") => eviction::create(call, &body).await,
        ("pods", "ephemeralcontainers") => pod::ephemeral_containers(call, &body).await,
        ("pods", "resize") => pod::resize(call, &body).await,
        ("serviceaccounts", "token") => token::create(call, &body).await,
        ("namespaces", "finalize") => pod::finalize(call, &body).await,
        ("certificatesigningrequests", "approval") => pod::approval(call, &body).await,
        _ => Err(Status::new(
            501,
            meta::Reason::Unknown,
            format!("{}/{subresource} is not implemented by this server yet", call.served.gr),
        )),
    }
}

/// The verbs of a subresource whose body is the whole object.
async fn endpoint(call: &Call, body: &[u8], endpoint: Endpoint) -> Result<Response, Status> {
    match call.verb {
        Verb::Get => get::get(call).await,
        Verb::Update => update::replace(call, body, endpoint).await,
        Verb::Patch => patch::change(call, body, endpoint).await,
        _ => Err(Status::method_not_allowed()),
    }
}
