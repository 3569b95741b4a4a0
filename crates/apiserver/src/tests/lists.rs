//! Lists of forgotten history, lists of all kinds, and what they are written as.

use http::Method;
use meta::Value;

use super::Cluster;

const PATH: &str = "/api/v1/namespaces/default/configmaps";

fn names(list: &Value) -> Vec<&str> {
    list.array_at(&["items"]).iter().filter_map(|i| i.str_at(&["metadata", "name"])).collect()
}

#[tokio::test]
async fn a_page_of_forgotten_history_says_how_to_go_on() {
    use store::Store;
    let cluster = Cluster::start().await;
    for name in ["a", "b", "c"] {
        cluster.config_map(name, "1").await;
    }
    let first = cluster.get(&format!("{PATH}?limit=1")).await;
    cluster.config_map("d", "1").await;
    cluster.store.compact(cluster.store.revision().await.expect("revision")).await.expect("compacted");
    let token = first.str_at(&["metadata", "continue"]).expect("token");
    let answer = cluster.call(Method::GET, &format!("{PATH}?limit=1&continue={token}"), Value::Null).await;
    assert_eq!((answer.code, answer.body.str_at(&["reason"])), (410, Some("Expired")));
    let token = answer.body.str_at(&["metadata", "continue"]).expect("another token");
    let rest = cluster.get(&format!("{PATH}?continue={token}")).await;
    assert_eq!(names(&rest), ["b", "c", "d"]);
}

#[tokio::test]
async fn yaml() {
    let cluster = Cluster::start().await;
    cluster.config_map("a", "1").await;
    let yaml = cluster.accepting(&format!("{PATH}/a"), "application/yaml").await;
    assert!(yaml.text.starts_with("apiVersion: v1\n"), "{}", yaml.text);
}

#[tokio::test]
async fn lengths_are_announced_truly() {
    let cluster = Cluster::start().await;
    for i in 0..300 {
        cluster.config_map(&format!("c{i}"), &"x".repeat(60)).await;
    }
    let response = cluster.send(cluster.request(Method::GET, PATH, "", "")).await;
    let announced = http_body::Body::size_hint(response.body()).exact().expect("a length");
    let answer = super::collect(response).await;
    assert_eq!(announced, answer.text.len() as u64);
    assert_eq!(names(&answer.body).len(), 300);
}

#[tokio::test]
async fn every_ga_resource_lists_and_watches_and_is_discovered() {
    let cluster = Cluster::start().await;
    for r in api::resource::all() {
        let base =
            if r.group.is_empty() { format!("/api/{}", r.version) } else { format!("/apis/{}/{}", r.group, r.version) };
        let listed = cluster.get(&base).await;
        let found = listed.array_at(&["resources"]).iter().any(|i| i.str_at(&["name"]) == Some(&r.plural));
        assert!(found, "{base} lacks {}", r.plural);
        if r.can("list") {
            let list = cluster.get(&format!("{base}/{}", r.plural)).await;
            assert_eq!(list.str_at(&["kind"]), Some(&*r.list_kind));
        }
    }
    for path in ["/api", "/apis", "/openapi/v2", "/openapi/v3", "/openapi/v3/apis/apps/v1", "/version", "/"] {
        assert!(!cluster.get(path).await.is_null(), "{path}");
    }
    let metrics = cluster.raw(Method::GET, "/metrics", "", "").await.text;
    assert!(metrics.contains("apiserver_request_total{code=\"200\""), "{metrics}");
}
