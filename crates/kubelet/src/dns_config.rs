//! The resolver configuration of a pod: what its /etc/resolv.conf will say.
//!
//! Reads the pod's `dnsPolicy` and `dnsConfig`, the cluster's DNS address and the host's resolver file; `plan` is pure.
//! Invariant: at most 3 name servers and 32 search domains, what resolvers take.

use std::net::IpAddr;

use cri::v1::DnsConfig;
use k8s_openapi::api::core::v1::Pod;

use crate::spec;

const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;

/// A resolver file's content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolver {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

/// Reads `resolv.conf` text. The last `search` line counts.
pub fn parse(text: &str) -> Resolver {
    let mut resolver = Resolver::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => resolver.servers.extend(words.next().map(str::to_string)),
            Some("search" | "domain") => resolver.searches = words.map(str::to_string).collect(),
            Some("options") => resolver.options = words.map(str::to_string).collect(),
            _ => {}
        }
    }
    resolver
}

/// The cluster's part: its DNS servers and domain.
#[derive(Debug, Clone, Default)]
pub struct ClusterDns<'a> {
    pub servers: &'a [IpAddr],
    pub domain: &'a str,
}

/// The pod's resolver configuration; the flag says that cluster DNS was asked for but there is none.
pub fn plan(pod: &Pod, cluster: &ClusterDns<'_>, host: &Resolver) -> (DnsConfig, bool) {
    let spec = spec::spec(pod);
    let policy = match spec.dns_policy.as_deref() {
        // on the node's network, cluster DNS must be asked for by name
        Some("ClusterFirst") | None if spec::host_network(pod) => "Default",
        Some("ClusterFirstWithHostNet" | "ClusterFirst") | None => "ClusterFirst",
        Some(other) => other,
    };
    let missing = policy == "ClusterFirst" && cluster.servers.is_empty();
    let mut resolver = match policy {
        "None" => Resolver::default(),
        "ClusterFirst" if !missing => Resolver {
            servers: cluster.servers.iter().map(ToString::to_string).collect(),
            searches: searches(spec::namespace(pod), cluster.domain, &host.searches),
            options: vec!["ndots:5".to_string()],
        },
        _ => host.clone(),
    };
    if let Some(own) = &spec.dns_config {
        extend(&mut resolver.servers, own.nameservers.iter().flatten());
        extend(&mut resolver.searches, own.searches.iter().flatten());
        for option in own.options.iter().flatten() {
            let Some(name) = option.name.as_deref() else { continue };
            let text = match option.value.as_deref() {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name.to_string(),
            };
            resolver.options.retain(|known| known.split(':').next() != Some(name));
            resolver.options.push(text);
        }
    }
    resolver.servers.truncate(MAX_SERVERS);
    resolver.searches.truncate(MAX_SEARCHES);
    let config = DnsConfig { servers: resolver.servers, searches: resolver.searches, options: resolver.options };
    (config, missing)
}

fn searches(namespace: &str, domain: &str, host: &[String]) -> Vec<String> {
    let mut list = if domain.is_empty() {
        Vec::new()
    } else {
        vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_string()]
    };
    extend(&mut list, host.iter());
    list
}

fn extend<'a>(list: &mut Vec<String>, more: impl Iterator<Item = &'a String>) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn policies() {
        let servers = ["10.96.0.10".parse().expect("ip")];
        let cluster = ClusterDns { servers: &servers, domain: "cluster.local" };
        let host = parse("# me\nnameserver 192.0.2.53\nsearch corp.example\noptions edns0\n");
        let show = |spec: serde_json::Value| {
            let pod: Pod = serde_json::from_value(json!({"metadata": {"namespace": "n"}, "spec": spec})).expect("pod");
            let (config, missing) = plan(&pod, &cluster, &host);
            format!(
                "{} | {} | {} {missing}",
                config.servers.join(" "),
                config.searches.join(" "),
                config.options.join(" ")
            )
        };
        let cluster_first =
            "10.96.0.10 | n.svc.cluster.local svc.cluster.local cluster.local corp.example | ndots:5 false";
        assert_eq!(show(json!({"containers": []})), cluster_first);
        assert_eq!(show(json!({"containers": [], "hostNetwork": true})), "192.0.2.53 | corp.example | edns0 false");
        let with_host = json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"});
        assert_eq!(show(with_host), cluster_first);
        let none = json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"],
            "searches": ["a"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}});
        assert_eq!(show(none), "1.1.1.1 | a | ndots:2 edns0 false");
    }
}
