//! One question, one outcome: the Kubernetes DNS specification as a pure function over a [`Zone`].
//!
//! Error or absence is told apart as the specification and RFC 2308 do: a name that exists without records of the type
//! is [`Outcome::Empty`], one that does not exist is [`Outcome::Missing`], one outside the cluster [`Outcome::NotOurs`].

mod records;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_server::proto::rr::rdata::{CNAME, NS, PTR, SOA, TXT};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::Service;

pub use crate::zone::Zone;
use crate::zone::{SERVICE_NAME, service_ips};
use records::{Endpoint, Port, addresses, endpoint_host, endpoints, port_matches, srv};

/// The specification this follows, as `dns-version` says it.
const VERSION: &str = "1.1.0";

/// What does not come from the API server.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Lower case, fully qualified.
    pub domain: Name,
    pub ttl_s: u32,
    pub service_ips: Vec<IpAddr>,
}

/// What there is to say about a question.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Found {
        answers: Vec<Record>,
        additionals: Vec<Record>,
    },
    /// Another name has the answer.
    Alias {
        answer: Box<Record>,
        target: Name,
    },
    /// The name exists, with nothing of this type.
    Empty,
    /// There is no such name.
    Missing,
    /// Somebody else's name.
    NotOurs,
}

impl Outcome {
    fn found(answers: Vec<Record>) -> Self {
        if answers.is_empty() { Outcome::Empty } else { Outcome::Found { answers, additionals: Vec::new() } }
    }
}

/// A question under consideration.
struct Ask<'a> {
    settings: &'a Settings,
    zone: &'a dyn Zone,
    /// As asked, so that answers keep the asker's letters.
    name: &'a Name,
    kind: RecordType,
}

/// Answers one question.
pub fn answer(zone: &dyn Zone, settings: &Settings, name: &Name, kind: RecordType) -> Outcome {
    let ask = Ask { settings, zone, name, kind };
    let labels: Vec<String> = name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    if let [.., "in-addr" | "ip6", "arpa"] = labels.as_slice() {
        return ask.reverse(&labels);
    }
    let domain = settings.domain.num_labels() as usize;
    if labels.len() < domain || !settings.domain.zone_of(name) {
        return Outcome::NotOurs;
    }
    match &labels[..labels.len() - domain] {
        [] => ask.apex(),
        ["dns-version"] => ask.only(RecordType::TXT, vec![RData::TXT(TXT::new(vec![VERSION.to_owned()]))]),
        ["dns"] => Outcome::Empty,
        ["ns", "dns"] => ask.ips(&settings.service_ips),
        [below @ .., "svc"] => ask.service_name(below),
        [below @ .., "pod"] => ask.pod_name(below),
        _ => Outcome::Missing,
    }
}

/// The record that goes with `Empty` and `Missing`.
pub fn authority(settings: &Settings, serial: u32) -> Record {
    let name = |prefix: &str| under(prefix, &settings.domain);
    let soa = SOA::new(name("ns.dns"), name("hostmaster"), serial, 7200, 1800, 86400, settings.ttl_s);
    Record::from_rdata(settings.domain.clone(), settings.ttl_s, RData::SOA(soa))
}

fn under(prefix: &str, domain: &Name) -> Name {
    let relative = Name::from_ascii(prefix).and_then(|name| name.append_domain(domain));
    // Too long or odd a name cannot be asked for either.
    relative.unwrap_or_else(|_| domain.clone())
}

impl Ask<'_> {
    fn record(&self, data: RData) -> Record {
        Record::from_rdata(self.name.clone(), self.settings.ttl_s, data)
    }

    fn wants(&self, kind: RecordType) -> bool {
        self.kind == kind || self.kind == RecordType::ANY
    }

    fn only(&self, kind: RecordType, data: Vec<RData>) -> Outcome {
        let wanted = data.into_iter().filter(|_| self.wants(kind));
        Outcome::found(wanted.map(|data| self.record(data)).collect())
    }

    fn ips(&self, ips: &[IpAddr]) -> Outcome {
        Outcome::found(addresses(self.name, self.settings.ttl_s, self.kind, ips))
    }

    fn apex(&self) -> Outcome {
        match self.kind {
            RecordType::SOA | RecordType::ANY => Outcome::found(vec![authority(self.settings, 1)]),
            RecordType::NS => self.only(RecordType::NS, vec![RData::NS(NS(under("ns.dns", &self.settings.domain)))]),
            _ => Outcome::Empty,
        }
    }

    fn service_name(&self, below: &[&str]) -> Outcome {
        match below {
            [] => Outcome::Empty,
            [namespace] => self.namespace(namespace),
            [name, namespace] => self.with_service(namespace, name, |service| self.service(service, namespace, name)),
            [protocol, name, namespace] if protocol.starts_with('_') => self.with_service(namespace, name, |service| {
                let ports = self.service_ports(service, namespace, name);
                let known = ports.iter().any(|port| port.protocol == protocol[1..]);
                if known { Outcome::Empty } else { Outcome::Missing }
            }),
            [host, name, namespace] => self.with_service(namespace, name, |_| self.endpoint(namespace, name, host)),
            [port, protocol, name, namespace] if port.starts_with('_') && protocol.starts_with('_') => {
                let wanted = Some((&port[1..], &protocol[1..]));
                self.with_service(namespace, name, |service| self.ports(service, namespace, name, wanted))
            }
            _ => Outcome::Missing,
        }
    }

    fn with_service(&self, namespace: &str, name: &str, then: impl FnOnce(&Service) -> Outcome) -> Outcome {
        self.zone.service(namespace, name).map_or(Outcome::Missing, |service| then(&service))
    }

    fn namespace(&self, name: &str) -> Outcome {
        if self.zone.has_namespace(name) { Outcome::Empty } else { Outcome::Missing }
    }

    fn service(&self, service: &Service, namespace: &str, name: &str) -> Outcome {
        if let Some(target) = external_name(service) {
            let data = RData::CNAME(CNAME(target.clone()));
            return Outcome::Alias { answer: Box::new(self.record(data)), target };
        }
        if self.kind == RecordType::SRV {
            return self.ports(service, namespace, name, None);
        }
        let ips: Vec<IpAddr> = if is_headless(service) {
            self.endpoints(namespace, name).iter().map(|endpoint| endpoint.ip).collect()
        } else {
            service_ips(service)
        };
        // A headless service without ready endpoints is no name: specification, 2.4.1.
        if ips.is_empty() { Outcome::Missing } else { self.ips(&ips) }
    }

    fn endpoints(&self, namespace: &str, name: &str) -> Vec<Endpoint> {
        endpoints(&self.zone.slices(namespace, name))
    }

    fn endpoint(&self, namespace: &str, name: &str, host: &str) -> Outcome {
        let all = self.endpoints(namespace, name);
        let ips: Vec<IpAddr> =
            all.iter().filter(|endpoint| endpoint.host == host).map(|endpoint| endpoint.ip).collect();
        if ips.is_empty() { Outcome::Missing } else { self.ips(&ips) }
    }

    fn service_ports(&self, service: &Service, namespace: &str, name: &str) -> Vec<Port> {
        if is_headless(service) {
            return self.endpoints(namespace, name).into_iter().flat_map(|endpoint| endpoint.ports).collect();
        }
        let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
        ports.filter_map(|port| Port::new(port.name.as_deref(), port.protocol.as_deref(), port.port)).collect()
    }

    fn ports(&self, service: &Service, namespace: &str, name: &str, wanted: Option<(&str, &str)>) -> Outcome {
        let ttl_s = self.settings.ttl_s;
        // Where each port is reached: (port, host, addresses of the host).
        let mut places: Vec<(u16, Name, Vec<IpAddr>)> = Vec::new();
        if is_headless(service) {
            for endpoint in self.endpoints(namespace, name) {
                let host = under(&format!("{}.{name}.{namespace}.svc", endpoint.host), &self.settings.domain);
                let ports = endpoint.ports.iter().filter(|port| port_matches(port, wanted));
                places.extend(ports.map(|port| (port.number, host.clone(), vec![endpoint.ip])));
            }
        } else {
            let host = under(&format!("{name}.{namespace}.svc"), &self.settings.domain);
            let ports = self.service_ports(service, namespace, name);
            let ports = ports.iter().filter(|port| port_matches(port, wanted));
            places.extend(ports.map(|port| (port.number, host.clone(), service_ips(service))));
        }
        if places.is_empty() {
            // Without a question for one port, the name is the service's own and exists.
            return if wanted.is_none() && !is_headless(service) { Outcome::Empty } else { Outcome::Missing };
        }
        if !self.wants(RecordType::SRV) {
            return Outcome::Empty;
        }
        let weight = u16::try_from(100 / places.len()).unwrap_or(1).max(1);
        let answers = places.iter().map(|(port, host, _)| srv(self.name, ttl_s, weight, *port, host.clone())).collect();
        let mut additionals: Vec<Record> = Vec::new();
        for (_, host, ips) in &places {
            for record in addresses(host, ttl_s, RecordType::ANY, ips) {
                if additionals.last().is_none_or(|last| *last != record) && !additionals.contains(&record) {
                    additionals.push(record);
                }
            }
        }
        Outcome::Found { answers, additionals }
    }

    fn pod_name(&self, below: &[&str]) -> Outcome {
        match below {
            [] => Outcome::Empty,
            [namespace] => self.namespace(namespace),
            [dashed, namespace] => match undash(dashed) {
                Some(ip) if self.zone.has_pod(namespace, ip) => self.ips(&[ip]),
                _ => Outcome::Missing,
            },
            _ => Outcome::Missing,
        }
    }

    fn reverse(&self, labels: &[&str]) -> Outcome {
        let Some(ip) = arpa(labels) else { return Outcome::NotOurs };
        let mut names = Vec::new();
        for service in self.zone.services_at(ip) {
            let meta = &service.metadata;
            let own = meta.name.as_deref().zip(meta.namespace.as_deref());
            names.extend(own.map(|(name, namespace)| format!("{name}.{namespace}.svc")));
        }
        if names.is_empty() {
            for slice in self.zone.slices_at(ip) {
                let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
                let labels = slice.metadata.labels.as_ref();
                let Some(name) = labels.and_then(|labels| labels.get(SERVICE_NAME)) else { continue };
                if self.zone.service(namespace, name).is_some_and(|service| is_headless(&service)) {
                    names.extend(endpoint_host(&slice, ip).map(|host| format!("{host}.{name}.{namespace}.svc")));
                }
            }
        }
        if names.is_empty() {
            return Outcome::NotOurs;
        }
        names.sort();
        names.dedup();
        let data = names.iter().map(|name| RData::PTR(PTR(under(name, &self.settings.domain))));
        self.only(RecordType::PTR, data.collect())
    }
}

fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.cluster_ip.as_deref() == Some("None"))
}

fn external_name(service: &Service) -> Option<Name> {
    let spec = service.spec.as_ref().filter(|spec| spec.type_.as_deref() == Some("ExternalName"))?;
    let text = spec.external_name.as_deref()?.trim_end_matches('.');
    Name::from_ascii(format!("{text}.")).ok().filter(|name| !name.is_root())
}

// 10-1-2-3 or fd00--1
fn undash(text: &str) -> Option<IpAddr> {
    let v4 = text.replace('-', ".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    v4.or_else(|| text.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::V6))
}

// 3.2.1.10.in-addr.arpa, or 32 nibbles before ip6.arpa
fn arpa(labels: &[&str]) -> Option<IpAddr> {
    let (digits, family) = labels.split_at(labels.len().checked_sub(2)?);
    match (digits, family[0]) {
        ([d, c, b, a], "in-addr") => format!("{a}.{b}.{c}.{d}").parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        (nibbles, "ip6") if nibbles.len() == 32 && nibbles.iter().all(|nibble| nibble.len() == 1) => {
            let text: String = nibbles.iter().rev().copied().collect();
            u128::from_str_radix(&text, 16).ok().map(|bits| IpAddr::V6(Ipv6Addr::from(bits)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
