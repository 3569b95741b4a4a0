//! What the answers are made of: look-ups by name and by address, answered from the informers' caches.
//!
//! Invariant: a look-up is an index access, never a walk over the cluster.

use std::net::IpAddr;
use std::sync::Arc;

use client::{Informer, Informers};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// The label that names an EndpointSlice's service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

const BY_IP: &str = "dns-ip";
const BY_SERVICE: &str = "dns-service";

/// The cluster, as DNS looks at it.
pub trait Zone: Send + Sync {
    fn has_namespace(&self, name: &str) -> bool;
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>>;
    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>>;
    /// Services that have the address as a cluster IP.
    fn services_at(&self, ip: IpAddr) -> Vec<Arc<Service>>;
    /// Slices with an endpoint at the address.
    fn slices_at(&self, ip: IpAddr) -> Vec<Arc<EndpointSlice>>;
    fn has_pod(&self, namespace: &str, ip: IpAddr) -> bool;
}

/// The zone behind shared informers. Cheap to clone.
#[derive(Clone)]
pub struct InformerZone {
    namespaces: Informer<Namespace>,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    pods: Informer<Pod>,
}

impl InformerZone {
    pub fn new(informers: &Informers) -> Self {
        let zone =
            Self { namespaces: informers.of(), services: informers.of(), slices: informers.of(), pods: informers.of() };
        zone.services.add_index(BY_IP, service_keys);
        zone.slices.add_index(BY_SERVICE, slice_service);
        zone.slices.add_index(BY_IP, slice_ips);
        zone.pods.add_index(BY_IP, pod_ips);
        zone
    }

    /// Waits until everything has been read once.
    pub async fn synced(&self) {
        self.namespaces.synced().await;
        self.services.synced().await;
        self.slices.synced().await;
        self.pods.synced().await;
    }
}

impl Zone for InformerZone {
    fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.get("", name).is_some()
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.services.get(namespace, name)
    }

    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        self.slices.by_index(BY_SERVICE, &format!("{namespace}/{service}"))
    }

    fn services_at(&self, ip: IpAddr) -> Vec<Arc<Service>> {
        self.services.by_index(BY_IP, &ip.to_string())
    }

    fn slices_at(&self, ip: IpAddr) -> Vec<Arc<EndpointSlice>> {
        self.slices.by_index(BY_IP, &ip.to_string())
    }

    fn has_pod(&self, namespace: &str, ip: IpAddr) -> bool {
        let pods = self.pods.by_index(BY_IP, &ip.to_string());
        pods.iter().any(|pod| pod.metadata.namespace.as_deref() == Some(namespace))
    }
}

/// All cluster IPs of a service; none for a headless one.
pub fn service_ips(service: &Service) -> Vec<IpAddr> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let listed = spec.cluster_ips.as_deref().unwrap_or_default();
    let listed = if listed.is_empty() { spec.cluster_ip.as_slice() } else { listed };
    listed.iter().filter_map(|text| text.parse().ok()).collect()
}

fn service_keys(service: &Service) -> Vec<String> {
    service_ips(service).iter().map(IpAddr::to_string).collect()
}

/// `namespace/name` of the slice's service.
pub fn slice_service(slice: &EndpointSlice) -> Vec<String> {
    let meta = &slice.metadata;
    let name = meta.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
    name.map(|name| format!("{}/{name}", meta.namespace.as_deref().unwrap_or_default())).into_iter().collect()
}

fn slice_ips(slice: &EndpointSlice) -> Vec<String> {
    let addresses = slice.endpoints.iter().flatten().flat_map(|endpoint| &endpoint.addresses);
    addresses.filter_map(|text| text.parse::<IpAddr>().ok()).map(|ip| ip.to_string()).collect()
}

fn pod_ips(pod: &Pod) -> Vec<String> {
    let Some(status) = &pod.status else { return Vec::new() };
    let addresses = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    addresses.filter_map(|text| text.parse::<IpAddr>().ok()).map(|ip| ip.to_string()).collect()
}
