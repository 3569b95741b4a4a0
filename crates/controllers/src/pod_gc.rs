//! Removes pods nobody else will: of nodes that are gone, terminating ones that never got a node, old finished ones.
//! Reads: Pod, Node. Writes: Pod. Invariant: a pod of a node is removed only after the node was found missing twice, once live.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use client::{Action, Informer, Key};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::time::Instant;

use crate::context::{Ctx, During, Result};
use crate::{clock, pod, pod_condition};

struct Controller {
    ctx: Ctx,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    /// Nodes that pods name and nobody knows, since when.
    missing: tokio::sync::Mutex<HashMap<String, Instant>>,
}

pub fn start(ctx: Ctx) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let pods = ctx.informers.of::<Pod>();
        let nodes = ctx.informers.of::<Node>();
        pods.synced().await;
        nodes.synced().await;
        let (period, shutdown) = (ctx.config.pod_gc_period, ctx.shutdown.clone());
        let this = Controller { ctx, pods, nodes, missing: tokio::sync::Mutex::default() };
        loop {
            tokio::select! {
                () = tokio::time::sleep(period) => {}
                () = shutdown.cancelled() => return,
            }
            tokio::select! {
                outcome = this.collect() => if let Err(error) = outcome {
                    tracing::debug!(%error, "pod garbage collection failed, will retry");
                },
                () = shutdown.cancelled() => return,
            }
        }
    })
}

#[derive(Clone, Debug)]
enum Reason {
    Finished,
    Orphaned,
    NeverScheduled,
    OutOfService,
}

impl Controller {
    async fn collect(&self) -> Result<Action> {
        let pods = self.pods.list();
        let nodes = self.nodes.list();
        let gone = self.gone_nodes(&pods, &nodes).await?;
        for (pod, reason) in plan(&pods, &nodes, &gone, self.ctx.config.terminated_pods_max) {
            self.remove(&pod, &reason).await?;
        }
        Ok(Action::Done)
    }

    /// Nodes that have been missing for the quarantine and are missing live too.
    async fn gone_nodes(&self, pods: &[Arc<Pod>], nodes: &[Arc<Node>]) -> Result<HashSet<String>> {
        let known: HashSet<String> = nodes.iter().map(|node| node.name_any()).collect();
        let named: HashSet<&str> = pods.iter().map(|pod| pod::node_name(pod)).filter(|name| !name.is_empty()).collect();
        let mut missing = self.missing.lock().await;
        missing.retain(|name, _| named.contains(name.as_str()) && !known.contains(name));
        for name in named.iter().filter(|name| !known.contains(**name)) {
            missing.entry(name.to_string()).or_insert_with(Instant::now);
        }
        let api: Api<Node> = Api::all(self.ctx.client.clone());
        let mut gone = HashSet::new();
        for (name, since) in missing.iter() {
            if since.elapsed() < self.ctx.config.pod_gc_quarantine {
                continue;
            }
            if api.get_metadata_opt(name).await.during(|| format!("cannot look for node {name}"))?.is_none() {
                gone.insert(name.clone());
            }
        }
        Ok(gone)
    }

    async fn remove(&self, pod: &Pod, reason: &Reason) -> Result<()> {
        let key = Key::of(pod);
        let api: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        if !pod::is_finished(pod) {
            // nobody will report its end any more, and its controller should count it out
            let mut status = json!({"phase": "Failed"});
            if matches!(reason, Reason::Orphaned) {
                let message = "PodGC: node no longer exists";
                let condition =
                    pod_condition::new("DisruptionTarget", "True", "DeletionByPodGC", message, clock::now());
                status["conditions"] = json!([pod_condition::merged(pod, condition)]);
            }
            let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": status});
            match api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                Ok(_) => {}
                Err(error) if client::is_not_found(&error) => return Ok(()),
                Err(error) => return Err(error).during(|| format!("cannot mark pod {key} as failed")),
            }
        }
        tracing::info!(pod = %key, ?reason, "removing a pod");
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: pod.uid(), resource_version: None }),
            ..DeleteParams::default()
        };
        api.delete(&key.name, &params).await.unless_changed(|| format!("cannot delete pod {key}")).map(drop)
    }
}

fn plan(
    pods: &[Arc<Pod>],
    nodes: &[Arc<Node>],
    gone: &HashSet<String>,
    finished_max: usize,
) -> Vec<(Arc<Pod>, Reason)> {
    let mut out: Vec<(Arc<Pod>, Reason)> = Vec::new();
    let out_of_service: HashSet<String> =
        nodes.iter().filter(|node| is_out_of_service(node)).map(|node| node.name_any()).collect();
    let mut finished: Vec<&Arc<Pod>> = Vec::new();
    for pod in pods {
        let node = pod::node_name(pod);
        if pod::is_deleting(pod) && node.is_empty() {
            out.push((pod.clone(), Reason::NeverScheduled));
        } else if gone.contains(node) {
            out.push((pod.clone(), Reason::Orphaned));
        } else if pod::is_deleting(pod) && out_of_service.contains(node) {
            out.push((pod.clone(), Reason::OutOfService));
        } else if pod::is_finished(pod) {
            finished.push(pod);
        }
    }
    if finished_max > 0 && finished.len() > finished_max {
        let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::MIN, |time| time.0);
        let evicted = |pod: &Pod| pod.status.as_ref().and_then(|status| status.reason.as_deref()) == Some("Evicted");
        finished.sort_by_key(|pod| (!evicted(pod), created(pod), pod.name_any()));
        let excess = finished.len() - finished_max;
        out.extend(finished.into_iter().take(excess).map(|pod| (pod.clone(), Reason::Finished)));
    }
    out
}

fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let tainted = taints.into_iter().any(|taint| taint.key == "node.kubernetes.io/out-of-service");
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    tainted && !ready
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, node: &str, phase: &str, deleting: bool, created: &str) -> Arc<Pod> {
        let mut value = json!({"metadata": {"name": name, "creationTimestamp": created},
            "spec": {"nodeName": node, "containers": []}, "status": {"phase": phase}});
        if deleting {
            value["metadata"]["deletionTimestamp"] = json!("2030-01-01T00:00:00Z");
        }
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn plans() {
        let at = "2030-01-01T00:00:00Z";
        let pods = [
            pod("fine", "n1", "Running", false, at),
            pod("stopping", "n1", "Running", true, at),
            pod("orphan", "gone", "Running", false, at),
            pod("never", "", "Pending", true, at),
            pod("waiting", "", "Pending", false, at),
            pod("unserved", "dead", "Running", true, at),
            pod("done-new", "n1", "Succeeded", false, "2030-01-01T00:00:09Z"),
            pod("done-old", "n1", "Failed", false, at),
        ];
        let dead: Node = serde_json::from_value(json!({"metadata": {"name": "dead"},
            "spec": {"taints": [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]}}))
        .unwrap();
        let gone = HashSet::from(["gone".to_string()]);
        let show = |max| {
            plan(&pods, &[Arc::new(dead.clone())], &gone, max)
                .iter()
                .map(|(pod, reason)| format!("{} {reason:?}", pod.name_any()))
                .collect::<Vec<_>>()
        };
        assert_eq!(show(0), ["orphan Orphaned", "never NeverScheduled", "unserved OutOfService"]);
        assert_eq!(show(1), ["orphan Orphaned", "never NeverScheduled", "unserved OutOfService", "done-old Finished"]);
    }
}
