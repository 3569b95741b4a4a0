//! The way out of the request path for what is no object: logs, exec, attach, port-forward and proxy.
//!
//! The request has been authenticated and authorized here; what is left is to reach the kubelet (or the pod, the service)
//! and to carry bytes. Invariant: the whole request, with its upgrade, is handed over.

use std::sync::Arc;

use meta::{Status, Value, json};

use crate::admission::{Operation, outside};
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
        Verb::Connect => {
            let mut options = connect_options(&call);
            outside::examine(&call, Operation::Connect, &mut options, false).await?;
            stream::connect::dispatch(&call, request).await
        }
        Verb::Get => stream::connect::logs(&call, request).await,
        _ => Err(Status::method_not_allowed()),
    }
}

/// The query as the object that it stands for: `PodExecOptions` and its like.
fn connect_options(call: &Call) -> Value {
    let kind = call.served.info.subresource(&call.path.subresource).map(|s| &*s.kind).unwrap_or_default();
    let mut options = json!({"kind": kind, "apiVersion": "v1"});
    match call.path.subresource.as_str() {
        "portforward" => {
            let ports: Vec<i64> = call.query.all("ports").filter_map(|port| port.parse().ok()).collect();
            options.set(&["ports"], ports);
        }
        "proxy" => options.set(&["path"], call.path.rest.as_str()),
        _ => {
            for switch in ["stdin", "stdout", "stderr", "tty"].into_iter().filter(|s| call.query.flag(s)) {
                options.set(&[switch], true);
            }
            if call.query.has("container") {
                options.set(&["container"], call.query.get("container"));
            }
            let command: Vec<&str> = call.query.all("command").collect();
            if !command.is_empty() {
                options.set(&["command"], command);
            }
        }
    }
    options
}
