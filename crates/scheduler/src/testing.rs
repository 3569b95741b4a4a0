//! Objects for the tests of this crate, made from JSON as a user would write it.
//! Test code only.

use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;

use crate::cache::Cache;
use crate::cycle::Scheduler;
use crate::framework::Profile;
use crate::node::{NodeInfo, NodeSpec};
use crate::pod::PodInfo;
use crate::queue::Backoff;

pub fn pod(json: &str) -> core::Pod {
    serde_json::from_str(json).unwrap_or_else(|e| panic!("{e}: {json}"))
}

pub fn pod_info(json: &str) -> PodInfo {
    PodInfo::of(&pod(json))
}

/// A pod of one container with these requests.
pub fn pod_requesting(requests: &str) -> PodInfo {
    pod_info(&format!(r#"{{"spec":{{"containers":[{{"name":"c","resources":{{"requests":{requests}}}}}]}}}}"#))
}

pub fn node_spec(json: &str) -> NodeSpec {
    let node: core::Node = serde_json::from_str(json).unwrap_or_else(|e| panic!("{e}: {json}"));
    NodeSpec::of(&node)
}

pub fn node(name: &str, json: &str) -> NodeInfo {
    let mut out = NodeInfo::new(0, name);
    out.spec = node_spec(json);
    out.present = true;
    out
}

/// Nodes with a zone label each; an empty zone means no label.
pub fn zoned_cluster(nodes: &[(&str, &str)]) -> Cache {
    let mut cache = Cache::default();
    for (name, zone) in nodes {
        let labels = if zone.is_empty() { String::new() } else { format!(r#""topology.kubernetes.io/zone":"{zone}""#) };
        cache.set_node(name, node_spec(&format!(r#"{{"metadata":{{"labels":{{{labels}}}}}}}"#)));
    }
    cache.refresh_order();
    cache
}

pub fn add_pod(cache: &mut Cache, node: &str, json: &str) {
    let mut info = pod_info(json);
    info.node_name = node.into();
    cache.add_pod(Arc::new(info));
}

/// A pod labelled `app: a` on a node.
pub fn add_app_pod(cache: &mut Cache, node: &str, uid: &str, namespace: &str) {
    let metadata = format!(r#"{{"uid":"{uid}","namespace":"{namespace}","labels":{{"app":"a"}}}}"#);
    add_pod(cache, node, &format!(r#"{{"metadata":{metadata},"spec":{{"containers":[]}}}}"#));
}

pub fn scheduler() -> Scheduler {
    Scheduler::new(vec![Profile::new("default-scheduler", crate::plugins::defaults())], 0, Backoff::default())
}
