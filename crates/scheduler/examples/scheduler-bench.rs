//! Measures pure scheduling cycles: fake nodes, a queue full of pods, no API server.
//! `cargo run --release -p scheduler --example scheduler-bench [nodes] [pods] [basic|spread|affinity|anti]`
//! Prints pods per second; asserts only that every pod found a node.

use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use scheduler::cycle::{Decision, Scheduler};
use scheduler::framework::Profile;
use scheduler::node::NodeSpec;
use scheduler::pod::PodInfo;
use tokio::time::Instant;

fn node(i: usize) -> core::Node {
    let json = format!(
        r#"{{"metadata":{{"name":"node-{i}","labels":{{"kubernetes.io/hostname":"node-{i}","topology.kubernetes.io/zone":"zone-{}"}}}},
        "status":{{"allocatable":{{"cpu":"4","memory":"32Gi","pods":"110"}}}}}}"#,
        i % 3
    );
    serde_json::from_str(&json).expect("the JSON above is a node")
}

fn pod(i: usize, kind: &str) -> core::Pod {
    let term = |key: &str| format!(r#"{{"topologyKey":"{key}","labelSelector":{{"matchLabels":{{"app":"bench"}}}}}}"#);
    let extra = match kind {
        "spread" => r#","topologySpreadConstraints":[{"maxSkew":5,"topologyKey":"topology.kubernetes.io/zone","whenUnsatisfiable":"DoNotSchedule","labelSelector":{"matchLabels":{"app":"bench"}}}]"#.to_owned(),
        "affinity" => format!(r#","affinity":{{"podAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":[{}]}}}}"#, term("topology.kubernetes.io/zone")),
        "anti" => format!(r#","affinity":{{"podAntiAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":[{}]}}}}"#, term("kubernetes.io/hostname")),
        _ => String::new(),
    };
    let json = format!(
        r#"{{"metadata":{{"name":"pod-{i}","namespace":"bench","uid":"{i}","labels":{{"app":"bench"}}}},
        "spec":{{"containers":[{{"name":"c","image":"pause:3","resources":{{"requests":{{"cpu":"100m","memory":"500Mi"}}}}}}]{extra}}}}}"#
    );
    serde_json::from_str(&json).expect("the JSON above is a pod")
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default| args.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let (nodes, pods) = (number(0, 5000), number(1, 10_000));
    let kind = args.get(2).map_or("basic", String::as_str);
    let profile = Profile::new("default-scheduler", scheduler::plugins::defaults());
    let mut s = Scheduler::new(vec![profile], 0, scheduler::Backoff::default());
    for i in 0..nodes {
        s.cache.set_node(&format!("node-{i}"), NodeSpec::of(&node(i)));
    }
    let now = Instant::now();
    for i in 0..pods {
        s.enqueue(Arc::new(PodInfo::of(&pod(i, kind))), false, now);
    }
    let start = std::time::Instant::now();
    let (mut placed, mut parked) = (0_usize, 0_usize);
    while let Some(decision) = s.next(now) {
        match decision {
            Decision::Place { queued, .. } => {
                s.queue.remove(&queued.pod.uid);
                placed += 1;
            }
            Decision::Park { message, .. } => {
                if parked == 0 {
                    println!("first refusal: {message}");
                }
                parked += 1;
            }
            Decision::Skip => {}
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{kind}: {nodes} nodes, {placed} pods placed, {parked} not, {seconds:.3} s, {:.0} pods/s",
        (placed + parked) as f64 / seconds
    );
}
