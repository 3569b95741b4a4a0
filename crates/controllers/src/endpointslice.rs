//! Keeps the EndpointSlices of every service that selects pods.
//! Reads: Service, Pod, Node, EndpointSlice. Writes: EndpointSlice. Invariant: touches only slices it manages, and creates none
//! while its cache lacks what it wrote.

pub mod desired;
pub mod pack;
pub mod slices;

use std::sync::Arc;
use std::time::Duration;

use client::{Action, Informer, Key};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::context::{Ctx, Result, Work};
use crate::service_endpoint as common;
use crate::{pod, selector};
use pack::Parent;
use slices::Slices;

struct Controller {
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    slices: Slices,
    per_slice: usize,
}

pub fn start(ctx: Ctx) -> BoxFuture<'static, ()> {
    let services = ctx.informers.of::<Service>();
    let pods = ctx.informers.of::<Pod>();
    let nodes = ctx.informers.of::<Node>();
    let mut work = Work::new(&ctx);
    work.watch_own(&services);
    work.needs(&nodes);
    let slices = Slices::watch(&ctx, &mut work, pack::CONTROLLER);
    let all = services.clone();
    work.watch(&pods, move |event| common::affected(event, &all));
    let this = Controller { services, pods, nodes, slices, per_slice: ctx.config.endpoints_per_slice };
    work.start(ctx.config.concurrency, this, |this, key| Box::pin(this.reconcile(key)))
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> Result<Action> {
        let service = self.services.get_key(key).filter(|service| service.metadata.deletion_timestamp.is_none());
        let Some(service) = service.filter(|service| common::is_selecting(service)) else {
            // the slices of a deleted service are garbage; those of a service that lost its selector are the user's now
            self.slices.forget(key);
            return Ok(Action::Done);
        };
        let Some(slices) = self.slices.of(key) else { return Ok(Action::RequeueAfter(Duration::from_secs(1))) };
        let chosen = service.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
        let mut pods = self.pods.list_in(&key.namespace);
        pods.retain(|pod| selector::matches_map(&chosen, pod.metadata.labels.as_ref()));
        let wanted = desired::endpoints(&service, &pods, &|name| self.nodes.get("", name));
        let trigger = trigger(&service, &pods, &slices);
        let parent = Parent::of_service(&service);
        let steps = pack::plan(&parent, &slices, wanted, self.per_slice, trigger.as_deref());
        self.slices.act(key, steps).await?;
        Ok(Action::Done)
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
