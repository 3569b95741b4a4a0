//! What EndpointSlices and Endpoints have in common: which pods back a service, and on which ports.
//! Reads and writes nothing. Invariant: pure; a finished pod or one without an address never backs anything.

use std::net::IpAddr;

use client::{Event, Informer, Key};
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::context::wanting;
use crate::{pod, selector};

pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const HEADLESS: &str = "service.kubernetes.io/headless";
pub const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The address families of a service, as EndpointSlice writes them.
pub fn families(service: &Service) -> Vec<&'static str> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let named: Vec<&'static str> = spec
        .ip_families
        .iter()
        .flatten()
        .filter_map(|family| match family.as_str() {
            "IPv4" => Some("IPv4"),
            "IPv6" => Some("IPv6"),
            _ => None,
        })
        .collect();
    if !named.is_empty() {
        return named;
    }
    let v6 = spec.cluster_ip.as_deref().is_some_and(|address| address.contains(':'));
    vec![if v6 { "IPv6" } else { "IPv4" }]
}

pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// Whether a controller keeps endpoints for this service: it has a selector, and an address to stand for.
pub fn is_selecting(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| {
        spec.selector.as_ref().is_some_and(|selector| !selector.is_empty())
            && spec.type_.as_deref() != Some("ExternalName")
    })
}

/// The pod's address of a family.
pub fn address<'a>(pod: &'a Pod, family: &str) -> Option<&'a str> {
    let status = pod.status.as_ref()?;
    let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let fits = |text: &&str| match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => family == "IPv4",
        Ok(IpAddr::V6(_)) => family == "IPv6",
        Err(_) => false,
    };
    listed.chain(status.pod_ip.as_deref()).find(fits)
}

pub fn has_address(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| {
        status.pod_ips.as_ref().is_some_and(|ips| !ips.is_empty())
            || status.pod_ip.as_ref().is_some_and(|ip| !ip.is_empty())
    })
}

pub fn can_back(pod: &Pod) -> bool {
    !pod::is_finished(pod) && has_address(pod)
}

/// The port number a service port means on this pod; None if the pod has no port of the name.
pub fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => Some(port.port),
        Some(IntOrString::String(name)) => named_port(pod, name, protocol(port.protocol.as_deref())),
    }
}

fn named_port(pod: &Pod, name: &str, wanted: &str) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    let sidecars =
        spec.init_containers.iter().flatten().filter(|container| container.restart_policy.as_deref() == Some("Always"));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .find(|port| port.name.as_deref() == Some(name) && protocol(port.protocol.as_deref()) == wanted)
        .map(|port| port.container_port)
}

pub fn protocol(protocol: Option<&str>) -> &str {
    protocol.filter(|text| !text.is_empty()).unwrap_or("TCP")
}

/// The host name a pod gets in DNS through this service.
pub fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let same = spec.subdomain == service.metadata.name && pod.metadata.namespace == service.metadata.namespace;
    spec.hostname.clone().filter(|hostname| !hostname.is_empty() && same)
}

pub fn target_ref(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_string()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The services whose endpoints an event of a pod changes.
pub fn affected(event: &Event<Pod>, services: &Informer<Service>) -> Vec<Key> {
    if let Event::Modified { old, new } = event
        && old.metadata.labels == new.metadata.labels
        && facts(old) == facts(new)
    {
        return Vec::new();
    }
    wanting(event, services, |service, labels| {
        let chosen = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        chosen.is_some_and(|chosen| !chosen.is_empty() && selector::matches_map(chosen, labels))
    })
}

/// All of a pod that its endpoints show.
fn facts(pod: &Pod) -> impl PartialEq + '_ {
    let spec = pod.spec.as_ref();
    (
        pod.status.as_ref().map(|status| (&status.pod_ip, &status.pod_ips)),
        (pod::is_ready(pod), pod::is_finished(pod), pod::is_deleting(pod)),
        spec.map(|spec| (&spec.node_name, &spec.hostname, &spec.subdomain)),
    )
}
