//! Slices of small services, as text. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::pack::Step;
use super::*;

fn service(spec: Value) -> Service {
    let mut spec = spec;
    if spec.get("ports").is_none() {
        spec["ports"] = json!([{"port": 80, "targetPort": "http", "name": "web"}]);
    }
    spec["selector"] = json!({"app": "web"});
    serde_json::from_value(
        json!({"metadata": {"name": "web", "namespace": "ns", "uid": "s", "labels": {"team": "a"}}, "spec": spec}),
    )
    .unwrap()
}

fn pod(name: &str, ip: &str, ready: bool, deleting: bool, port: i32) -> Arc<Pod> {
    let mut value = json!({
        "metadata": {"namespace": "ns", "name": name, "uid": name},
        "spec": {"nodeName": "n1", "hostname": name, "subdomain": "web",
            "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port}]}]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}, {"ip": "fd00::1"}],
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}});
    if deleting {
        value["metadata"]["deletionTimestamp"] = json!("2030-01-01T00:00:00Z");
    }
    Arc::new(serde_json::from_value(value).unwrap())
}

fn node(_: &str) -> Option<Arc<Node>> {
    Some(Arc::new(
        serde_json::from_value(json!({"metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "z1"}}}))
            .unwrap(),
    ))
}

struct World {
    slices: BTreeMap<String, Arc<EndpointSlice>>,
    next: usize,
    log: String,
}

impl World {
    fn new() -> Self {
        World { slices: BTreeMap::new(), next: 0, log: String::new() }
    }

    fn run(&mut self, what: &str, service: &Service, pods: &[Arc<Pod>], per_slice: usize) {
        let slices: Vec<_> = self.slices.values().cloned().collect();
        let wanted = desired::endpoints(service, pods, &node);
        self.log.push_str(&format!("-- {what}\n"));
        for step in pack::plan(&pack::Parent::of_service(service), &slices, wanted, per_slice, None) {
            match step {
                Step::Create(mut slice) => {
                    let name = format!("web-{}", self.next);
                    self.next += 1;
                    slice.metadata.name = Some(name.clone());
                    self.log.push_str(&format!("create {}", show(&slice)));
                    self.slices.insert(name, Arc::new(*slice));
                }
                Step::Update(slice) => {
                    self.log.push_str(&format!("update {}", show(&slice)));
                    self.slices.insert(slice.name_any(), Arc::new(*slice));
                }
                Step::Delete(slice) => {
                    self.log.push_str(&format!("delete {}\n", slice.name_any()));
                    self.slices.remove(&slice.name_any());
                }
            }
        }
    }
}

fn show(slice: &EndpointSlice) -> String {
    let ports: Vec<String> = slice
        .ports
        .iter()
        .flatten()
        .map(|port| format!("{}:{}", port.name.clone().unwrap(), port.port.unwrap()))
        .collect();
    let mut out = format!(
        "{} {} {ports:?} {:?}\n",
        slice.name_any(),
        slice.address_type,
        slice.labels().keys().collect::<Vec<_>>()
    );
    for endpoint in slice.endpoints.iter().flatten() {
        let conditions = endpoint.conditions.clone().unwrap();
        let mark =
            |value: Option<bool>, text: &str| if value == Some(true) { format!(" {text}") } else { String::new() };
        out.push_str(&format!(
            "  {:?}{}{}{} host={} node={} zone={}{}\n",
            endpoint.addresses,
            mark(conditions.ready, "ready"),
            mark(conditions.serving, "serving"),
            mark(conditions.terminating, "terminating"),
            endpoint.hostname.clone().unwrap_or_default(),
            endpoint.node_name.clone().unwrap_or_default(),
            endpoint.zone.clone().unwrap_or_default(),
            endpoint
                .hints
                .as_ref()
                .map(|hints| format!(" hints={}", serde_json::to_string(hints).unwrap()))
                .unwrap_or_default(),
        ));
    }
    out
}

#[test]
fn conditions_ports_and_placeholders() {
    let mut world = World::new();
    let plain = service(json!({}));
    world.run("nothing yet", &plain, &[], 100);
    let pods = [
        pod("a", "10.0.0.1", true, false, 8080),
        pod("b", "10.0.0.2", false, false, 8080),
        pod("c", "10.0.0.3", true, true, 9090),
    ];
    world.run("three pods, one with another port", &plain, &pods, 100);
    world.run("again", &plain, &pods, 100);
    let publish = service(
        json!({"publishNotReadyAddresses": true, "clusterIP": "None", "trafficDistribution": "PreferSameNode"}),
    );
    world.run("published not ready, headless, hints", &publish, &pods[..2], 100);
    let dual = service(json!({"ipFamilies": ["IPv4", "IPv6"], "ports": [{"port": 53, "protocol": "UDP"}]}));
    world.run("two families", &dual, &pods[..1], 100);
    world.run("gone", &plain, &[], 100);
    expect_test::expect_file!["tests/conditions_ports_and_placeholders.txt"].assert_eq(&world.log);
}

#[test]
fn packing_writes_little() {
    let mut world = World::new();
    let plain = service(json!({}));
    let pods: Vec<_> = (0..7).map(|n| pod(&format!("p{n}"), &format!("10.0.0.{n}"), true, false, 80)).collect();
    world.run("seven", &plain, &pods[..5], 3);
    world.run("the third goes", &plain, &[&pods[..2], &pods[3..5]].concat(), 3);
    world.run("two more", &plain, &[&pods[..2], &pods[3..7]].concat(), 3);
    world.run("most go", &plain, &pods[..1], 3);
    expect_test::expect_file!["tests/packing_writes_little.txt"].assert_eq(&world.log);
}
