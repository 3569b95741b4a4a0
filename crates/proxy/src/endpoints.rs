//! Which endpoints of a Service's slices may get traffic for one of its ports.
//! Pure. Invariant: sorted and without duplicates, so that the same endpoints always give the same rules.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub ip: IpAddr,
    pub port: u16,
}

/// Endpoints for traffic that may go anywhere, and for traffic that must stay on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usable {
    pub cluster: Vec<Endpoint>,
    pub local: Vec<Endpoint>,
}

/// Ready endpoints; if there are none, those that are terminating but still serve. The same for the local ones alone.
pub fn usable(slices: &[Arc<EndpointSlice>], port_name: Option<&str>, protocol: &str, v6: bool, node: &str) -> Usable {
    let (mut ready, mut serving) = (Usable::default(), Usable::default());
    for slice in slices.iter().filter(|s| s.address_type == if v6 { "IPv6" } else { "IPv4" }) {
        let found = slice.ports.iter().flatten().find(|p| {
            p.name.as_deref().unwrap_or_default() == port_name.unwrap_or_default()
                && p.protocol.as_deref().unwrap_or("TCP").eq_ignore_ascii_case(protocol)
        });
        let Some(port) = found.and_then(|p| p.port).and_then(|p| u16::try_from(p).ok()) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let conditions = endpoint.conditions.as_ref();
            let is_ready = conditions.and_then(|c| c.ready).unwrap_or(true);
            let is_serving = conditions.and_then(|c| c.serving).unwrap_or(is_ready);
            let is_terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
            let into = match (is_ready, is_serving && is_terminating) {
                (true, _) => &mut ready,
                (false, true) => &mut serving,
                (false, false) => continue,
            };
            // Only the first address counts: upstream's consumers treat the addresses of an endpoint as fungible.
            let Some(ip) = endpoint.addresses.first().and_then(|a| a.parse::<IpAddr>().ok()) else { continue };
            into.cluster.push(Endpoint { ip, port });
            if endpoint.node_name.as_deref() == Some(node) {
                into.local.push(Endpoint { ip, port });
            }
        }
    }
    Usable {
        cluster: first_with_any(ready.cluster, serving.cluster),
        local: first_with_any(ready.local, serving.local),
    }
}

fn first_with_any(ready: Vec<Endpoint>, serving: Vec<Endpoint>) -> Vec<Endpoint> {
    let mut out = if ready.is_empty() { serving } else { ready };
    out.sort_unstable();
    out.dedup();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_and_locality() {
        let endpoint = |ip: &str, node: &str, conditions: &str| {
            format!(r#"{{"addresses":["{ip}"],"nodeName":"{node}","conditions":{{{conditions}}}}}"#)
        };
        let leaving = r#""ready":false,"serving":true,"terminating":true"#;
        let cases = [
            (vec![endpoint("10.0.0.1", "here", ""), endpoint("10.0.0.2", "there", r#""ready":false"#)], "1", "1"),
            (vec![endpoint("10.0.0.1", "here", leaving), endpoint("10.0.0.2", "there", leaving)], "1 2", "1"),
            (vec![endpoint("10.0.0.1", "here", leaving), endpoint("10.0.0.2", "there", r#""ready":true"#)], "2", "1"),
            (
                vec![
                    endpoint("10.0.0.2", "there", ""),
                    endpoint("10.0.0.1", "there", ""),
                    endpoint("10.0.0.2", "there", ""),
                ],
                "1 2",
                "",
            ),
        ];
        for (endpoints, cluster, local) in cases {
            let json = format!(
                r#"{{"metadata":{{}},"addressType":"IPv4","ports":[{{"name":"a","port":80}},{{"name":"b","port":81,"protocol":"UDP"}}],"endpoints":[{}]}}"#,
                endpoints.join(",")
            );
            let slices = [Arc::new(serde_json::from_str(&json).unwrap())];
            let got = usable(&slices, Some("a"), "tcp", false, "here");
            let last =
                |list: &[Endpoint]| list.iter().map(|e| e.ip.to_string()[7..].to_owned()).collect::<Vec<_>>().join(" ");
            assert_eq!((last(&got.cluster), last(&got.local)), (cluster.to_owned(), local.to_owned()), "{json}");
            assert_eq!(usable(&slices, Some("b"), "tcp", false, "here"), Usable::default());
            assert_eq!(usable(&slices, Some("a"), "tcp", true, "here"), Usable::default());
        }
    }
}
