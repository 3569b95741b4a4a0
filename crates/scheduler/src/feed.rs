//! Brings informer events into the cache and the queue, and wakes waiting pods that an event may help.
//! Reads: every kind in the crate's header. Writes memory only. Invariant: typed objects end here; inside only
//! `PodInfo`, `NodeSpec` and selectors exist.

use std::future::Future;
use std::sync::Arc;

use client::{Event as Change, Informer, Informers};
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ReplicationController, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use tokio::time::Instant;

use crate::Shared;
use crate::cache::{Budget, Cache, Selectors};
use crate::cycle::Scheduler;
use crate::event::Event;
use crate::node::NodeSpec;
use crate::pod::PodInfo;
use crate::selector::{Labels, Selector};

/// Starts feeding; the future ends when everything has been seen once.
pub fn connect(shared: &Shared, informers: &Informers) -> impl Future<Output = ()> + use<> {
    let pods: Informer<Pod> = informers.of();
    let nodes: Informer<Node> = informers.of();
    let namespaces: Informer<Namespace> = informers.of();
    let services: Informer<Service> = informers.of();
    let replica_sets: Informer<ReplicaSet> = informers.of();
    let replication_controllers: Informer<ReplicationController> = informers.of();
    let stateful_sets: Informer<StatefulSet> = informers.of();
    let budgets: Informer<PodDisruptionBudget> = informers.of();

    attach(shared, &nodes, node_changed);
    attach(shared, &namespaces, namespace_changed);
    attach(shared, &services, |s, change| {
        let spec = |o: &Service| o.spec.as_ref().and_then(|s| s.selector.as_ref()).map(|m| Selector::from_map(Some(m)));
        selector_changed(s, change, |o| &o.metadata, spec, |c| &mut c.services);
    });
    attach(shared, &replica_sets, |s, change| {
        let spec = |o: &ReplicaSet| Some(label_selector(&o.spec.selector));
        selector_changed(s, change, |o| &o.metadata, spec, |c| c.controllers.entry("ReplicaSet").or_default());
    });
    attach(shared, &replication_controllers, |s, change| {
        let spec = |o: &ReplicationController| o.spec.as_ref()?.selector.as_ref().map(|m| Selector::from_map(Some(m)));
        selector_changed(
            s,
            change,
            |o| &o.metadata,
            spec,
            |c| c.controllers.entry("ReplicationController").or_default(),
        );
    });
    attach(shared, &stateful_sets, |s, change| {
        let spec = |o: &StatefulSet| Some(label_selector(&o.spec.selector));
        selector_changed(s, change, |o| &o.metadata, spec, |c| c.controllers.entry("StatefulSet").or_default());
    });
    attach(shared, &budgets, budget_changed);
    attach(shared, &pods, pod_changed);
    async move {
        nodes.synced().await;
        namespaces.synced().await;
        services.synced().await;
        replica_sets.synced().await;
        replication_controllers.synced().await;
        stateful_sets.synced().await;
        budgets.synced().await;
        pods.synced().await;
    }
}

fn attach<K: client::Object>(
    shared: &Shared,
    informer: &Informer<K>,
    apply: impl Fn(&mut Scheduler, &Change<K>) + Send + Sync + 'static,
) {
    let shared = shared.clone();
    informer.on_event(move |change| {
        apply(&mut shared.lock(), change);
        shared.ring();
    });
}

fn label_selector(selector: &LabelSelector) -> Selector {
    Selector::of(Some(selector))
}

fn node_changed(s: &mut Scheduler, change: &Change<Node>) {
    let name = change.object().metadata.name.as_deref().unwrap_or_default();
    match change {
        Change::Deleted(_) => s.cache.remove_node(name),
        Change::Added(node) | Change::Modified { new: node, .. } => {
            let spec = NodeSpec::of(node);
            let matters = match s.cache.node_id(name) {
                None => true,
                Some(id) => {
                    let old = &s.cache.node(id).spec;
                    if *old == spec {
                        return;
                    }
                    old.labels != spec.labels
                        || old.taints != spec.taints
                        || old.unschedulable != spec.unschedulable
                        || old.allocatable != spec.allocatable
                }
            };
            let id = s.cache.set_node(name, spec);
            if matters {
                s.react_to_node(id, Instant::now());
            }
        }
    }
}

fn namespace_changed(s: &mut Scheduler, change: &Change<Namespace>) {
    let meta = &change.object().metadata;
    let name = meta.name.as_deref().unwrap_or_default();
    let labels = Labels::new(meta.labels.as_ref());
    let changed = match change {
        Change::Deleted(_) => {
            s.cache.namespaces.remove(name);
            false
        }
        _ => s.cache.namespaces.insert(name.into(), labels.clone()).is_none_or(|old| old != labels),
    };
    if changed {
        s.react(&Event::Namespace, Instant::now());
    }
}

fn selector_changed<K>(
    s: &mut Scheduler,
    change: &Change<K>,
    meta: fn(&K) -> &ObjectMeta,
    selector: impl Fn(&K) -> Option<Selector>,
    place: fn(&mut Cache) -> &mut Selectors,
) where
    K: kube::Resource,
{
    let object = change.object();
    let (namespace, name) =
        (meta(object).namespace.as_deref().unwrap_or_default(), meta(object).name.as_deref().unwrap_or_default());
    let in_namespace = place(&mut s.cache).entry(namespace.into()).or_default();
    let found = if matches!(change, Change::Deleted(_)) { None } else { selector(object) };
    let changed = match found {
        Some(selector) => in_namespace.insert(name.into(), selector.clone()).is_none_or(|old| old != selector),
        None => in_namespace.remove(name).is_some(),
    };
    if in_namespace.is_empty() {
        place(&mut s.cache).remove(namespace);
    }
    if changed {
        s.react(&Event::Selectors, Instant::now());
    }
}

fn budget_changed(s: &mut Scheduler, change: &Change<PodDisruptionBudget>) {
    let object = change.object();
    let (meta, status) = (&object.metadata, object.status.as_ref());
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let key: Box<str> = format!("{namespace}/{}", meta.name.as_deref().unwrap_or_default()).into();
    if matches!(change, Change::Deleted(_)) {
        s.cache.budgets.remove(&key);
    } else {
        let budget = Budget {
            namespace: namespace.into(),
            selector: Selector::of(object.spec.as_ref().and_then(|s| s.selector.as_ref())),
            disruptions_allowed: status.and_then(|s| s.disruptions_allowed).unwrap_or(0),
            disrupted: status
                .and_then(|s| s.disrupted_pods.as_ref())
                .map_or_else(Vec::new, |m| m.keys().map(|k| k.as_str().into()).collect()),
        };
        s.cache.budgets.insert(key, budget);
    }
    s.react(&Event::Budget, Instant::now());
}

fn pod_changed(s: &mut Scheduler, change: &Change<Pod>) {
    let now = Instant::now();
    match change {
        Change::Added(pod) => pod_set(s, None, PodInfo::of(pod), now),
        Change::Modified { old, new } => pod_set(s, Some(PodInfo::of(old)), PodInfo::of(new), now),
        Change::Deleted(pod) => pod_gone(s, &PodInfo::of(pod), now),
    }
}

fn pod_set(s: &mut Scheduler, old: Option<PodInfo>, new: PodInfo, now: Instant) {
    if new.finished {
        return pod_gone(s, &new, now);
    }
    let new = Arc::new(new);
    if !new.node_name.is_empty() {
        let was_there = old.as_ref().is_some_and(|o| !o.node_name.is_empty());
        s.queue.remove(&new.uid);
        s.cache.remove_nomination(&new.uid);
        s.cache.add_pod(new.clone());
        let relabelled = old.as_ref().is_some_and(|o| o.labels != new.labels);
        if !was_there || relabelled {
            s.react(&Event::PodAdded(&new), now);
        }
        // Asking for less, or starting to leave, may make room or lower a count.
        if was_there
            && old
                .as_ref()
                .is_some_and(|o| o.requests != new.requests || relabelled || o.terminating != new.terminating)
        {
            s.react(&Event::PodRemoved(old.as_ref().unwrap_or(&new)), now);
        }
        return;
    }
    if new.terminating {
        s.queue.remove(&new.uid);
        s.cache.remove_nomination(&new.uid);
        return;
    }
    if s.cache.is_assumed(&new.uid) {
        return; // being bound; if that fails, the version in the queue is tried again
    }
    if !new.nominated_node.is_empty()
        && s.cache.nomination(&new.uid) != Some(&new.nominated_node)
        && s.profile_of(&new).is_some()
    {
        let node = new.nominated_node.clone();
        s.cache.nominate(&new, &node);
    }
    let changed = old.is_some_and(|o| !o.same_placement(&new));
    s.enqueue(new, changed, now);
}

fn pod_gone(s: &mut Scheduler, pod: &PodInfo, now: Instant) {
    s.queue.remove(&pod.uid);
    s.cache.remove_nomination(&pod.uid);
    if let Some(gone) = s.cache.remove_pod(&pod.uid) {
        s.react(&Event::PodRemoved(&gone), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cycle::Decision;
    use crate::queue::Place;
    use crate::testing::{pod, scheduler};

    fn node(json: &str) -> Arc<Node> {
        Arc::new(serde_json::from_str(json).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_from_arrival_to_departure() {
        let mut s = scheduler();
        let waiting = Arc::new(pod(r#"{"metadata":{"name":"p","namespace":"d","uid":"u"},"spec":{"containers":[]}}"#));
        pod_changed(&mut s, &Change::Added(waiting.clone()));
        assert!(matches!(s.next(Instant::now()), Some(Decision::Park { .. })));
        let n = r#"{"metadata":{"name":"n"},"status":{"allocatable":{"cpu":"1","pods":"1"}}}"#;
        node_changed(&mut s, &Change::Added(node(n)));
        assert!(matches!(s.next(Instant::now()), Some(Decision::Place { .. })));
        let bound = Arc::new(pod(
            r#"{"metadata":{"name":"p","namespace":"d","uid":"u"},"spec":{"nodeName":"n","containers":[]}}"#,
        ));
        pod_changed(&mut s, &Change::Modified { old: waiting, new: bound.clone() });
        assert_eq!((s.cache.assumed, s.cache.pods.len(), s.queue.pods.len()), (0, 1, 0));
        // the node is full now; the next pod waits until the first one finishes
        pod_changed(
            &mut s,
            &Change::Added(Arc::new(pod(
                r#"{"metadata":{"name":"q","namespace":"d","uid":"v"},"spec":{"containers":[]}}"#,
            ))),
        );
        assert!(matches!(s.next(Instant::now()), Some(Decision::Park { .. })));
        let finished = Arc::new(pod(
            r#"{"metadata":{"name":"p","namespace":"d","uid":"u"},"spec":{"nodeName":"n","containers":[]},"status":{"phase":"Succeeded"}}"#,
        ));
        pod_changed(&mut s, &Change::Modified { old: bound, new: finished });
        assert!(matches!(s.next(Instant::now()), Some(Decision::Place { .. })));
    }

    #[test]
    fn a_heartbeat_wakes_nobody() {
        let mut s = scheduler();
        let n = r#"{"metadata":{"name":"n"},"status":{"allocatable":{"cpu":"1","pods":"0"}}}"#;
        node_changed(&mut s, &Change::Added(node(n)));
        pod_changed(&mut s, &Change::Added(Arc::new(pod(r#"{"metadata":{"uid":"u"},"spec":{"containers":[]}}"#))));
        s.next(Instant::now());
        node_changed(&mut s, &Change::Modified { old: node(n), new: node(n) });
        assert!(s.queue.pods.values().all(|queued| queued.place == Place::Unschedulable));
    }
}
