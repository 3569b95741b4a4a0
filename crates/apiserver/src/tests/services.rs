//! Services: what they are given, keep and give back.

use std::sync::Arc;

use http::Method;
use meta::{Value, json};
use store::{Op, Store, Txn};

use super::Cluster;
use crate::config::Cidr;

const PATH: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, spec: Value) -> Value {
    let mut service = json!({"metadata": {"name": name}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}});
    if let Some(members) = spec.as_object() {
        for (key, value) in members.iter() {
            service.set(&["spec", key], value);
        }
    }
    service
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_servers_never_give_one_thing_twice() {
    let few = |c: &mut crate::Config| {
        (c.service_cidrs, c.node_ports) = (vec![Cidr::parse("10.9.0.0/25").expect("cidr")], 30000..=30099);
    };
    let cluster = Arc::new(Cluster::start_with(few).await);
    let other = Arc::new(cluster.another(few).await);
    let create = |i: usize, ty: &str| {
        let server = if i.is_multiple_of(2) { cluster.clone() } else { other.clone() };
        let body = service(&format!("{}{i}", ty.to_lowercase()), json!({"type": ty}));
        tokio::spawn(async move { server.call(Method::POST, PATH, body).await })
    };
    // The last port and the last address are given out as well: 125 beside that of `kubernetes`.
    for (count, ty) in [(100, "NodePort"), (25, "ClusterIP")] {
        let all = futures::future::join_all((0..count).map(|i| create(i, ty))).await;
        let refused: Vec<_> = all.into_iter().map(|a| a.expect("an answer")).filter(|a| a.code != 201).collect();
        assert!(refused.is_empty(), "{}: {}", refused.len(), refused[0].text);
    }
    let (ips, ports) = given(&other).await;
    assert_eq!((ips.len(), ports.len()), (126, 100));
    let full = create(99, "ClusterIP").await.expect("an answer").body;
    assert_eq!(
        full.str_at(&["message"]),
        Some("Internal error occurred: failed to allocate a serviceIP: range is full")
    );

    let freed = cluster.get(&format!("{PATH}/nodeport7")).await;
    other.ok(Method::DELETE, &format!("{PATH}/nodeport7"), Value::Null).await;
    let mut again = service("again", json!({"type": "NodePort", "clusterIP": freed["spec"]["clusterIP"].clone()}));
    again.set(&["spec", "ports"], json!([{"port": 80, "nodePort": freed["spec"]["ports"][0]["nodePort"].clone()}]));
    cluster.ok(Method::POST, PATH, again.clone()).await;
    again.set(&["metadata", "name"], "twice");
    let refused = other.call(Method::POST, PATH, again).await;
    assert!(refused.text.contains("provided IP is already allocated"), "{}", refused.text);
    assert_eq!(given(&cluster).await.0.len(), 126);
}

/// The addresses that services have, each with an IPAddress object, and the ports; every one of them once.
async fn given(cluster: &Cluster) -> (Vec<String>, Vec<i64>) {
    let list = cluster.get("/api/v1/services").await;
    let text = |v: &Value| v.as_str().map(String::from);
    let services = list.array_at(&["items"]);
    let mut ips: Vec<_> = services.iter().flat_map(|s| s.array_at(&["spec", "clusterIPs"])).filter_map(text).collect();
    let addresses = cluster.get("/apis/networking.k8s.io/v1/ipaddresses").await;
    let addresses = addresses.array_at(&["items"]);
    let mut objects: Vec<_> = addresses.iter().filter_map(|a| text(&a["metadata"]["name"])).collect();
    ips.sort();
    objects.sort();
    assert_eq!(ips, objects);
    let mut ports: Vec<i64> =
        services.iter().flat_map(|s| s.array_at(&["spec", "ports"])).filter_map(|p| p.int_at(&["nodePort"])).collect();
    ports.sort_unstable();
    let (count, port_count) = (ips.len(), ports.len());
    ips.dedup();
    ports.dedup();
    assert_eq!((ips.len(), ports.len()), (count, port_count));
    (ips, ports)
}

#[tokio::test]
async fn ranges_may_be_added_and_addresses_are_objects() {
    const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";
    let cluster = Cluster::start_with(|c| c.service_cidrs = vec![Cidr::parse("10.9.0.0/30").expect("cidr")]).await;
    let range = cluster.get(&format!("{RANGES}/kubernetes")).await;
    assert_eq!(range["spec"]["cidrs"], json!(["10.9.0.0/30"]));
    assert_eq!(range["status"]["conditions"][0]["status"], json!("True"));
    cluster.ok(Method::POST, PATH, service("a", json!({}))).await;
    let full = cluster.call(Method::POST, PATH, service("b", json!({}))).await;
    assert_eq!(full.code, 500);
    let more = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.9.1.0/24"]}});
    cluster.ok(Method::POST, RANGES, more).await;
    let made = cluster.ok(Method::POST, PATH, service("b", json!({}))).await;
    let ip = made.str_at(&["spec", "clusterIP"]).expect("an ip").to_string();
    assert!(ip.starts_with("10.9.1."), "{ip}");
    let address = cluster.get(&format!("/apis/networking.k8s.io/v1/ipaddresses/{ip}")).await;
    let labels = json!({"ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"});
    assert_eq!(address["metadata"]["labels"], labels);
    assert_eq!(address["spec"], json!({"parentRef": {"resource": "services", "namespace": "default", "name": "b"}}));
}

#[tokio::test]
async fn what_was_lost_is_repaired() {
    let cluster = Cluster::start().await;
    let made = cluster.ok(Method::POST, PATH, service("a", json!({"type": "NodePort"}))).await;
    let ip = made.str_at(&["spec", "clusterIP"]).expect("an ip");
    let path = format!("/apis/networking.k8s.io/v1/ipaddresses/{ip}");
    cluster.ok(Method::DELETE, &path, Value::Null).await;
    cluster
        .store
        .txn(Txn { success: vec![Op::delete(crate::alloc::ports::KEY)], ..Txn::default() })
        .await
        .expect("deleted");
    crate::alloc::repair::run(&cluster.server.shared).await.expect("repaired");
    assert_eq!(cluster.get(&path).await["spec"]["parentRef"]["name"], json!("a"));
    let events = cluster.get("/api/v1/namespaces/default/events").await;
    let mut reasons: Vec<_> = events.array_at(&["items"]).iter().map(|e| e["reason"].to_string()).collect();
    reasons.sort();
    assert_eq!(reasons, ["\"ClusterIPNotAllocated\"", "\"PortNotAllocated\""]);
    let mut same = service("b", json!({"type": "NodePort"}));
    same.set(&["spec", "ports"], made["spec"]["ports"].clone());
    assert!(cluster.call(Method::POST, PATH, same).await.text.contains("provided port is already allocated"));
}

#[tokio::test]
async fn two_families() {
    let cidrs = ["10.9.0.0/24", "fd00::/112"].map(|c| Cidr::parse(c).expect("cidr"));
    let cluster = Cluster::start_with(|c| c.service_cidrs = cidrs.to_vec()).await;
    let shown = |s: &Value| -> String {
        let ips =
            s.array_at(&["spec", "clusterIPs"]).iter().map(|ip| if ip.to_string().contains(':') { "6" } else { "4" });
        format!("{} {} {}", ips.collect::<String>(), s["spec"]["ipFamilies"], s["spec"]["ipFamilyPolicy"])
    };
    let made = cluster.ok(Method::POST, PATH, service("a", json!({}))).await;
    assert_eq!(shown(&made), r#"4 ["IPv4"] "SingleStack""#);
    let both = json!({"spec": {"ipFamilyPolicy": "RequireDualStack"}});
    let upgraded = cluster.ok(Method::PATCH, &format!("{PATH}/a"), both).await;
    assert_eq!(shown(&upgraded), r#"46 ["IPv4","IPv6"] "RequireDualStack""#);
    assert_eq!(given(&cluster).await.0.len(), 3);
    let one = json!({"spec": {"ipFamilyPolicy": "SingleStack"}});
    let downgraded = cluster.ok(Method::PATCH, &format!("{PATH}/a"), one).await;
    assert_eq!(shown(&downgraded), r#"4 ["IPv4"] "SingleStack""#);
    assert_eq!(downgraded["spec"]["clusterIP"], made["spec"]["clusterIP"]);
    let prefers = json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6"]});
    let made = cluster.ok(Method::POST, PATH, service("b", prefers)).await;
    assert_eq!(shown(&made), r#"64 ["IPv6","IPv4"] "PreferDualStack""#);
    assert_eq!(given(&cluster).await.0.len(), 4);
    let outside = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
    let outside = cluster.ok(Method::PATCH, &format!("{PATH}/b"), outside).await;
    assert!(outside["spec"]["clusterIPs"].is_empty() && outside["spec"]["ipFamilies"].is_empty());
    assert_eq!(given(&cluster).await.0.len(), 2);
    cluster.ok(Method::PATCH, &format!("{PATH}/b"), json!({"spec": {"type": "ClusterIP", "externalName": null}})).await;
    assert_eq!(given(&cluster).await.0.len(), 3);
}

#[tokio::test]
async fn health_ports_come_and_go() {
    let cluster = Cluster::start_with(|c| c.node_ports = 30000..=30001).await;
    let local = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"});
    let made = cluster.ok(Method::POST, PATH, service("a", local)).await;
    assert!(made.int_at(&["spec", "healthCheckNodePort"]).is_some_and(|p| p >= 30000));
    let path = format!("{PATH}/a");
    let refused = cluster.call(Method::PATCH, &path, json!({"spec": {"healthCheckNodePort": 30009}})).await;
    assert!(refused.text.contains("spec.healthCheckNodePort: Forbidden: field is immutable"), "{}", refused.text);
    let free = || async {
        cluster.call(Method::POST, &format!("{PATH}?dryRun=All"), service("b", json!({"type": "NodePort"}))).await
    };
    assert!(free().await.text.contains("failed to allocate a nodePort: range is full"));
    let plain = cluster.ok(Method::PATCH, &path, json!({"spec": {"externalTrafficPolicy": "Cluster"}})).await;
    assert!(plain["spec"]["healthCheckNodePort"].is_null());
    assert_eq!(free().await.code, 201);
    cluster.ok(Method::POST, PATH, service("b", json!({"type": "NodePort"}))).await;
    cluster.ok(Method::PATCH, &path, json!({"spec": {"type": "ClusterIP"}})).await;
    assert_eq!(given(&cluster).await.1.len(), 1);
}

#[tokio::test]
async fn all_servers_stand_in_the_endpoints() {
    const PATH: &str = "/api/v1/namespaces/default/endpoints/kubernetes";
    let at = |ip: &'static str| {
        move |c: &mut crate::Config| (c.advertise, c.advertise_port) = (ip.parse().expect("ip"), 6443)
    };
    let cluster = Cluster::start_with(at("10.0.0.2")).await;
    let other = cluster.another(at("10.0.0.1")).await;
    let addresses = |e: &Value| e["subsets"][0]["addresses"].to_string();
    let endpoints = cluster.get(PATH).await;
    assert_eq!(addresses(&endpoints), r#"[{"ip":"10.0.0.1"},{"ip":"10.0.0.2"}]"#);
    let watch = format!("{PATH}?watch=1&resourceVersion={}", super::version(&endpoints))
        .replace("endpoints/kubernetes", "endpoints");
    let mut lines = super::Lines::new(cluster.send(cluster.request(Method::GET, &watch, "", "")).await);
    other.server.shutdown().await;
    let event = lines.next().await.expect("the other is taken out");
    assert_eq!(addresses(&event["object"]), r#"[{"ip":"10.0.0.2"}]"#);
}

#[tokio::test]
async fn the_kubernetes_service_is_there() {
    let cluster = Cluster::start_with(|c| (c.advertise, c.advertise_port) = ([10, 0, 0, 1].into(), 6443)).await;
    let service = cluster.get(&format!("{PATH}/kubernetes")).await;
    assert_eq!(service.str_at(&["spec", "clusterIP"]), Some("10.96.0.1"));
    let slice = cluster.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes").await;
    assert_eq!(slice["ports"][0].int_at(&["port"]), Some(6443));
    let endpoints = cluster.get("/api/v1/namespaces/default/endpoints/kubernetes").await;
    assert_eq!(endpoints["subsets"][0]["addresses"], json!([{"ip": "10.0.0.1"}]));
}
