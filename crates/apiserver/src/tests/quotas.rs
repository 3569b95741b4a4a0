//! Quotas: what is used never exceeds what is allowed, and is charged exactly for what is stored.

use std::sync::Arc;

use http::Method;
use meta::{Value, json};

use super::{Cluster, pod};

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";

/// A quota as the controller leaves it when nothing is there.
async fn quota(cluster: &Cluster, name: &str, hard: Value) {
    let zero = hard.as_object().expect("names").keys().map(|name| (name.into(), "0".into())).collect();
    let body = json!({"metadata": {"name": name}, "spec": {"hard": hard.clone()}});
    let mut made = cluster.ok(Method::POST, QUOTAS, body).await;
    made.set(&["status", "hard"], hard);
    made.set(&["status", "used"], Value::Object(zero));
    cluster.ok(Method::PUT, &format!("{QUOTAS}/{name}/status"), made).await;
}

async fn used(cluster: &Cluster, name: &str) -> String {
    cluster.get(&format!("{QUOTAS}/{name}")).await["status"]["used"].to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_at_once_never_exceed_a_quota() {
    let one = Arc::new(Cluster::start().await);
    let other = Arc::new(one.another(|_| {}).await);
    quota(&one, "few", json!({"pods": "7"})).await;
    quota(&one, "many", json!({"count/pods": "100", "requests.cpu": "1"})).await;
    let mut tasks = Vec::new();
    for i in 0..40 {
        let cluster = if i % 2 == 0 { one.clone() } else { other.clone() };
        tasks.push(tokio::spawn(async move {
            let mut pod = pod(&format!("p{i}"));
            let container = json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": "10m"}}});
            pod.set(&["spec", "containers"], vec![container]);
            let answer = cluster.call(Method::POST, "/api/v1/namespaces/default/pods", pod).await;
            (answer.code, answer.body["message"].to_string())
        }));
    }
    let (mut made, mut refused) = (0, 0);
    for task in tasks {
        match task.await.expect("answered") {
            (201, _) => made += 1,
            (403, message) => {
                let want = "is forbidden: exceeded quota: few, requested: pods=1, used: pods=7, limited: pods=7";
                assert!(message.contains(want), "{message}");
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((made, refused), (7, 33));
    assert_eq!(used(&one, "few").await, r#"{"pods":"7"}"#);
    assert_eq!(used(&other, "many").await, r#"{"count/pods":"7","requests.cpu":"70m"}"#);
}

#[tokio::test]
async fn only_what_is_stored_is_charged() {
    let cluster = Cluster::start().await;
    quota(&cluster, "q", json!({"configmaps": "2", "services.nodeports": "1"})).await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = |name: &str| json!({"metadata": {"name": name}});
    for (path, name, code, charged) in [
        (maps.to_string(), "a", 201, "1"),
        (maps.to_string(), "a", 409, "1"),
        (format!("{maps}?dryRun=All"), "b", 201, "1"),
        (maps.to_string(), "Wrong", 422, "1"),
        (maps.to_string(), "b", 201, "2"),
        (format!("{maps}?dryRun=All"), "c", 403, "2"),
        (maps.to_string(), "c", 403, "2"),
    ] {
        let answer = cluster.call(Method::POST, &path, map(name)).await;
        assert_eq!(answer.code, code, "{path} {name}: {}", answer.text);
        let want = format!(r#"{{"configmaps":"{charged}","services.nodeports":"0"}}"#);
        assert_eq!(used(&cluster, "q").await, want, "{path} {name}");
    }
    cluster.ok(Method::PATCH, &format!("{maps}/a"), json!({"data": {"k": "v"}})).await;
    let services = "/api/v1/namespaces/default/services";
    for name in ["s", "t"] {
        let body = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
        cluster.ok(Method::POST, services, body).await;
    }
    let open = json!({"spec": {"type": "NodePort"}});
    cluster.ok(Method::PATCH, &format!("{services}/s"), open.clone()).await;
    assert_eq!(used(&cluster, "q").await, r#"{"configmaps":"2","services.nodeports":"1"}"#);
    let refused = cluster.call(Method::PATCH, &format!("{services}/t"), open).await;
    let want = "services \"t\" is forbidden: exceeded quota: q, requested: services.nodeports=1, used: \
                services.nodeports=1, limited: services.nodeports=1";
    assert_eq!((refused.code, refused.body["message"].as_str()), (403, Some(want)));
    quota(&cluster, "cpu", json!({"requests.cpu": "1"})).await;
    let silent = cluster.call(Method::POST, "/api/v1/namespaces/default/pods", pod("p")).await;
    let want = "pods \"p\" is forbidden: failed quota: cpu: must specify requests.cpu for: c";
    assert_eq!(silent.body["message"].as_str(), Some(want));
}

#[tokio::test]
async fn a_write_that_a_count_misses_outdates_it() {
    let cluster = Cluster::start().await;
    let body = json!({"metadata": {"name": "new"}, "spec": {"hard": {"secrets": "1"}}});
    let mut seen = cluster.ok(Method::POST, QUOTAS, body).await;
    cluster.config_map("a", "1").await;
    let other = cluster.get(&format!("{QUOTAS}/new")).await;
    assert_eq!(super::version(&other), super::version(&seen));
    cluster.ok(Method::POST, "/api/v1/namespaces/default/secrets", json!({"metadata": {"name": "s"}})).await;
    seen.set(&["status"], json!({"hard": {"secrets": "1"}, "used": {"secrets": "0"}}));
    let late = cluster.call(Method::PUT, &format!("{QUOTAS}/new/status"), seen).await;
    assert_eq!(late.code, 409, "{}", late.text);
}
