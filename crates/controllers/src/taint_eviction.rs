//! Deletes pods from nodes with a NoExecute taint they do not tolerate, when their patience is over.
//! Reads: Pod, Node. Writes: Pod, Event. Invariant: a pod that tolerates every such taint without a limit is never touched.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use client::{Action, Event, Informer, Key, Recorder};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::context::{Ctx, During, Result, Work};
use crate::node_lifecycle::BY_NODE;
use crate::{clock, pod, pod_condition};

struct Controller {
    ctx: Ctx,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    recorder: Recorder,
    /// Pods that wait for their end, by uid, and since when: for taints without a time. Bounded by the pods on tainted nodes.
    waiting: Mutex<HashMap<String, Timestamp>>,
}

pub fn start(ctx: Ctx) -> BoxFuture<'static, ()> {
    let pods = ctx.informers.of::<Pod>();
    let nodes = ctx.informers.of::<Node>();
    pods.add_index(BY_NODE, |pod| {
        Some(pod::node_name(pod).to_string()).filter(|name| !name.is_empty()).into_iter().collect()
    });
    let mut work = Work::new(&ctx);
    let all = nodes.clone();
    work.watch(&pods, move |event| {
        let pod = event.object();
        let tainted = all.get("", pod::node_name(pod)).is_some_and(|node| no_execute(&node).next().is_some());
        tainted.then(|| Key::of(pod.as_ref())).into_iter().collect()
    });
    let on_node = pods.clone();
    work.watch(&nodes, move |event| {
        let changed = match event {
            Event::Added(node) | Event::Deleted(node) => no_execute(node).next().is_some(),
            Event::Modified { old, new } => !no_execute(old).eq(no_execute(new)),
        };
        let pods = if changed { on_node.by_index(BY_NODE, &event.object().name_any()) } else { Vec::new() };
        pods.iter().map(|pod| Key::of(pod.as_ref())).collect()
    });
    let recorder = ctx.recorder("taint-eviction-controller");
    let count = ctx.config.concurrency;
    let this = Controller { ctx, pods, nodes, recorder, waiting: Mutex::default() };
    work.start(count, this, |this, key| Box::pin(this.reconcile(key)))
}

fn no_execute(node: &Node) -> impl Iterator<Item = &Taint> {
    node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).filter(|taint| taint.effect == "NoExecute")
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let effect = filled(&toleration.effect).is_none_or(|effect| effect == taint.effect);
    let exists = toleration.operator.as_deref() == Some("Exists");
    let key = match filled(&toleration.key) {
        Some(key) => key == taint.key,
        None => exists,
    };
    let value = exists || filled(&toleration.value) == filled(&taint.value);
    effect && key && value
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Stay,
    Evict,
    EvictIn(Duration),
}

fn plan(pod: &Pod, taints: &[&Taint], since: Timestamp, now: Timestamp) -> Verdict {
    let tolerations: Vec<&Toleration> = pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten()).collect();
    let mut earliest: Option<Timestamp> = None;
    for taint in taints {
        let matching: Vec<&&Toleration> =
            tolerations.iter().filter(|toleration| tolerates(toleration, taint)).collect();
        if matching.is_empty() {
            return Verdict::Evict;
        }
        // the shortest patience counts
        if let Some(patience_s) = matching.iter().filter_map(|toleration| toleration.toleration_seconds).min() {
            let start = taint.time_added.as_ref().map_or(since, |time| time.0);
            let at = clock::after_s(start, patience_s.max(0));
            earliest = Some(earliest.map_or(at, |known| known.min(at)));
        }
    }
    match earliest {
        None => Verdict::Stay,
        Some(at) if at <= now => Verdict::Evict,
        Some(at) => Verdict::EvictIn(clock::until(now, at)),
    }
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> Result<Action> {
        let Some(pod) = self.pods.get_key(key) else { return Ok(Action::Done) };
        let uid = pod.uid().unwrap_or_default();
        let node = self.nodes.get("", pod::node_name(&pod));
        let taints: Vec<&Taint> = node.iter().flat_map(|node| no_execute(node)).collect();
        let now = clock::now();
        let (since, was_waiting) = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let known = waiting.get(&uid).copied();
            if taints.is_empty() || pod::is_deleting(&pod) {
                waiting.remove(&uid);
            } else {
                waiting.entry(uid.clone()).or_insert(now);
            }
            (known.unwrap_or(now), known.is_some())
        };
        if pod::is_deleting(&pod) {
            return Ok(Action::Done);
        }
        match plan(&pod, &taints, since, now) {
            Verdict::Stay => {
                if was_waiting {
                    let message = format!("Cancelling deletion of Pod {key}");
                    self.recorder.event(&client::reference(pod.as_ref()), "Normal", "TaintManagerEviction", message);
                }
                self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
                Ok(Action::Done)
            }
            Verdict::EvictIn(delay) => Ok(Action::RequeueAfter(delay)),
            Verdict::Evict => {
                self.evict(key, &pod).await?;
                self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
                Ok(Action::Done)
            }
        }
    }

    async fn evict(&self, key: &Key, pod: &Pod) -> Result<()> {
        let message = format!("Marking for deletion Pod {key}");
        self.recorder.event(&client::reference(pod), "Normal", "TaintManagerEviction", message);
        let api: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let condition = pod_condition::new(
            "DisruptionTarget",
            "True",
            "DeletionByTaintManager",
            "Taint manager: deleting due to NoExecute taint",
            clock::now(),
        );
        let condition = pod_condition::merged(pod, condition);
        let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
        match api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(_) => {}
            Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => return Ok(()),
            Err(error) => return Err(error).during(|| format!("cannot mark pod {key} as disrupted")),
        }
        let preconditions = Preconditions { uid: pod.uid(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        api.delete(&key.name, &params).await.unless_changed(|| format!("cannot evict pod {key}")).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience() {
        let now: Timestamp = "2030-01-01T00:05:00Z".parse().unwrap();
        golden::check!("taint_eviction.txt", |case| {
            let (tolerations, taints) = case.split_once(" | ").unwrap();
            let tolerations: serde_json::Value = serde_json::from_str(tolerations).unwrap();
            let spec = json!({"containers": [], "tolerations": tolerations});
            let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
            let taints: Vec<Taint> = serde_json::from_str(taints).unwrap();
            format!("{:?}", plan(&pod, &taints.iter().collect::<Vec<_>>(), now, now))
        });
    }
}
