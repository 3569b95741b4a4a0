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
