//! Keeps the EndpointSlices of every service that selects pods.
//! Reads: Service, Pod, Node, EndpointSlice. Writes: EndpointSlice. Invariant: touches only slices it manages, and creates none
//! while its cache lacks what it wrote.

pub mod desired;
pub mod pack;

use std::sync::Arc;
use std::time::Duration;

use client::{Action, Informer, Key};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, ResourceExt};

use crate::context::{Ctx, During, Result, Work};
use crate::pod_batch::is_namespace_terminating;
use crate::service_endpoint::{self as common, SERVICE_NAME};
use crate::written::Written;
use crate::{pod, selector};
use pack::Step;

const BY_SERVICE: &str = "endpointslice-service";

struct Controller {
    ctx: Ctx,
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
    written: Written,
}

fn is_ours(slice: &EndpointSlice) -> bool {
    slice.labels().get(pack::MANAGED_BY).is_some_and(|name| name == pack::CONTROLLER)
}

fn service_of(slice: &EndpointSlice) -> Vec<String> {
    let name = slice.labels().get(SERVICE_NAME).filter(|_| is_ours(slice));
    name.map(|name| format!("{}/{name}", slice.namespace().unwrap_or_default())).into_iter().collect()
}

pub fn start(ctx: Ctx) -> BoxFuture<'static, ()> {
    let services = ctx.informers.of::<Service>();
    let pods = ctx.informers.of::<Pod>();
    let nodes = ctx.informers.of::<Node>();
    let slices = ctx.informers.of::<EndpointSlice>();
    slices.add_index(BY_SERVICE, service_of);
    let mut work = Work::new(&ctx);
    work.watch_own(&services);
    work.needs(&nodes);
    work.watch(&slices, |event| {
        let slice = event.object();
        let name = slice.labels().get(SERVICE_NAME).filter(|_| is_ours(slice));
        name.map(|name| Key::new(slice.namespace().unwrap_or_default(), name)).into_iter().collect()
    });
    let all = services.clone();
    work.watch(&pods, move |event| common::affected(event, &all));
    let count = ctx.config.concurrency;
    let this = Arc::new(Controller { ctx, services, pods, nodes, slices, written: Written::default() });
    Box::pin(work.run(count, move |key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    }))
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> Result<Action> {
        let service = self.services.get_key(key).filter(|service| service.metadata.deletion_timestamp.is_none());
        let Some(service) = service.filter(|service| common::is_selecting(service)) else {
            // the slices of a deleted service are garbage; those of a service that lost its selector are the user's now
            self.written.forget(key);
            return Ok(Action::Done);
        };
        if !self.written.shown(key, self.slices.revision(), std::iter::empty()) {
            return Ok(Action::RequeueAfter(Duration::from_secs(1)));
        }
        let chosen = service.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
        let mut pods = self.pods.list_in(&key.namespace);
        pods.retain(|pod| selector::matches_map(&chosen, pod.metadata.labels.as_ref()));
        let slices = self.slices.by_index(BY_SERVICE, &key.to_string());
        let wanted = desired::endpoints(&service, &pods, &|name| self.nodes.get("", name));
        let trigger = trigger(&service, &pods, &slices);
        let steps = pack::plan(&service, &slices, wanted, self.ctx.config.endpoints_per_slice, trigger.as_deref());
        for step in steps {
            self.act(key, step).await?;
        }
        Ok(Action::Done)
    }

    async fn act(&self, key: &Key, step: Step) -> Result<()> {
        let api: Api<EndpointSlice> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        match step {
            Step::Create(slice) => match api.create(&PostParams::default(), &slice).await {
                Ok(created) => self.written.wrote(key, client::revision_of(&created)),
                Err(error) if is_namespace_terminating(&error) => {}
                Err(error) => return Err(error).during(|| format!("cannot create an EndpointSlice for service {key}")),
            },
            Step::Update(slice) => {
                let updated = api.replace(&slice.name_any(), &PostParams::default(), &slice).await;
                let updated = updated.during(|| format!("cannot update EndpointSlice {}", slice.name_any()))?;
                self.written.wrote(key, client::revision_of(&updated));
            }
            Step::Delete(slice) => {
                let preconditions = Preconditions { uid: slice.uid(), resource_version: None };
                let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                match api.delete(&slice.name_any(), &params).await {
                    Ok(_) => {}
                    Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => {}
                    Err(error) => {
                        return Err(error).during(|| format!("cannot delete EndpointSlice {}", slice.name_any()));
                    }
                }
            }
        }
        Ok(())
    }
}

/// The time of the latest change that the slices do not show yet; None once they do.
fn trigger(service: &Service, pods: &[Arc<Pod>], slices: &[Arc<EndpointSlice>]) -> Option<String> {
    let created = service.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let latest =
        pods.iter().filter_map(|pod| pod::ready_since(pod)).chain(created.filter(|_| slices.is_empty())).max()?;
    let shown = |slice: &Arc<EndpointSlice>| slice.annotations().get(common::LAST_CHANGE)?.parse::<Timestamp>().ok();
    let known = slices.iter().filter_map(shown).max();
    let at = known.map_or(latest, |known| known.max(latest));
    Some(at.to_string())
}

#[cfg(test)]
mod tests;
