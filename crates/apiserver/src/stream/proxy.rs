//! nodes/proxy, pods/proxy and services/proxy: requests to what runs in the cluster.
//!
//! Reads: the object and the service's endpoints. Source: the page "Access Services Running on Clusters". Invariant:
//! nothing but a kubelet is reached at an address that is this machine's own business (loopback, link-local).

use std::net::{IpAddr, SocketAddr};

use http::header::{HOST, LOCATION};
use http::{Method, StatusCode};
use meta::{Status, Value};

use super::connect::{kubelet, node_address};
use super::links;
use crate::backend::{Backend, FORWARDED_URI, insert, is_proxyable, ready_addresses, wants_upgrade};
use crate::body::{Body, Request, Response};
use crate::call::Call;

pub async fn proxy(call: &Call, mut request: Request) -> Result<Response, Status> {
    let (backend, at) = place(call).await?;
    let path = request.uri().path().to_string();
    // /api/v1/nodes/NAME/proxy, /api/v1/namespaces/NAMESPACE/pods/NAME/proxy
    let (prefix, rest) = split(&path, if call.path.namespace.is_empty() { 5 } else { 7 });
    let query = request.uri().query().map(|q| format!("?{q}")).unwrap_or_default();
    let (upgrades, is_head) = (wants_upgrade(request.headers()), request.method() == Method::HEAD);
    if rest.is_empty() && !upgrades && matches!(*request.method(), Method::GET | Method::HEAD) {
        // Compat: relative links of the page would miss (UpgradeAwareHandler, kubernetes issue 4958).
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
        insert(response.headers_mut(), LOCATION, &format!("{path}/{query}"));
        return Ok(response);
    }
    let asked_host = request.headers().get(HOST).and_then(|v| v.to_str().ok()).unwrap_or_default().to_string();
    insert(request.headers_mut(), FORWARDED_URI, &path);
    let target = format!("{}{query}", if rest.is_empty() { "/" } else { rest });
    let mut response = backend.pass(&at, request, &target).await.map_err(|why| match upgrades {
        true => Status::internal(format!("error dialing backend: {why}")),
        false => Status::unavailable(format!("error trying to reach service: {why}")),
    })?;
    let prefix = prefix.to_string();
    let moved = move |link: &str| {
        relocated(link, &prefix, |host| host == asked_host || at.iter().any(|a| a.to_string() == host))
    };
    let location = response.headers().get(LOCATION).and_then(|v| v.to_str().ok());
    if let Some(moved) = location.and_then(&moved) {
        insert(response.headers_mut(), LOCATION, &moved);
    }
    Ok(if is_head { response } else { links::rewrite(response, moved) })
}

/// The path up to and with its first so many segments, and the rest as it was written.
fn split(path: &str, segments: usize) -> (&str, &str) {
    let ends = path.bytes().enumerate().filter(|(i, b)| *b == b'/' && *i > 0 && path.as_bytes()[i - 1] != b'/');
    match ends.map(|(i, _)| i).nth(segments - 1) {
        Some(end) => path.split_at(end),
        None => (path, ""),
    }
}

/// Where a redirection leads as seen from outside; `None` when it stays as it is.
fn relocated(location: &str, prefix: &str, is_backend: impl Fn(&str) -> bool) -> Option<String> {
    let path = match location.split_once("//") {
        Some(("" | "http:" | "https:", rest)) => {
            let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
            is_backend(host).then_some(path)?
        }
        _ if location.starts_with('/') => location,
        _ => return None,
    };
    if path.starts_with(prefix) { Some(path.to_string()) } else { Some(format!("{prefix}{path}")) }
}

/// `name`, `name:port`, `scheme:name:port`.
fn parts(id: &str) -> Option<(bool, &str, &str)> {
    let parts: Vec<&str> = id.split(':').collect();
    let (scheme, name, port) = match parts[..] {
        [name] => ("", name, ""),
        [name, port] => ("", name, port),
        [scheme, name, port] => (scheme, name, port),
        _ => return None,
    };
    (matches!(scheme, "" | "http" | "https") && !name.is_empty()).then_some((scheme == "https", name, port))
}

async fn place(call: &Call) -> Result<(Backend, Vec<SocketAddr>), Status> {
    let kind = call.served.info.singular.as_ref();
    let id = &call.path.name;
    let (https, name, port) = parts(id).ok_or_else(|| Status::bad_request(format!("invalid {kind} request {id:?}")))?;
    let namespace = &call.path.namespace;
    let found = call.shared.find("", &call.path.resource, namespace, name).await?;
    let no_endpoints = || Status::unavailable(format!("no endpoints available for service {name:?}"));
    let object = match found {
        Some(object) => object.stored_document(),
        // Compat: a service itself is looked at for the number of a port only.
        None if kind == "service" && port.parse::<i64>().is_err() => return Err(no_endpoints()),
        None => return Err(Status::not_found(call.gr(), name)),
    };
    match kind {
        "node" => {
            let own = node_address(&object);
            let own = own.ok_or_else(|| Status::internal(format!("node {name:?} has no address")))?;
            if port.is_empty() || port == own.port().to_string() {
                return Ok((kubelet(call)?, vec![own]));
            }
            Ok((anyone(https)?, vec![dialled(own.ip(), https, port)?]))
        }
        "pod" => {
            let ip = object.str_at(&["status", "podIP"]).and_then(|ip| ip.parse().ok());
            let ip = ip.ok_or_else(|| Status::bad_request("address not allowed"))?;
            Ok((anyone(https)?, vec![dialled(ip, https, &pod_port(&object, port))?]))
        }
        _ => {
            let at = ready_addresses(&call.shared, namespace, name, &port_name(&object, name, port)?);
            if at.is_empty() {
                return Err(no_endpoints());
            }
            Ok((anyone(https)?, at))
        }
    }
}

/// A backend whose certificate nobody could vouch for.
fn anyone(https: bool) -> Result<Backend, Status> {
    match https {
        true => Ok(Backend::tls(pki::tls::client_unverified(None).map_err(Status::internal)?, None)),
        false => Ok(Backend::default()),
    }
}

fn dialled(ip: IpAddr, https: bool, port: &str) -> Result<SocketAddr, Status> {
    if !is_proxyable(ip) {
        return Err(Status::bad_request("address not allowed"));
    }
    match port {
        "" if https => Ok((ip, 443).into()),
        "" => Ok((ip, 80).into()),
        port => port.parse().map(|port| SocketAddr::new(ip, port)).map_err(|_| {
            Status::unavailable(format!("error trying to reach service: dial tcp: lookup tcp/{port}: unknown port"))
        }),
    }
}

/// The port asked for, or the first that a container names.
fn pod_port(pod: &Value, asked: &str) -> String {
    let ports = pod.array_at(&["spec", "containers"]).iter().flat_map(|c| c.array_at(&["ports"]));
    let first = || ports.filter_map(|p| p.int_at(&["containerPort"])).next().map(|p| p.to_string());
    if asked.is_empty() { first().unwrap_or_default() } else { asked.to_string() }
}

/// The name of the port asked for, by name or number; of the only one where none is asked for.
fn port_name(service: &Value, name: &str, asked: &str) -> Result<String, Status> {
    let ports = service.array_at(&["spec", "ports"]);
    let found = match (ports, asked.parse::<i64>()) {
        ([only], _) if asked.is_empty() => only,
        (_, Ok(number)) => ports
            .iter()
            .find(|p| p.int_at(&["port"]) == Some(number))
            .ok_or_else(|| Status::unavailable(format!("no service port {number} found for service {name:?}")))?,
        _ => return Ok(asked.to_string()),
    };
    Ok(found.str_at(&["name"]).unwrap_or_default().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::json;

    #[test]
    fn paths_are_split_as_written() {
        for (path, segments, want) in [
            ("/api/v1/nodes/n/proxy", 5, ("/api/v1/nodes/n/proxy", "")),
            ("/api/v1/nodes/n/proxy/", 5, ("/api/v1/nodes/n/proxy", "/")),
            ("/api/v1/nodes/n/proxy/a%2Fb//c/", 5, ("/api/v1/nodes/n/proxy", "/a%2Fb//c/")),
            ("//api/v1//namespaces/x/pods/p/proxy/a", 7, ("//api/v1//namespaces/x/pods/p/proxy", "/a")),
        ] {
            assert_eq!(split(path, segments), want);
        }
    }

    #[test]
    fn redirections() {
        let is_backend = |host: &str| host == "10.0.0.1:80";
        for (location, want) in [
            ("/a?b=c#d", Some("/p/proxy/a?b=c#d")),
            ("http://10.0.0.1:80/a", Some("/p/proxy/a")),
            ("//10.0.0.1:80", Some("/p/proxy")),
            ("/p/proxy/a", Some("/p/proxy/a")),
            ("https://example.com/a", None),
            ("a/b", None),
        ] {
            assert_eq!(relocated(location, "/p/proxy", is_backend).as_deref(), want, "{location}");
        }
    }

    #[test]
    fn names_and_ports() {
        for (id, want) in [
            ("a", Some((false, "a", ""))),
            ("a:http", Some((false, "a", "http"))),
            ("https:a:", Some((true, "a", ""))),
            (":a:80", Some((false, "a", "80"))),
            ("ftp:a:80", None),
            ("https::80", None),
        ] {
            assert_eq!(parts(id), want, "{id}");
        }
        let service = json!({"spec": {"ports": [{"name": "web", "port": 80}]}});
        let named = |asked: &str| port_name(&service, "s", asked).map_err(|e| e.message);
        assert_eq!(named(""), Ok("web".into()));
        assert_eq!(named("80"), Ok("web".into()));
        assert_eq!(named("other"), Ok("other".into()));
        assert_eq!(named("81"), Err("no service port 81 found for service \"s\"".into()));
        let pod = json!({"spec": {"containers": [{"name": "a"}, {"ports": [{"containerPort": 8080}]}]}});
        assert_eq!((pod_port(&pod, ""), pod_port(&pod, "1")), ("8080".into(), "1".into()));
        let said = |ip: &str, port: &str| {
            dialled(ip.parse().expect("ip"), true, port).map(|a| a.to_string()).map_err(|e| e.message)
        };
        assert_eq!(said("10.0.0.1", ""), Ok("10.0.0.1:443".into()));
        assert_eq!(said("127.0.0.1", "80"), Err("address not allowed".into()));
        assert_eq!(said("fe80::1", "80"), Err("address not allowed".into()));
    }
}
