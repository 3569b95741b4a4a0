//! The endpoints a service should have, grouped by address family and ports.
//! Reads and writes nothing. Invariant: pure; one endpoint per pod, family and set of ports.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone};
use kube::ResourceExt;

use crate::{pod, service_endpoint as common};

const ZONE: &str = "topology.kubernetes.io/zone";

/// Address family and ports in canonical JSON, which groups endpoints into slices.
pub type Group = (&'static str, String);

pub struct Wanted {
    pub ports: Vec<EndpointPort>,
    pub endpoints: Vec<Endpoint>,
}

pub fn group_key(family: &'static str, ports: &[EndpointPort]) -> Group {
    let mut texts: Vec<String> = ports.iter().map(|port| serde_json::to_string(port).unwrap_or_default()).collect();
    texts.sort();
    (family, texts.join(","))
}

pub fn endpoints(
    service: &Service,
    pods: &[Arc<Pod>],
    node_of: &dyn Fn(&str) -> Option<Arc<Node>>,
) -> BTreeMap<Group, Wanted> {
    let mut groups: BTreeMap<Group, Wanted> = BTreeMap::new();
    let has_ports =
        service.spec.as_ref().is_some_and(|spec| spec.ports.as_ref().is_some_and(|ports| !ports.is_empty()));
    for family in common::families(service) {
        for pod in pods.iter().filter(|pod| common::can_back(pod)) {
            let Some(address) = common::address(pod, family) else { continue };
            let ports = ports(service, pod);
            // a pod without any of the named ports serves nothing here; a headless service needs no port at all
            if ports.is_empty() && has_ports && !common::is_headless(service) {
                continue;
            }
            let zone = node_of(pod::node_name(pod)).and_then(|node| node.labels().get(ZONE).cloned());
            let endpoint = endpoint(service, pod, address, zone);
            let group =
                groups.entry(group_key(family, &ports)).or_insert_with(|| Wanted { ports, endpoints: Vec::new() });
            group.endpoints.push(endpoint);
        }
    }
    groups
}

fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(EndpointPort {
                // Compat: a nameless port is written as "", upstream's endpointslice controller
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(common::target_port(pod, port)?),
                protocol: Some(common::protocol(port.protocol.as_deref()).to_string()),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

fn endpoint(service: &Service, pod: &Pod, address: &str, zone: Option<String>) -> Endpoint {
    let serving = pod::is_ready(pod);
    let terminating = pod::is_deleting(pod);
    let publish = service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false);
    let node = Some(pod::node_name(pod).to_string()).filter(|node| !node.is_empty());
    let ready = publish || (serving && !terminating);
    Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hints: hints(service, node.as_deref(), zone.as_deref()).filter(|_| ready),
        hostname: common::hostname(pod, service),
        node_name: node,
        target_ref: Some(common::target_ref(pod)),
        zone,
        deprecated_topology: None,
    }
}

fn hints(service: &Service, node: Option<&str>, zone: Option<&str>) -> Option<EndpointHints> {
    let distribution = service.spec.as_ref()?.traffic_distribution.as_deref()?;
    let zones = zone.map(|zone| vec![ForZone { name: zone.to_string() }]);
    let hints = match distribution {
        "PreferClose" | "PreferSameZone" => EndpointHints { for_zones: zones, for_nodes: None },
        "PreferSameNode" => {
            EndpointHints { for_zones: zones, for_nodes: node.map(|node| vec![ForNode { name: node.to_string() }]) }
        }
        _ => return None,
    };
    (hints.for_zones.is_some() || hints.for_nodes.is_some()).then_some(hints)
}
