//! Endpoints and the records made of them. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use hickory_server::proto::rr::rdata::{A, AAAA, SRV};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::discovery::v1::{Endpoint as SliceEndpoint, EndpointSlice};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub name: String,
    /// In lower case.
    pub protocol: String,
    pub number: u16,
}

impl Port {
    pub fn new(name: Option<&str>, protocol: Option<&str>, number: i32) -> Option<Self> {
        let protocol = protocol.filter(|text| !text.is_empty()).unwrap_or("TCP").to_lowercase();
        Some(Self { name: name.unwrap_or_default().to_owned(), protocol, number: u16::try_from(number).ok()? })
    }
}

/// A ready endpoint of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub ip: IpAddr,
    /// Its own name below the service's: the pod's hostname, or the address with dashes.
    pub host: String,
    pub ports: Vec<Port>,
}

/// The ready endpoints, each address once, sorted. Ports of one service may be spread over slices: they are joined.
pub fn endpoints(slices: &[Arc<EndpointSlice>]) -> Vec<Endpoint> {
    let mut all: BTreeMap<IpAddr, Endpoint> = BTreeMap::new();
    for slice in slices {
        let ports: Vec<Port> = slice
            .ports
            .iter()
            .flatten()
            .filter_map(|port| Port::new(port.name.as_deref(), port.protocol.as_deref(), port.port?))
            .collect();
        for endpoint in slice.endpoints.iter().flatten().filter(|endpoint| is_ready(endpoint)) {
            let Some(ip) = endpoint.addresses.first().and_then(|text| text.parse().ok()) else { continue };
            let new = || Endpoint { ip, host: host(endpoint, ip), ports: Vec::new() };
            let known = all.entry(ip).or_insert_with(new);
            for port in &ports {
                if !known.ports.contains(port) {
                    known.ports.push(port.clone());
                }
            }
        }
    }
    all.into_values().collect()
}

/// The name of the slice's ready endpoint at `ip`.
pub fn endpoint_host(slice: &EndpointSlice, ip: IpAddr) -> Option<String> {
    let mut ready = slice.endpoints.iter().flatten().filter(|endpoint| is_ready(endpoint));
    let found = ready.find(|endpoint| endpoint.addresses.iter().any(|text| text.parse::<IpAddr>() == Ok(ip)))?;
    Some(host(found, ip))
}

fn is_ready(endpoint: &SliceEndpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false)
}

fn host(endpoint: &SliceEndpoint, ip: IpAddr) -> String {
    let named = endpoint.hostname.clone().filter(|name| !name.is_empty());
    named.unwrap_or_else(|| ip.to_string().replace(['.', ':'], "-"))
}

/// A and AAAA records, as far as `kind` wants them.
pub fn addresses(name: &Name, ttl_s: u32, kind: RecordType, ips: &[IpAddr]) -> Vec<Record> {
    let wants = |own: RecordType| kind == own || kind == RecordType::ANY;
    let data = ips.iter().filter_map(|ip| match ip {
        IpAddr::V4(ip) if wants(RecordType::A) => Some(RData::A(A(*ip))),
        IpAddr::V6(ip) if wants(RecordType::AAAA) => Some(RData::AAAA(AAAA(*ip))),
        _ => None,
    });
    data.map(|data| Record::from_rdata(name.clone(), ttl_s, data)).collect()
}

/// An SRV record; all have the same priority.
pub fn srv(name: &Name, ttl_s: u32, weight: u16, port: u16, target: Name) -> Record {
    Record::from_rdata(name.clone(), ttl_s, RData::SRV(SRV::new(0, weight, port, target)))
}

/// Whether a port is the one asked for; without a question, every port is.
pub fn port_matches(port: &Port, wanted: Option<(&str, &str)>) -> bool {
    wanted.is_none_or(|(name, protocol)| port.name.eq_ignore_ascii_case(name) && port.protocol == protocol)
}
