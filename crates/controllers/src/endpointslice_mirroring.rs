//! Mirrors Endpoints that somebody keeps for a service without a selector into EndpointSlices, which is what proxies read.
//! Reads: Endpoints, Service, EndpointSlice. Writes: EndpointSlice, Event. Invariant: touches only slices it manages.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use client::{Action, Informer, Key, Recorder};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};
use kube::ResourceExt;

use crate::context::{Ctx, Result, Work};
use crate::endpointslice::desired::{Group, Wanted, group_key};
use crate::endpointslice::pack::{self, Parent, Step};
use crate::endpointslice::slices::Slices;
use crate::owner;
use crate::service_endpoint::LAST_CHANGE;

const CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Of a subset, and endpoints of a slice.
const ADDRESSES_MAX: usize = 1000;

struct Controller {
    services: Informer<Service>,
    endpoints: Informer<Endpoints>,
    slices: Slices,
    recorder: Recorder,
}

pub fn start(ctx: Ctx) -> BoxFuture<'static, ()> {
    let services = ctx.informers.of::<Service>();
    let endpoints = ctx.informers.of::<Endpoints>();
    let mut work = Work::new(&ctx);
    work.watch_own(&services);
    work.watch_own(&endpoints);
    let slices = Slices::watch(&ctx, &mut work, CONTROLLER);
    let recorder = ctx.recorder("endpoint-slice-mirroring-controller");
    let count = ctx.config.concurrency;
    let this = Controller { services, endpoints, slices, recorder };
    work.start(count, this, |this, key| Box::pin(this.reconcile(key)))
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> Result<Action> {
        let Some(slices) = self.slices.of(key) else { return Ok(Action::RequeueAfter(Duration::from_secs(1))) };
        let service = self.services.get_key(key).filter(|service| is_without_selector(service));
        let endpoints = self.endpoints.get_key(key).filter(|endpoints| service.is_some() && is_mirrored(endpoints));
        let steps = match endpoints {
            None => slices.into_iter().map(Step::Delete).collect(),
            Some(endpoints) => {
                let mirrored = mirror(&endpoints);
                let about = client::reference(endpoints.as_ref());
                if mirrored.invalid > 0 {
                    let message =
                        format!("Skipped {} invalid IP addresses when mirroring to EndpointSlices", mirrored.invalid);
                    self.recorder.event(&about, "Warning", "InvalidIPAddress", message);
                }
                if mirrored.skipped > 0 {
                    let message = format!(
                        "A max of {ADDRESSES_MAX} addresses can be mirrored to EndpointSlices per Endpoints subset. {} \
                         addresses were skipped",
                        mirrored.skipped
                    );
                    self.recorder.event(&about, "Warning", "TooManyAddressesToMirror", message);
                }
                pack::plan(&parent(&endpoints), &slices, mirrored.groups, ADDRESSES_MAX, None)
            }
        };
        self.slices.act(key, steps).await?;
        Ok(Action::Done)
    }
}

fn is_without_selector(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.selector.as_ref()).is_none_or(BTreeMap::is_empty)
}

fn is_mirrored(endpoints: &Endpoints) -> bool {
    let skipped = endpoints.labels().get(SKIP).is_some_and(|value| value == "true");
    !skipped && !endpoints.annotations().contains_key(LEADER) && endpoints.metadata.deletion_timestamp.is_none()
}

fn parent(endpoints: &Endpoints) -> Parent {
    let mut parent = Parent::new(&endpoints.metadata, owner::reference(endpoints), CONTROLLER);
    let copied = |name: &&String| *name != LAST_CHANGE && *name != LAST_APPLIED;
    let annotations = endpoints.annotations().iter().filter(|(name, _)| copied(name));
    let annotations: BTreeMap<String, String> =
        annotations.map(|(name, value)| (name.clone(), value.clone())).collect();
    parent.meta.annotations = Some(annotations);
    parent
}

#[derive(Default)]
struct Mirrored {
    groups: BTreeMap<Group, Wanted>,
    /// Addresses beyond the maximum.
    skipped: usize,
    invalid: usize,
}

fn mirror(endpoints: &Endpoints) -> Mirrored {
    let mut out = Mirrored::default();
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<EndpointPort> = subset
            .ports
            .iter()
            .flatten()
            .map(|port| EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(port.port),
                protocol: port.protocol.clone(),
                app_protocol: port.app_protocol.clone(),
            })
            .collect();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let not_ready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        let mut taken = 0;
        for (address, ready) in ready.chain(not_ready) {
            let family = match address.ip.parse() {
                Ok(IpAddr::V4(_)) => "IPv4",
                Ok(IpAddr::V6(_)) => "IPv6",
                Err(_) => {
                    out.invalid += 1;
                    continue;
                }
            };
            if taken == ADDRESSES_MAX {
                out.skipped += 1;
                continue;
            }
            taken += 1;
            let group = out.groups.entry(group_key(family, &ports));
            let group = group.or_insert_with(|| Wanted { ports: ports.clone(), endpoints: Vec::new() });
            group.endpoints.push(endpoint(address, ready));
        }
    }
    out
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use expect_test::expect;
    use serde_json::{Value, json};

    use super::*;

    fn endpoints(meta: Value, subsets: Value) -> Endpoints {
        let mut value = json!({"metadata": {"name": "db", "namespace": "ns", "uid": "e"}, "subsets": subsets});
        value["metadata"].as_object_mut().unwrap().extend(meta.as_object().unwrap().clone());
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_is_mirrored() {
        for (meta, want) in [
            (json!({}), true),
            (json!({"labels": {SKIP: "true"}}), false),
            (json!({"labels": {SKIP: "false"}}), true),
            (json!({"annotations": {LEADER: "{}"}}), false),
        ] {
            assert_eq!(is_mirrored(&endpoints(meta.clone(), json!([]))), want, "{meta}");
        }
        let many: Vec<Value> = (0..1003).map(|n| json!({"ip": format!("10.0.{}.{}", n / 250, n % 250)})).collect();
        let all = mirror(&endpoints(
            json!({}),
            json!([{"addresses": many, "ports": [{"port": 1}]}, {"addresses": [{"ip": "x"}]}]),
        ));
        let counts: Vec<usize> = all.groups.values().map(|group| group.endpoints.len()).collect();
        assert_eq!((counts, all.skipped, all.invalid), (vec![1000], 3, 1));
    }

    #[test]
    fn slices() {
        let endpoints = endpoints(
            json!({"labels": {"a": "b"}, "annotations": {"note": "n", LAST_APPLIED: "{}", LAST_CHANGE: "now"}}),
            json!([{"addresses": [{"ip": "10.0.0.1", "hostname": "one"}], "notReadyAddresses": [{"ip": "fd00::1"}],
                    "ports": [{"port": 80, "protocol": "TCP"}]},
                {"addresses": [{"ip": "10.0.0.2", "nodeName": "n"}], "ports": [{"port": 80, "protocol": "TCP"}]}]),
        );
        let plan = |slices: &[_]| pack::plan(&parent(&endpoints), slices, mirror(&endpoints).groups, 1000, None);
        let mut made = Vec::new();
        let mut text = String::new();
        for step in plan(&[]) {
            let Step::Create(slice) = step else { panic!("{step:?}") };
            text.push_str(&serde_json::to_string(&slice).unwrap());
            text.push('\n');
            made.push(Arc::new(*slice));
        }
        expect![[r#"
            {"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","addressType":"IPv4","endpoints":[{"addresses":["10.0.0.1"],"conditions":{"ready":true},"hostname":"one"},{"addresses":["10.0.0.2"],"conditions":{"ready":true},"nodeName":"n"}],"metadata":{"annotations":{"note":"n"},"generateName":"db-","labels":{"a":"b","endpointslice.kubernetes.io/managed-by":"endpointslicemirroring-controller.k8s.io","kubernetes.io/service-name":"db"},"namespace":"ns","ownerReferences":[{"apiVersion":"v1","blockOwnerDeletion":true,"controller":true,"kind":"Endpoints","name":"db","uid":"e"}]},"ports":[{"name":"","port":80,"protocol":"TCP"}]}
            {"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","addressType":"IPv6","endpoints":[{"addresses":["fd00::1"],"conditions":{"ready":false}}],"metadata":{"annotations":{"note":"n"},"generateName":"db-","labels":{"a":"b","endpointslice.kubernetes.io/managed-by":"endpointslicemirroring-controller.k8s.io","kubernetes.io/service-name":"db"},"namespace":"ns","ownerReferences":[{"apiVersion":"v1","blockOwnerDeletion":true,"controller":true,"kind":"Endpoints","name":"db","uid":"e"}]},"ports":[{"name":"","port":80,"protocol":"TCP"}]}
        "#]].assert_eq(&text);
        assert_eq!(plan(&made).len(), 0);
    }
}
