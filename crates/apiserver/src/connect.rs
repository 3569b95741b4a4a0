//! The way out of the request path for what is no object: logs, exec, attach, port-forward and proxy.
//!
//! The request has been authenticated and authorized here; what is left is to reach the kubelet (or the pod, the service)
//! and to carry bytes. Invariant: the whole request, with its upgrade, is handed over.

use std::sync::Arc;

use meta::Status;

use crate::body::{Request, Response};
use crate::call::Call;
use crate::request::Verb;
use crate::stream;

/// Whether a request goes this way.
pub fn takes(verb: Verb, resource: &str, subresource: &str) -> bool {
    verb == Verb::Connect || (resource == "pods" && subresource == "log")
}

/// Answers a request for a stream. `call` says which object is meant; the kubelet's address is in its node, the
/// credentials in `call.shared.config.kubelet_client`.
pub async fn connect(call: Arc<Call>, request: Request) -> Result<Response, Status> {
    match call.verb {
        Verb::Connect => stream::connect::dispatch(&call, request).await,
        Verb::Get => stream::connect::logs(&call).await,
        _ => Err(Status::method_not_allowed()),
    }
}
