//! Keeps the legacy Endpoints object of every service that selects pods.
//! Reads: Service, Pod, Endpoints. Writes: Endpoints. Invariant: at most 1000 addresses, and no write when nothing changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::{Action, Event, Informer, Key};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use kube::{Api, ResourceExt};

use crate::context::{Ctx, During, Result, Work};
use crate::pod_batch::is_namespace_terminating;
use crate::service_endpoint::{self as common, HEADLESS, LAST_CHANGE};
use crate::written::Written;
use crate::{pod, selector};

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const ADDRESSES_MAX: usize = 1000;

struct Controller {
    ctx: Ctx,
    services: Informer<Service>,
    pods: Informer<Pod>,
    endpoints: Informer<Endpoints>,
    written: Written,
}

pub fn start(ctx: Ctx) -> BoxFuture<'static, ()> {
    let services = ctx.informers.of::<Service>();
    let pods = ctx.informers.of::<Pod>();
    let endpoints = ctx.informers.of::<Endpoints>();
    let mut work = Work::new(&ctx);
    work.watch_own(&services);
    let all = services.clone();
    work.watch(&pods, move |event| common::affected(event, &all));
    // mended if somebody deletes it; what others write into it is theirs until the next change
    work.watch(&endpoints, |event| match event {
        Event::Deleted(endpoints) => vec![Key::of(endpoints.as_ref())],
        Event::Added(endpoints) => vec![Key::of(endpoints.as_ref())],
        Event::Modified { .. } => Vec::new(),
    });
    let count = ctx.config.concurrency;
    let this = Controller { ctx, services, pods, endpoints, written: Written::default() };
    work.start(count, this, |this, key| Box::pin(this.reconcile(key)))
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> Result<Action> {
        let api: Api<Endpoints> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let current = self.endpoints.get_key(key);
        if !self.written.shown(key, self.endpoints.revision(), std::iter::empty()) {
            return Ok(Action::RequeueAfter(std::time::Duration::from_millis(100)));
        }
        let Some(service) = self.services.get_key(key) else {
            // ours only: endpoints that a user keeps for a service to come are not
            let ours =
                current.filter(|endpoints| endpoints.labels().get(MANAGED_BY).is_some_and(|name| name == CONTROLLER));
            return match ours {
                Some(_) => match api.delete(&key.name, &DeleteParams::default()).await {
                    Err(error) if !client::is_not_found(&error) => {
                        Err(error).during(|| format!("cannot delete Endpoints {key}"))
                    }
                    _ => Ok(Action::Done),
                },
                None => Ok(Action::Done),
            };
        };
        if !common::is_selecting(&service) || service.metadata.deletion_timestamp.is_some() {
            return Ok(Action::Done);
        }
        let chosen = service.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
        let mut pods = self.pods.list_in(&key.namespace);
        pods.retain(|pod| selector::matches_map(&chosen, pod.metadata.labels.as_ref()));
        let Some(wanted) = plan(&service, &pods, current.as_deref()) else { return Ok(Action::Done) };
        let outcome = match current {
            Some(_) => api.replace(&key.name, &PostParams::default(), &wanted).await,
            None => api.create(&PostParams::default(), &wanted).await,
        };
        match outcome {
            Ok(written) => {
                self.written.wrote(key, client::revision_of(&written));
                Ok(Action::Done)
            }
            Err(error) if is_namespace_terminating(&error) => Ok(Action::Done),
            Err(error) => Err(error).during(|| format!("cannot write Endpoints {key}")),
        }
    }
}

/// The object to write, or None if it is right already.
fn plan(service: &Service, pods: &[Arc<Pod>], current: Option<&Endpoints>) -> Option<Endpoints> {
    let (subsets, truncated) = subsets(service, pods);
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.to_string(), CONTROLLER.to_string());
    labels.remove(HEADLESS);
    if common::is_headless(service) {
        labels.insert(HEADLESS.to_string(), String::new());
    }
    let mut wanted = current.cloned().unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta {
            name: Some(service.name_any()),
            namespace: service.namespace(),
            ..ObjectMeta::default()
        },
        subsets: None,
    });
    let known_over = wanted.annotations().contains_key(OVER_CAPACITY);
    let same = current.is_some_and(|current| current.subsets.as_deref().unwrap_or_default() == subsets)
        && wanted.metadata.labels.as_ref() == Some(&labels)
        && known_over == truncated;
    if same {
        return None;
    }
    wanted.metadata.labels = Some(labels);
    let annotations = wanted.metadata.annotations.get_or_insert_default();
    if truncated {
        annotations.insert(OVER_CAPACITY.to_string(), "truncated".to_string());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    if let Some(at) = pods.iter().filter_map(|pod| pod::ready_since(pod)).max() {
        annotations.insert(LAST_CHANGE.to_string(), at.to_string());
    }
    wanted.subsets = (!subsets.is_empty()).then_some(subsets);
    Some(wanted)
}

/// Which addresses have the same ports, ready or not: they share a subset.
fn subsets(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let publish = service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false);
    let family = common::families(service).first().copied().unwrap_or("IPv4");
    let ports: Vec<_> = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()).collect();
    // by address and pod, so that each shows once with all its ports
    let mut by_address: BTreeMap<(String, String), (bool, EndpointAddress, Vec<EndpointPort>)> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| common::can_back(pod)) {
        if pod::is_deleting(pod) && !publish {
            continue;
        }
        let Some(ip) = common::address(pod, family) else { continue };
        let address = EndpointAddress {
            ip: ip.to_string(),
            hostname: common::hostname(pod, service),
            node_name: Some(pod::node_name(pod).to_string()).filter(|name| !name.is_empty()),
            target_ref: Some(common::target_ref(pod)),
        };
        let found: Vec<EndpointPort> = ports
            .iter()
            .filter_map(|port| {
                Some(EndpointPort {
                    name: port.name.clone().filter(|name| !name.is_empty()),
                    port: common::target_port(pod, port)?,
                    protocol: Some(common::protocol(port.protocol.as_deref()).to_string()),
                    app_protocol: port.app_protocol.clone(),
                })
            })
            .collect();
        if found.is_empty() && !(ports.is_empty() && common::is_headless(service)) {
            continue;
        }
        let ready = publish || pod::is_ready(pod);
        by_address.insert((ip.to_string(), pod.name_any()), (ready, address, found));
    }
    let truncated = by_address.len() > ADDRESSES_MAX;
    let mut groups: BTreeMap<String, EndpointSubset> = BTreeMap::new();
    for (ready, address, mut ports) in by_address.into_values().take(ADDRESSES_MAX) {
        ports.sort_by(|a, b| (&a.name, a.port).cmp(&(&b.name, b.port)));
        let key = serde_json::to_string(&ports).unwrap_or_default();
        let subset = groups.entry(key).or_insert_with(|| EndpointSubset {
            ports: (!ports.is_empty()).then_some(ports),
            ..EndpointSubset::default()
        });
        let list = if ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        list.get_or_insert_default().push(address);
    }
    (groups.into_values().collect(), truncated)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;

    #[test]
    fn plans() {
        let service: Service =
            serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "ns", "labels": {"a": "b"}},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}}))
            .unwrap();
        let pod = |name: &str, ip: &str, ready: &str| -> Arc<Pod> {
            Arc::new(
                serde_json::from_value(json!({"metadata": {"name": name, "namespace": "ns", "uid": name},
                "spec": {"nodeName": "n", "containers": []},
                "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": ready}]}}))
                .unwrap(),
            )
        };
        let pods = [pod("a", "10.0.0.1", "True"), pod("b", "10.0.0.2", "False"), pod("c", "", "True")];
        let wanted = plan(&service, &pods, None).unwrap();
        assert_eq!(plan(&service, &pods, Some(&wanted)), None);
        let empty = plan(&service, &[], Some(&wanted)).unwrap();
        let text = |endpoints: &Endpoints| serde_json::to_string(endpoints).unwrap();
        expect![[r#"
            {"apiVersion":"v1","kind":"Endpoints","metadata":{"annotations":{},"labels":{"a":"b","endpoints.kubernetes.io/managed-by":"endpoint-controller"},"name":"web","namespace":"ns"},"subsets":[{"addresses":[{"ip":"10.0.0.1","nodeName":"n","targetRef":{"kind":"Pod","name":"a","namespace":"ns","uid":"a"}}],"notReadyAddresses":[{"ip":"10.0.0.2","nodeName":"n","targetRef":{"kind":"Pod","name":"b","namespace":"ns","uid":"b"}}],"ports":[{"port":8080,"protocol":"TCP"}]}]}
            {"apiVersion":"v1","kind":"Endpoints","metadata":{"annotations":{},"labels":{"a":"b","endpoints.kubernetes.io/managed-by":"endpoint-controller"},"name":"web","namespace":"ns"}}"#]].assert_eq(&format!("{}\n{}", text(&wanted), text(&empty)));
    }
}
