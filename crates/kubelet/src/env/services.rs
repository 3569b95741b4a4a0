//! The variables by which a container finds services without DNS. Pure.
//!
//! `KUBERNETES_*` always; those of the pod's own namespace unless `enableServiceLinks` is false.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};

/// Where the API server's own service lives.
const MASTER: (&str, &str) = ("default", "kubernetes");

/// Variables of every service that the pod is told of.
pub fn variables(pod: &Pod, services: &[Arc<Service>]) -> BTreeMap<String, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
    let mut out = BTreeMap::new();
    let mut wanted: Vec<&Service> = Vec::new();
    for service in services {
        let at = (
            service.metadata.namespace.as_deref().unwrap_or_default(),
            service.metadata.name.as_deref().unwrap_or_default(),
        );
        if (links && at.0 == namespace) || at == MASTER {
            wanted.push(service);
        }
    }
    // A service of the pod's own namespace wins over the API server's when the names meet.
    wanted.sort_by_key(|service| service.metadata.namespace.as_deref() == Some(namespace));
    for service in wanted {
        of_service(service, &mut out);
    }
    out
}

fn of_service(service: &Service, out: &mut BTreeMap<String, String>) -> Option<()> {
    let spec = service.spec.as_ref()?;
    let address = spec.cluster_ip.as_deref().filter(|address| !address.is_empty() && *address != "None")?;
    let name = variable_name(service.metadata.name.as_deref()?);
    let ports = spec.ports.as_deref().unwrap_or_default();
    let first = ports.first()?;
    out.insert(format!("{name}_SERVICE_HOST"), address.to_owned());
    out.insert(format!("{name}_SERVICE_PORT"), first.port.to_string());
    for port in ports {
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            out.insert(format!("{name}_SERVICE_PORT_{}", variable_name(port_name)), port.port.to_string());
        }
    }
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().filter(|protocol| !protocol.is_empty()).unwrap_or("TCP");
        let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
        if index == 0 {
            out.insert(format!("{name}_PORT"), url.clone());
        }
        out.insert(format!("{prefix}_PROTO"), protocol.to_lowercase());
        out.insert(format!("{prefix}_PORT"), port.port.to_string());
        out.insert(format!("{prefix}_ADDR"), address.to_owned());
        out.insert(prefix, url);
    }
    Some(())
}

fn variable_name(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}
