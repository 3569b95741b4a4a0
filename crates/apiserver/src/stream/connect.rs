//! Which kubelet a pod's stream goes to, and by which path: exec, attach, portforward and log; proxy goes on to its own file.
//!
//! Reads: the pod and its node from the watch cache, the options from the query. Invariant: what is wrong with the
//! options is said here, in upstream's words, before any kubelet is dialled.

use std::net::SocketAddr;

use meta::field::{Error, Errors, Path};
use meta::{GroupKind, Status, Value};

use super::{Kind, connect, fetch, log, wants_websocket};
use crate::backend::Backend;
use crate::body::{Body, Request, Response};
use crate::call::Call;
use crate::request::Query;

const DEFAULT_KUBELET_PORT: u16 = 10250;

/// pods/exec, pods/attach, pods/portforward, and proxy of what has it.
pub async fn dispatch(call: &Call, request: Request) -> Result<Response, Status> {
    let supported = call.path.group.is_empty() && call.path.resource == "pods";
    if call.served.namespaced == call.path.namespace.is_empty() {
        // A node is in no namespace, so that nobody's rights in one lead to it.
        return Err(Status::unknown_resource());
    }
    match call.path.subresource.as_str() {
        "exec" | "attach" if supported => remote_command(call, request).await,
        "portforward" if supported => port_forward(call, request).await,
        "proxy" if call.served.info.subresource("proxy").is_some() => super::proxy::proxy(call, request).await,
        _ => Err(Status::unknown_resource()),
    }
}

/// pods/log.
pub async fn logs(call: &Call, mut request: Request) -> Result<Response, Status> {
    let log = log_of(call).await?;
    if !wants_websocket(request.headers()) {
        return Ok(log);
    }
    let client = hyper::upgrade::on(&mut request);
    Ok(log::upgrade(request.headers(), client, log))
}

async fn log_of(call: &Call) -> Result<Response, Status> {
    let pod = pod(call).await?;
    let options = log_options(&call.query)
        .map_err(|errors| Status::invalid(&GroupKind::new("", "PodLogOptions"), &call.path.name, &errors))?;
    let container = container(&pod, call)?;
    if node_name(&pod).is_empty() {
        // Not scheduled yet: nothing has been logged.
        return Ok(http::Response::new(Body::Empty));
    }
    let (kubelet, at) = (kubelet(call)?, address(call, &pod).await?);
    let path = format!("/containerLogs/{}/{container}?{options}", pod_path(call));
    fetch(&kubelet, at, &path).await
}

async fn remote_command(call: &Call, request: Request) -> Result<Response, Status> {
    let pod = pod(call).await?;
    let exec = call.path.subresource == "exec";
    if exec && call.query.all("command").next().is_none() {
        return Err(Status::bad_request("you must specify at least 1 command for the pod"));
    }
    let phase = pod.str_at(&["status", "phase"]).unwrap_or_default();
    if matches!(phase, "Succeeded" | "Failed") {
        return Err(Status::bad_request(format!(
            "cannot exec into a container in a completed pod; current phase is {phase}"
        )));
    }
    let container = container(&pod, call)?;
    let mut query = Vec::new();
    // The kubelet's names for the same switches.
    for (ours, theirs) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if call.query.flag(ours) {
            query.push(format!("{theirs}=1"));
        }
    }
    if !query.iter().any(|q| q != "tty=1") {
        return Err(Status::bad_request("you must specify at least one of stdin, stdout, stderr"));
    }
    query.extend(call.query.all("command").map(|word| format!("command={}", encode(word))));
    let path = format!("/{}/{}/{container}?{}", call.path.subresource, pod_path(call), query.join("&"));
    let (kubelet, at) = (kubelet(call)?, address(call, &pod).await?);
    connect(&kubelet, at, &path, Kind::RemoteCommand, request).await
}

async fn port_forward(call: &Call, request: Request) -> Result<Response, Status> {
    let pod = pod(call).await?;
    let ports: Vec<String> = call.query.all("ports").map(|p| format!("port={}", encode(p))).collect();
    let path = format!("/portForward/{}?{}", pod_path(call), ports.join("&"));
    let (kubelet, at) = (kubelet(call)?, address(call, &pod).await?);
    connect(&kubelet, at, &path, Kind::PortForward, request).await
}

fn pod_path(call: &Call) -> String {
    format!("{}/{}", encode(&call.path.namespace), encode(&call.path.name))
}

async fn pod(call: &Call) -> Result<Value, Status> {
    let found = call.shared.find("", "pods", &call.path.namespace, &call.path.name).await?;
    Ok(found.ok_or_else(|| call.not_found())?.stored_document())
}

fn node_name(pod: &Value) -> &str {
    pod.str_at(&["spec", "nodeName"]).unwrap_or_default()
}

fn names<'a>(pod: &'a Value, list: &str) -> Vec<&'a str> {
    pod.array_at(&["spec", list]).iter().filter_map(|c| c.str_at(&["name"])).collect()
}

/// The container asked for, or the only one there is.
fn container(pod: &Value, call: &Call) -> Result<String, Status> {
    choose_container(pod, &call.path.name, call.query.get("container")).map(|name| encode(&name))
}

fn choose_container(pod: &Value, pod_name: &str, asked: &str) -> Result<String, Status> {
    let (containers, init) = (names(pod, "containers"), names(pod, "initContainers"));
    let ephemeral = names(pod, "ephemeralContainers");
    if asked.is_empty() {
        return match containers.as_slice() {
            [only] => Ok(only.to_string()),
            all => {
                let mut choices = format!("choose one of: [{}]", all.join(" "));
                for (names, word) in [(&init, "init"), (&ephemeral, "ephemeral")] {
                    if !names.is_empty() {
                        choices.push_str(&format!(" or one of the {word} containers: [{}]", names.join(" ")));
                    }
                }
                Err(Status::bad_request(format!("a container name must be specified for pod {pod_name}, {choices}")))
            }
        };
    }
    let mut all = containers.iter().chain(&init).chain(&ephemeral);
    if all.any(|name| *name == asked) {
        Ok(asked.to_string())
    } else {
        Err(Status::bad_request(format!("container {asked} is not valid for pod {pod_name}")))
    }
}

/// A kubelet must show a certificate of its authority for the address it is dialled at, and gets ours.
pub fn kubelet(call: &Call) -> Result<Backend, Status> {
    let client = call.shared.config.kubelet_client.as_ref().ok_or_else(|| {
        Status::unavailable("this API server has no credentials for kubelets: logs, exec and port-forward are off")
    })?;
    let tls = pki::tls::client(&client.ca_pem, Some(&client.identity)).map_err(Status::internal)?;
    Ok(Backend::tls(tls, None))
}

/// Where the kubelet of the pod's node listens, from the node's status.
async fn address(call: &Call, pod: &Value) -> Result<SocketAddr, Status> {
    let name = node_name(pod);
    if name.is_empty() {
        return Err(Status::bad_request(format!("pod {} does not have a host assigned", call.path.name)));
    }
    let node = call.shared.find("", "nodes", "", name).await?;
    let node = node.ok_or_else(|| Status::internal(format!("node {name:?} of pod {} is gone", call.path.name)))?;
    node_address(&node.stored_document())
        .ok_or_else(|| Status::internal(format!("node {name:?} has no address that a kubelet could answer at")))
}

pub fn node_address(node: &Value) -> Option<SocketAddr> {
    let addresses = node.array_at(&["status", "addresses"]);
    let of_type = |wanted: &str| {
        addresses
            .iter()
            .filter(|a| a.str_at(&["type"]) == Some(wanted))
            .find_map(|a| a.str_at(&["address"])?.parse().ok())
    };
    let ip = of_type("InternalIP").or_else(|| of_type("ExternalIP"))?;
    let port = node.int_at(&["status", "daemonEndpoints", "kubeletEndpoint", "Port"]).unwrap_or_default();
    let port = u16::try_from(port).ok().filter(|p| *p != 0).unwrap_or(DEFAULT_KUBELET_PORT);
    Some(SocketAddr::new(ip, port))
}

/// The log options as the kubelet's query, or what is wrong with them.
fn log_options(query: &Query) -> Result<String, Errors> {
    let mut errors = Errors::new();
    let mut out = Vec::new();
    for name in ["follow", "previous", "timestamps"] {
        if query.flag(name) {
            out.push(format!("{name}=true"));
        }
    }
    for (name, least) in [("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1)] {
        let text = query.get(name);
        match text.parse::<i64>() {
            _ if text.is_empty() => {}
            Ok(number) if number >= least => out.push(format!("{name}={number}")),
            Ok(number) if least == 0 => {
                errors.push(Error::invalid(&Path::new(name), number, "must be greater than or equal to 0"));
            }
            Ok(number) => errors.push(Error::invalid(&Path::new(name), number, "must be greater than 0")),
            Err(_) => errors.push(Error::invalid(&Path::new(name), text, "must be a whole number")),
        }
    }
    let since = query.get("sinceTime");
    if !since.is_empty() {
        if query.has("sinceSeconds") {
            let detail = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            errors.push(Error::forbidden(&Path::new("sinceSeconds"), detail));
        } else if meta::time::parse(since).is_none() {
            errors.push(Error::invalid(&Path::new("sinceTime"), since, "must be an RFC 3339 time"));
        } else {
            out.push(format!("sinceTime={}", encode(since)));
        }
    }
    match query.get("stream") {
        "" | "All" => {}
        stream @ ("Stdout" | "Stderr") if query.get("tailLines").is_empty() => out.push(format!("stream={stream}")),
        "Stdout" | "Stderr" => {
            let detail = "`tailLines` and specific `stream` are mutually exclusive for now";
            errors.push(Error::forbidden(&Path::new("tailLines"), detail));
        }
        other => errors.push(Error::not_supported(&Path::new("stream"), other, &["All", "Stdout", "Stderr"])),
    }
    if errors.is_empty() { Ok(out.join("&")) } else { Err(errors) }
}

/// Percent encoding for a path segment or a query value.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::json;

    #[test]
    fn the_container() {
        let one = json!({"spec": {"containers": [{"name": "a"}]}});
        let two = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        let said = |pod: &Value, asked: &str| choose_container(pod, "p", asked).map_err(|s| s.message);
        assert_eq!(said(&one, ""), Ok("a".into()));
        assert_eq!(said(&two, "i"), Ok("i".into()));
        assert_eq!(said(&two, "x"), Err("container x is not valid for pod p".into()));
        let choose =
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]";
        assert_eq!(said(&two, ""), Err(choose.into()));
    }

    #[test]
    fn options_of_logs() {
        let ask = |query: &str| {
            log_options(&Query::parse(&format!("/?{query}").parse().expect("uri")))
                .map_err(|e| meta::field::summary(&e))
        };
        assert_eq!(
            ask("follow=true&tailLines=3&timestamps=true"),
            Ok("follow=true&timestamps=true&tailLines=3".into())
        );
        assert_eq!(ask("sinceTime=2026-01-02T03%3A04%3A05Z"), Ok("sinceTime=2026-01-02T03%3A04%3A05Z".into()));
        assert_eq!(ask("tailLines=-1"), Err("tailLines: Invalid value: -1: must be greater than or equal to 0".into()));
        assert_eq!(
            ask("sinceSeconds=1&sinceTime=2026-01-02T03:04:05Z"),
            Err("sinceSeconds: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified".into())
        );
    }

    #[test]
    fn where_a_kubelet_listens() {
        let node = json!({"status": {
            "addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "10.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 12345}},
        }});
        assert_eq!(node_address(&node), Some("10.0.0.1:12345".parse().expect("an address")));
        assert_eq!(node_address(&json!({"status": {}})), None);
    }
}
