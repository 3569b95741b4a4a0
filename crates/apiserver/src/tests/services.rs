//! Services: what they are given, keep and give back.

use http::Method;
use meta::{Value, json};

use super::Cluster;

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

#[tokio::test]
async fn ips_and_ports_are_given_kept_and_given_back() {
    let cluster = Cluster::start().await;
    let made = cluster.ok(Method::POST, PATH, service("a", json!({"type": "NodePort"}))).await;
    let ip = made.str_at(&["spec", "clusterIP"]).expect("an ip").to_string();
    let port = made["spec"]["ports"][0].int_at(&["nodePort"]).expect("a port");
    assert!((30000..=32767).contains(&port));
    let mut updated = service("a", json!({"type": "NodePort", "sessionAffinity": "ClientIP"}));
    updated.set(&["metadata", "labels"], json!({"x": "y"}));
    let kept = cluster.ok(Method::PUT, &format!("{PATH}/a"), updated).await;
    assert_eq!(kept.str_at(&["spec", "clusterIP"]), Some(ip.as_str()));
    assert_eq!(kept["spec"]["ports"][0].int_at(&["nodePort"]), Some(port));

    let same_ip = service("b", json!({"clusterIP": ip.as_str()}));
    let refused = cluster.call(Method::POST, PATH, same_ip.clone()).await;
    let message = refused.body.str_at(&["message"]).unwrap_or_default().to_string();
    assert!(message.contains(&format!("failed to allocate IP {ip}: provided IP is already allocated")), "{message}");
    let mut same_port = service("b", json!({"type": "NodePort"}));
    same_port.set(&["spec", "ports"], json!([{"port": 80, "nodePort": port}]));
    let refused = cluster.call(Method::POST, PATH, same_port.clone()).await;
    assert_eq!(
        refused.body.str_at(&["message"]),
        Some(&*format!(
            r#"Service "b" is invalid: spec.ports[0].nodePort: Invalid value: {port}: provided port is already allocated"#
        ))
    );

    cluster.ok(Method::DELETE, &format!("{PATH}/a"), Value::Null).await;
    cluster.ok(Method::POST, PATH, same_ip).await;
    same_port.set(&["metadata", "name"], "c");
    cluster.ok(Method::POST, PATH, same_port).await;
}

#[tokio::test]
async fn types_change_what_a_service_has() {
    let cluster = Cluster::start().await;
    let made = cluster.ok(Method::POST, PATH, service("a", json!({"type": "NodePort"}))).await;
    let port = made["spec"]["ports"][0].int_at(&["nodePort"]).expect("a port");
    let mut plain = made.clone();
    plain.set(&["spec", "type"], "ClusterIP");
    let plain = cluster.ok(Method::PUT, &format!("{PATH}/a"), plain).await;
    assert!(plain["spec"]["ports"][0]["nodePort"].is_null());
    let mut other = service("b", json!({"type": "NodePort"}));
    other.set(&["spec", "ports"], json!([{"port": 80, "nodePort": port}]));
    cluster.ok(Method::POST, PATH, other).await;
    let headless = cluster.ok(Method::POST, PATH, service("h", json!({"clusterIP": "None"}))).await;
    assert_eq!(headless.str_at(&["spec", "clusterIP"]), Some("None"));
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    let external = service("e", json!({"type": "ExternalName", "externalName": "example.com"}));
    let external = cluster.ok(Method::POST, PATH, external).await;
    assert!(external["spec"]["clusterIP"].is_empty());
}

#[tokio::test]
async fn what_is_refused() {
    let cluster = Cluster::start().await;
    let out_of_range = cluster.call(Method::POST, PATH, service("a", json!({"clusterIP": "1.2.3.4"}))).await;
    assert_eq!(out_of_range.code, 422);
    let text = out_of_range.body.str_at(&["message"]).unwrap_or_default();
    assert!(
        text.ends_with("the provided IP (1.2.3.4) is not in the valid range. The range of valid IPs is 10.96.0.0/12"),
        "{text}"
    );
    let mut port = service("a", json!({"type": "NodePort"}));
    port.set(&["spec", "ports"], json!([{"port": 80, "nodePort": 80}]));
    let refused = cluster.call(Method::POST, PATH, port).await;
    assert_eq!(
        refused.body.str_at(&["message"]),
        Some(
            "Service \"a\" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The \
             range of valid ports is 30000-32767"
        )
    );
}

#[tokio::test]
async fn a_new_server_knows_what_is_taken() {
    let cluster = Cluster::start().await;
    let made = cluster.ok(Method::POST, PATH, service("a", json!({"type": "NodePort"}))).await;
    let ip = made.str_at(&["spec", "clusterIP"]).expect("an ip");
    let server = crate::Server::start(crate::Config::new(cluster.store.clone())).await.expect("a second server");
    let mut local = server.local(crate::User::loopback());
    let body = service("b", json!({"clusterIP": ip})).to_vec();
    let request = cluster.request(Method::POST, PATH, "application/json", body);
    let response = tower::Service::call(&mut local, request).await.unwrap_or_else(|e| match e {});
    assert_eq!(response.status(), 422);
}

#[tokio::test]
async fn the_kubernetes_service_is_there() {
    let cluster = Cluster::start_with(|c| c.advertise_port = 6443).await;
    let service = cluster.get(&format!("{PATH}/kubernetes")).await;
    assert_eq!(service.str_at(&["spec", "clusterIP"]), Some("10.96.0.1"));
    let slice = cluster.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes").await;
    assert_eq!(slice["ports"][0].int_at(&["port"]), Some(6443));
    let endpoints = cluster.get("/api/v1/namespaces/default/endpoints/kubernetes").await;
    assert_eq!(endpoints["subsets"][0]["addresses"], json!([{"ip": "127.0.0.1"}]));
}
