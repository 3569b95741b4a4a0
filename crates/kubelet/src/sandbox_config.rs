//! The sandbox configuration of a pod for CRI. Pure.
//!
//! Invariant: the same pod, attempt and addresses give the same configuration: containers made later are told it again.

use std::path::Path;

use cri::v1::{
    DnsConfig, LinuxContainerResources, LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxMetadata, PortMapping,
    Protocol,
};
use k8s_openapi::api::core::v1::{ContainerPort, Pod};

use crate::resources::{self, PodLimits};
use crate::{hosts_file, labels, security, spec};

/// What a sandbox configuration is made from, besides the pod.
pub struct Inputs<'a> {
    pub owner: &'a str,
    pub attempt: u32,
    pub dns: DnsConfig,
    pub cluster_domain: &'a str,
    pub log_dir: &'a Path,
    pub cgroup_parent: String,
}

pub fn plan(pod: &Pod, inputs: Inputs<'_>) -> PodSandboxConfig {
    let spec = spec::spec(pod);
    let host_network = spec::host_network(pod);
    let hostname = if host_network {
        String::new()
    } else {
        let (short, full) = hosts_file::names(pod, inputs.cluster_domain);
        full.filter(|_| spec.set_hostname_as_fqdn == Some(true)).unwrap_or(short)
    };
    let sysctls = spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    let linux = LinuxPodSandboxConfig {
        cgroup_parent: inputs.cgroup_parent,
        security_context: Some(security::for_sandbox(pod)),
        sysctls: sysctls.map(|sysctl| (sysctl.name.replace('/', "."), sysctl.value.clone())).collect(),
        overhead: None,
        resources: Some(as_cri(resources::for_pod(pod))),
    };
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: spec::name(pod).to_string(),
            uid: spec::uid(pod).to_string(),
            namespace: spec::namespace(pod).to_string(),
            attempt: inputs.attempt,
        }),
        hostname,
        log_directory: inputs.log_dir.display().to_string(),
        dns_config: Some(inputs.dns),
        port_mappings: ports(pod, host_network),
        labels: labels::for_sandbox(pod, inputs.owner),
        annotations: annotations(pod),
        linux: Some(linux),
        windows: None,
    }
}

fn as_cri(limits: PodLimits) -> LinuxContainerResources {
    LinuxContainerResources {
        cpu_period: resources::CPU_PERIOD_US,
        cpu_quota: limits.cpu_quota_us,
        cpu_shares: limits.cpu_shares,
        memory_limit_in_bytes: limits.memory_bytes,
        ..LinuxContainerResources::default()
    }
}

fn annotations(pod: &Pod) -> std::collections::BTreeMap<String, String> {
    let mut annotations = pod.metadata.annotations.clone().unwrap_or_default();
    // may be as large as an object, and is of no use to a runtime
    annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    annotations.insert(labels::CONFIG_SOURCE.to_string(), "api".to_string());
    if let Some(created) = &pod.metadata.creation_timestamp {
        annotations.insert(labels::CONFIG_SEEN.to_string(), created.0.to_string());
    }
    annotations
}

/// Ports to publish on the host; with the node's network they are there already.
fn ports(pod: &Pod, host_network: bool) -> Vec<PortMapping> {
    if host_network {
        return Vec::new();
    }
    let slots = spec::containers(pod);
    let all = slots.iter().flat_map(|slot| slot.container.ports.iter().flatten());
    all.filter(|port| port.host_port.is_some_and(|number| number > 0)).map(mapping).collect()
}

fn mapping(port: &ContainerPort) -> PortMapping {
    let protocol = match port.protocol.as_deref() {
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        _ => Protocol::Tcp,
    };
    PortMapping {
        protocol: protocol as i32,
        container_port: port.container_port,
        host_port: port.host_port.unwrap_or(0),
        host_ip: port.host_ip.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_ports_and_sysctls() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {
            "securityContext": {"sysctls": [{"name": "net.ipv4.ip_forward", "value": "1"}]},
            "hostname": "h", "subdomain": "s", "setHostnameAsFQDN": true,
            "containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]}]}}))
            .expect("pod");
        let inputs = Inputs {
            owner: "me",
            attempt: 2,
            dns: DnsConfig::default(),
            cluster_domain: "cluster.local",
            log_dir: Path::new("/logs/n_p_u"),
            cgroup_parent: "/kubepods/podu".to_string(),
        };
        let config = plan(&pod, inputs);
        assert_eq!(config.hostname, "h.s.n.svc.cluster.local");
        assert_eq!(config.log_directory, "/logs/n_p_u");
        assert_eq!(config.port_mappings.len(), 1);
        assert_eq!((config.port_mappings[0].container_port, config.port_mappings[0].host_port), (80, 8080));
        let linux = config.linux.expect("linux");
        assert_eq!(linux.sysctls["net.ipv4.ip_forward"], "1");
        assert_eq!(config.labels["io.kubernetes.pod.uid"], "u");
    }
}
