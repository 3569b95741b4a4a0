//! Many at once: nothing is given twice and nothing is lost.

use std::sync::Arc;

use http::Method;
use meta::{Value, json};

use super::Cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_update_is_lost() {
    let cluster = Arc::new(Cluster::start().await);
    cluster.config_map("a", "0").await;
    let path = "/api/v1/namespaces/default/configmaps/a";
    let mut tasks = Vec::new();
    for i in 0..8 {
        let cluster = cluster.clone();
        tasks.push(tokio::spawn(async move {
            for j in 0..10 {
                let key = format!("k{i}-{j}");
                let mut patch = json!({"data": {}});
                patch.set(&["data", &key], "v");
                // Many at one object may be told of a conflict, as upstream does after some attempts.
                while cluster.call(Method::PATCH, path, patch.clone()).await.code == 409 {}
            }
        }));
    }
    for task in tasks {
        task.await.expect("done");
    }
    let data = cluster.get(path).await;
    assert_eq!(data["data"].as_object().map(|m| m.len()), Some(81));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_wrote_reads_what_it_wrote() {
    let cluster = Arc::new(Cluster::start().await);
    let mut tasks = Vec::new();
    for i in 0..16 {
        let cluster = cluster.clone();
        tasks.push(tokio::spawn(async move {
            for j in 0..20 {
                let name = format!("c{i}-{j}");
                cluster.config_map(&name, "1").await;
                cluster.get(&format!("/api/v1/namespaces/default/configmaps/{name}")).await;
                let list = cluster.get("/api/v1/namespaces/default/configmaps").await;
                let found = list.array_at(&["items"]).iter().any(|o| o.str_at(&["metadata", "name"]) == Some(&name));
                assert!(found, "{name} is not in the list");
                cluster.ok(Method::DELETE, &format!("/api/v1/namespaces/default/configmaps/{name}"), Value::Null).await;
            }
        }));
    }
    for task in tasks {
        task.await.expect("done");
    }
}
