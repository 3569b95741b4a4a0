//! The objects every cluster has beside those the API server makes: the DNS service.
//!
//! Server-side applied at every start, since the address the DNS server is bound to may have changed.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

/// Points the `kube-dns` service at the DNS server of this node.
pub async fn dns_service(client: &kube::Client, cluster_ip: IpAddr, server: SocketAddr) -> Result<()> {
    let labels =
        json!({"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS", "kubernetes.io/cluster-service": "true"});
    let params = PatchParams::apply("knarr").force();
    let ports = [("dns", "UDP"), ("dns-tcp", "TCP")];
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": labels},
        "spec": {
            "clusterIP": cluster_ip.to_string(),
            "ports": ports.map(|(name, protocol)| json!({
                "name": name, "port": 53, "protocol": protocol, "targetPort": server.port(),
            })),
        },
    });
    Api::<Service>::namespaced(client.clone(), "kube-system")
        .patch("kube-dns", &params, &Patch::Apply(&service))
        .await
        .context("cannot make the kube-dns service")?;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "kube-dns", "namespace": "kube-system",
            "labels": {
                "kubernetes.io/service-name": "kube-dns",
                "endpointslice.kubernetes.io/managed-by": "knarr",
            },
        },
        "addressType": if server.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [server.ip().to_string()], "conditions": {"ready": true}}],
        "ports": ports.map(|(name, protocol)| json!({"name": name, "port": server.port(), "protocol": protocol})),
    });
    Api::<EndpointSlice>::namespaced(client.clone(), "kube-system")
        .patch("kube-dns", &params, &Patch::Apply(&slice))
        .await
        .context("cannot point the kube-dns service at the DNS server")?;
    Ok(())
}
