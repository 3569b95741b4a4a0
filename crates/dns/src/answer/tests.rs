//! A cluster in a few lines of JSON and a file of questions.

use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::*;

#[derive(Default)]
struct Fake {
    services: Vec<Arc<Service>>,
    slices: Vec<Arc<EndpointSlice>>,
}

impl Zone for Fake {
    fn has_namespace(&self, name: &str) -> bool {
        ["default", "empty"].contains(&name)
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        let at = (Some(namespace), Some(name));
        self.services
            .iter()
            .find(|service| (service.metadata.namespace.as_deref(), service.metadata.name.as_deref()) == at)
            .cloned()
    }

    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        let key = format!("{namespace}/{service}");
        self.slices.iter().filter(|slice| crate::zone::slice_service(slice).contains(&key)).cloned().collect()
    }

    fn services_at(&self, ip: IpAddr) -> Vec<Arc<Service>> {
        self.services.iter().filter(|service| service_ips(service).contains(&ip)).cloned().collect()
    }

    fn slices_at(&self, ip: IpAddr) -> Vec<Arc<EndpointSlice>> {
        self.slices.iter().filter(|slice| endpoint_host(slice, ip).is_some()).cloned().collect()
    }

    fn has_pod(&self, namespace: &str, ip: IpAddr) -> bool {
        namespace == "default" && ["10.1.0.5", "fd00::5"].contains(&ip.to_string().as_str())
    }
}

fn cluster() -> Fake {
    let mut file: serde_json::Value = serde_json::from_str(include_str!("tests/cluster.json")).unwrap();
    Fake {
        services: serde_json::from_value::<Vec<_>>(file["services"].take())
            .unwrap()
            .into_iter()
            .map(Arc::new)
            .collect(),
        slices: serde_json::from_value::<Vec<_>>(file["slices"].take()).unwrap().into_iter().map(Arc::new).collect(),
    }
}

fn settings() -> Settings {
    Settings {
        domain: Name::from_ascii("cluster.local.").unwrap(),
        ttl_s: 5,
        service_ips: vec!["10.96.0.10".parse().unwrap()],
    }
}

#[test]
fn answers() {
    let (cluster, settings) = (cluster(), settings());
    let lines = |records: &[Record]| records.iter().map(|record| format!("    {record}\n")).collect::<String>();
    golden::check!("tests/questions.txt", |question| {
        let (name, kind) = question.split_once(' ').unwrap();
        match answer(&cluster, &settings, &Name::from_ascii(name).unwrap(), kind.parse().unwrap()) {
            Outcome::Found { answers, additionals } if additionals.is_empty() => lines(&answers),
            Outcome::Found { answers, additionals } => format!("{}  with\n{}", lines(&answers), lines(&additionals)),
            Outcome::Alias { answer, target } => format!("    {answer} -> {target}\n"),
            other => format!("{other:?}\n"),
        }
    });
}
