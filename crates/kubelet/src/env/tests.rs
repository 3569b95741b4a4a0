//! Tables for the environment of a container: documents in, variables or the error out.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::*;

fn objects() -> Objects {
    let map: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "cm"}, "data": {"KEY": "from-map", "bad=name": "x"}}))
            .unwrap();
    let secret: Secret =
        serde_json::from_value(json!({"metadata": {"name": "sec"}, "data": {"PASS": "aHVudGVyMg=="}})).unwrap();
    Objects {
        config_maps: BTreeMap::from([("cm".into(), Arc::new(map))]),
        secrets: BTreeMap::from([("sec".into(), Arc::new(secret))]),
    }
}

fn services() -> Vec<Arc<Service>> {
    let https = json!([{"name": "https", "port": 443}]);
    let both = json!([{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    let all = [
        ("default", "kubernetes", "10.96.0.1", https),
        ("ns", "web-front", "10.96.0.9", both),
        ("ns", "headless", "None", json!([{"port": 80}])),
        ("other", "hidden", "10.96.0.7", json!([{"port": 80}])),
    ];
    let service = |(namespace, name, ip, ports)| json!({"metadata": {"namespace": namespace, "name": name}, "spec": {"clusterIP": ip, "ports": ports}});
    all.map(|one: (&str, &str, &str, serde_json::Value)| Arc::new(serde_json::from_value(service(one)).unwrap())).into()
}

#[test]
fn variables() {
    let allocatable =
        BTreeMap::from([("cpu".to_owned(), Quantity("2".into())), ("memory".to_owned(), Quantity("1Gi".into()))]);
    let (services, objects) = (services(), objects());
    golden::check!("tests/containers.txt", |case| {
        let (links, container) = case.split_once(' ').unwrap();
        let container: Container = serde_json::from_str(container).unwrap();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u1", "labels": {"b": "2", "a": "one\n\"1\""}, "annotations": {"k": "v"}},
            "spec": {"nodeName": "n1", "serviceAccountName": "sa", "enableServiceLinks": links == "links", "containers": [container]},
        }))
        .unwrap();
        let inputs = Inputs {
            pod: &pod,
            pod_ips: &["10.1.0.5".to_owned(), "fd00::5".to_owned()],
            host_ips: &["192.168.0.2".to_owned()],
            allocatable: &allocatable,
            services: &services,
            objects: &objects,
        };
        match plan(&inputs, &container) {
            Ok(env) => env.iter().map(|(name, value)| format!("{name}={value:?}\n")).collect(),
            Err(error) => format!("!{error}"),
        }
    });
}

#[test]
fn references_and_arguments() {
    let container: Container = serde_json::from_value(json!({
        "name": "c",
        "envFrom": [{"configMapRef": {"name": "a"}}, {"secretRef": {"name": "s"}}],
        "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "b", "key": "k"}}}],
    }))
    .unwrap();
    let found = references(&container);
    assert_eq!(found, References { config_maps: ["a".into(), "b".into()].into(), secrets: ["s".into()].into() });
    let env = [("A".to_owned(), "1".to_owned())];
    assert_eq!(super::expand(&["$(A)".into(), "$(B)".into(), "$$(A)".into()], &env), ["1", "$(B)", "$(A)"]);
}
