//! The rules of one Service: which chains, sets and map elements it needs. The heart of the proxy, and pure.
//! Reads: a Service and its EndpointSlices. Invariant: the same input gives the same fragment, and fragments of different
//! Services share no chain; they may clash in a map element (two Services with one external IP), which `engine` settles.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::endpoints::{self, Endpoint, Usable};
use crate::rules::{Map, Rules};
use meta::cidr::Cidr;

/// What holds for every Service.
#[derive(Clone, Debug, Default)]
pub struct Context {
    pub node_name: String,
    pub pod_cidrs: Vec<Cidr>,
    pub masquerade_all: bool,
    pub v4: bool,
    pub v6: bool,
}

impl Context {
    /// The pod ranges of a family as an nft set, if any are known.
    pub fn pods(&self, v6: bool) -> Option<String> {
        let ranges: Vec<_> = self.pod_cidrs.iter().filter(|c| c.is_v6() == v6).map(ToString::to_string).collect();
        (!ranges.is_empty()).then(|| format!("{{ {} }}", ranges.join(", ")))
    }
}

/// One UDP way in, and the endpoints behind it: flows to others are stale.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UdpFront {
    Address(IpAddr, u16),
    NodePort(bool, u16),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    pub rules: Rules,
    pub udp: BTreeMap<UdpFront, BTreeSet<IpAddr>>,
}

/// Whether the proxy has anything to do with this Service.
fn wanted(service: &Service) -> bool {
    let labels = service.metadata.labels.as_ref();
    let labelled = |key: &str| labels.is_some_and(|l| l.contains_key(key));
    let spec = service.spec.as_ref();
    let kind = spec.and_then(|s| s.type_.as_deref()).unwrap_or("ClusterIP");
    let ip = spec.and_then(|s| s.cluster_ip.as_deref()).unwrap_or_default();
    kind != "ExternalName"
        && !ip.is_empty()
        && ip != "None"
        && !labelled("service.kubernetes.io/service-proxy-name")
        && !labelled("service.kubernetes.io/headless")
}

/// The rules for a Service; none for one that is headless, external, or another proxy's.
pub fn plan(context: &Context, service: &Service, slices: &[Arc<EndpointSlice>]) -> Fragment {
    let mut out = Fragment::default();
    let Some(spec) = service.spec.as_ref().filter(|_| wanted(service)) else { return out };
    let mut ips: Vec<IpAddr> = spec.cluster_ips.iter().flatten().filter_map(|ip| ip.parse().ok()).collect();
    if ips.is_empty() {
        ips.extend(spec.cluster_ip.as_ref().and_then(|ip| ip.parse::<IpAddr>().ok()));
    }
    for cluster_ip in ips {
        let v6 = cluster_ip.is_ipv6();
        if !(if v6 { context.v6 } else { context.v4 }) {
            continue;
        }
        out.rules.element(Map::ClusterIps(v6), cluster_ip.to_string(), "");
        for port in spec.ports.iter().flatten() {
            PortPlan::new(context, service, port, cluster_ip, slices).write(&mut out);
        }
    }
    out
}

/// A number that stays the same for the same text, to keep chain names short and apart (FNV-1a).
fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Longest chain name, in bytes; nft allows 255.
const NAME_MAX_BYTES: usize = 120;

fn chain_name(kind: &str, text: &str) -> String {
    let readable = text.replace(':', ".");
    let mut name = format!("{kind}-{:016x}-{readable}", digest(text));
    name.truncate(NAME_MAX_BYTES);
    name
}

/// Everything about one port of a Service in one address family.
struct PortPlan<'a> {
    context: &'a Context,
    cluster_ip: IpAddr,
    v6: bool,
    /// `ip` or `ip6`.
    family: &'static str,
    protocol: String,
    port: u16,
    node_port: u16,
    /// `namespace/name/protocol/port` with the family: part of every chain name.
    id: String,
    /// Seconds, when clients stick to an endpoint.
    affinity_s: Option<i64>,
    internal_local: bool,
    external_local: bool,
    external_ips: Vec<IpAddr>,
    balancer_ips: Vec<IpAddr>,
    source_ranges: Vec<Cidr>,
    usable: Usable,
}

impl<'a> PortPlan<'a> {
    fn new(
        context: &'a Context,
        service: &Service,
        port: &ServicePort,
        cluster_ip: IpAddr,
        slices: &[Arc<EndpointSlice>],
    ) -> Self {
        let empty = k8s_openapi::api::core::v1::ServiceSpec::default();
        let spec = service.spec.as_ref().unwrap_or(&empty);
        let v6 = cluster_ip.is_ipv6();
        let protocol = port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase();
        let name = port.name.as_deref().unwrap_or_default();
        let meta = &service.metadata;
        let id = format!(
            "{}/{}/{protocol}/{}{}",
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
            if name.is_empty() { port.port.to_string() } else { name.to_owned() },
            if v6 { "/6" } else { "" }
        );
        let same_family = |ip: &IpAddr| ip.is_ipv6() == v6;
        let ingress = service.status.as_ref().and_then(|s| s.load_balancer.as_ref()).and_then(|l| l.ingress.as_ref());
        let balancer_ips = ingress.into_iter().flatten().filter(|i| i.ip_mode.as_deref() != Some("Proxy"));
        let external_ips = spec.external_ips.iter().flatten().filter_map(|ip| ip.parse().ok());
        let ranges = spec.load_balancer_source_ranges.iter().flatten();
        let sticky = spec.session_affinity.as_deref() == Some("ClientIP");
        let timeout =
            spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref()).and_then(|c| c.timeout_seconds);
        Self {
            context,
            cluster_ip,
            v6,
            family: if v6 { "ip6" } else { "ip" },
            usable: endpoints::usable(slices, port.name.as_deref(), &protocol, v6, &context.node_name),
            protocol,
            port: u16::try_from(port.port).unwrap_or(0),
            node_port: port.node_port.and_then(|p| u16::try_from(p).ok()).unwrap_or(0),
            id,
            affinity_s: sticky.then(|| i64::from(timeout.unwrap_or(10_800))),
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
            external_ips: external_ips.filter(same_family).collect(),
            balancer_ips: balancer_ips.filter_map(|i| i.ip.as_ref()?.parse().ok()).filter(same_family).collect(),
            source_ranges: ranges.filter_map(|range| Cidr::parse(range.trim())).filter(|c| c.is_v6() == v6).collect(),
        }
    }

    fn address_key(&self, ip: &IpAddr) -> String {
        format!("{ip} . {} . {}", self.protocol, self.port)
    }

    fn node_port_key(&self) -> String {
        format!("{} . {}", self.protocol, self.node_port)
    }

    fn has_outside(&self) -> bool {
        self.node_port > 0 || !self.external_ips.is_empty() || !self.balancer_ips.is_empty()
    }

    fn write(&self, out: &mut Fragment) {
        if self.protocol != "tcp" && self.protocol != "udp" {
            tracing::warn!(service = self.id, "only TCP and UDP are served; this port is left out");
            return;
        }
        let all = (!self.usable.cluster.is_empty()).then(|| self.balance(out, "svc", &self.usable.cluster));
        let needs_local = self.internal_local || self.external_local && self.has_outside();
        let local =
            (needs_local && !self.usable.local.is_empty()).then(|| self.balance(out, "svl", &self.usable.local));
        self.write_inside(out, all.as_deref(), local.as_deref());
        if self.has_outside() {
            self.write_outside(out, all.as_deref(), local.as_deref());
        }
        if self.protocol == "udp" {
            self.note_udp(out);
        }
    }

    /// The cluster IP: to the balancing chain, or refused, or dropped when only a local endpoint would do.
    fn write_inside(&self, out: &mut Fragment, all: Option<&str>, local: Option<&str>) {
        let key = self.address_key(&self.cluster_ip);
        match (if self.internal_local { local } else { all }, all) {
            (Some(chain), _) => out.rules.element(Map::Services(self.v6), key, &format!("goto {chain}")),
            (None, Some(_)) => out.rules.element(Map::Refused(self.v6), key, "drop"),
            (None, None) => out.rules.element(Map::Refused(self.v6), key, "goto refuse"),
        }
    }

    /// Ways in from outside: node port, external IPs, load balancer IPs.
    fn write_outside(&self, out: &mut Fragment, all: Option<&str>, local: Option<&str>) {
        if let Some(all) = all {
            let chain = chain_name("ext", &self.id);
            out.rules.chains.insert(chain.clone(), self.outside_rules(all, local));
            let goto = format!("goto {chain}");
            for ip in &self.external_ips {
                out.rules.element(Map::Services(self.v6), self.address_key(ip), &goto);
            }
            let balancer = self.firewall(out, &chain).map_or_else(|| goto.clone(), |fw| format!("goto {fw}"));
            for ip in &self.balancer_ips {
                out.rules.element(Map::Services(self.v6), self.address_key(ip), &balancer);
            }
            if self.node_port > 0 {
                out.rules.element(Map::NodePorts(self.v6), self.node_port_key(), &goto);
            }
        }
        // What the chains above did not send anywhere.
        let refusal = match all {
            None => "goto refuse",
            Some(_) if self.external_local && local.is_none() => "drop",
            Some(_) => return,
        };
        for ip in self.external_ips.iter().chain(&self.balancer_ips) {
            out.rules.element(Map::Refused(self.v6), self.address_key(ip), refusal);
        }
        if self.node_port > 0 {
            out.rules.element(Map::RefusedPorts(self.v6), self.node_port_key(), refusal);
        }
    }

    fn outside_rules(&self, all: &str, local: Option<&str>) -> Vec<String> {
        if !self.external_local {
            return vec!["jump mark_masquerade".to_owned(), format!("goto {all}")];
        }
        // Traffic that starts in a pod or on this node may use every endpoint, as upstream short-circuits it.
        let mut rules = Vec::new();
        if let Some(pods) = self.context.pods(self.v6) {
            rules.push(format!("{} saddr {pods} goto {all}", self.family));
        }
        rules.push("fib saddr type local jump mark_masquerade".to_owned());
        rules.push(format!("fib saddr type local goto {all}"));
        rules.extend(local.map(|l| format!("goto {l}")));
        rules
    }

    /// loadBalancerSourceRanges: a chain that lets only these sources through.
    fn firewall(&self, out: &mut Fragment, outside: &str) -> Option<String> {
        if self.source_ranges.is_empty() || self.balancer_ips.is_empty() {
            return None;
        }
        let ranges: Vec<_> = self.source_ranges.iter().map(ToString::to_string).collect();
        let own: Vec<_> = self.balancer_ips.iter().map(ToString::to_string).collect();
        let name = chain_name("fw", &self.id);
        let rules = vec![
            format!("{} saddr {{ {} }} goto {outside}", self.family, ranges.join(", ")),
            // A node reaching its own balancer address comes from that address.
            format!("{} saddr {{ {} }} goto {outside}", self.family, own.join(", ")),
            "drop".to_owned(),
        ];
        out.rules.chains.insert(name.clone(), rules);
        Some(name)
    }

    /// A chain that spreads connections over endpoints, with a chain for each; returns its name.
    fn balance(&self, out: &mut Fragment, kind: &str, endpoints: &[Endpoint]) -> String {
        let name = chain_name(kind, &self.id);
        let mut rules = Vec::new();
        let to_cluster_ip = format!("{} daddr {}", self.family, self.cluster_ip);
        if self.context.masquerade_all {
            rules.push(format!("{to_cluster_ip} jump mark_masquerade"));
        } else if let Some(pods) = self.context.pods(self.v6) {
            rules.push(format!("{to_cluster_ip} {} saddr != {pods} jump mark_masquerade", self.family));
        }
        let chains: Vec<_> = endpoints.iter().map(|e| self.endpoint(out, e)).collect();
        if self.affinity_s.is_some() {
            rules.extend(chains.iter().map(|(c, set)| format!("{} saddr @{set} goto {c}", self.family)));
        }
        rules.push(match &chains[..] {
            [(only, _)] => format!("goto {only}"),
            many => {
                let targets: Vec<_> = many.iter().enumerate().map(|(i, (c, _))| format!("{i} : goto {c}")).collect();
                format!("numgen random mod {} vmap {{ {} }}", many.len(), targets.join(", "))
            }
        });
        out.rules.chains.insert(name.clone(), rules);
        name
    }

    /// The chain of one endpoint, and the set of clients that stick to it.
    fn endpoint(&self, out: &mut Fragment, endpoint: &Endpoint) -> (String, String) {
        let id = format!("{}__{}/{}", self.id, endpoint.ip, endpoint.port);
        let (name, set) = (chain_name("ep", &id), format!("aff-{:016x}", digest(&id)));
        let mut rules = vec![format!("{} saddr {} jump mark_masquerade", self.family, endpoint.ip)];
        if let Some(timeout) = self.affinity_s {
            let kind = if self.v6 { "ipv6_addr" } else { "ipv4_addr" };
            let spec = format!("type {kind}; flags dynamic,timeout; timeout {timeout}s;");
            out.rules.sets.insert(set.clone(), spec);
            rules.push(format!("update @{set} {{ {} saddr }}", self.family));
        }
        let target = if self.v6 {
            format!("[{}]:{}", endpoint.ip, endpoint.port)
        } else {
            format!("{}:{}", endpoint.ip, endpoint.port)
        };
        rules.push(format!("meta l4proto {} dnat {} to {target}", self.protocol, self.family));
        out.rules.chains.insert(name.clone(), rules);
        (name, set)
    }

    fn note_udp(&self, out: &mut Fragment) {
        let targets: BTreeSet<_> = self.usable.cluster.iter().chain(&self.usable.local).map(|e| e.ip).collect();
        let addresses = std::iter::once(&self.cluster_ip).chain(&self.external_ips).chain(&self.balancer_ips);
        for ip in addresses {
            out.udp.insert(UdpFront::Address(*ip, self.port), targets.clone());
        }
        if self.node_port > 0 {
            out.udp.insert(UdpFront::NodePort(self.v6, self.node_port), targets);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"{"metadata":{},"addressType":"IPv4","ports":[{"name":"http","port":8080,"protocol":"TCP"}],"endpoints":[
        {"addresses":["10.42.0.5"],"nodeName":"here","conditions":{"ready":true}},
        {"addresses":["10.42.1.6"],"nodeName":"there","conditions":{"ready":true}},
        {"addresses":["10.42.1.7"],"nodeName":"there","conditions":{"ready":false}}]}"#;
    const V6: &str = r#"{"metadata":{},"addressType":"IPv6","ports":[{"name":"","port":5353,"protocol":"UDP"}],"endpoints":[{"addresses":["fd42::5"]}]}"#;

    #[test]
    fn services() {
        let context = Context {
            node_name: "here".to_owned(),
            pod_cidrs: vec!["10.42.0.0/16".parse().unwrap(), "fd42::/64".parse().unwrap()],
            masquerade_all: false,
            v4: true,
            v6: true,
        };
        golden::check!("fragment/services.txt", |case| {
            let (service, slices) = case.rsplit_once(' ').unwrap();
            let slices = match slices {
                "two" => vec![TWO.to_owned()],
                "elsewhere" => vec![TWO.replace("\"here\"", "\"there\"")],
                "v6" => vec![V6.to_owned()],
                _ => vec![],
            };
            let slices: Vec<_> = slices.iter().map(|s| Arc::new(serde_json::from_str(s).unwrap())).collect();
            plan(&context, &serde_json::from_str(service).unwrap(), &slices).rules.to_string()
        });
    }

    #[test]
    fn services_that_are_not_ours() {
        for service in [
            r#"{"metadata":{},"spec":{"clusterIP":"None","ports":[{"port":80}]}}"#,
            r#"{"metadata":{},"spec":{"type":"ExternalName","externalName":"x"}}"#,
            r#"{"metadata":{"labels":{"service.kubernetes.io/service-proxy-name":"other"}},"spec":{"clusterIP":"10.96.0.9","ports":[{"port":80}]}}"#,
            r#"{"metadata":{},"spec":{"clusterIP":"10.96.0.9","ports":[]}}"#,
        ] {
            let fragment =
                plan(&Context { v4: true, ..Context::default() }, &serde_json::from_str(service).unwrap(), &[]);
            assert!(fragment.rules.chains.is_empty() && fragment.udp.is_empty(), "{service}");
        }
    }
}
