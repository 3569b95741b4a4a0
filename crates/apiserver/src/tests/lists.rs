//! Lists: pages, versions, selectors, tables, other forms.

use http::Method;
use meta::{Value, json};

use super::{Cluster, version};

const PATH: &str = "/api/v1/namespaces/default/configmaps";

fn names(list: &Value) -> Vec<&str> {
    list.array_at(&["items"]).iter().filter_map(|i| i.str_at(&["metadata", "name"])).collect()
}

#[tokio::test]
async fn pages_show_one_state() {
    let cluster = Cluster::start().await;
    for name in ["a", "b", "c", "d", "e"] {
        cluster.config_map(name, "1").await;
    }
    let first = cluster.get(&format!("{PATH}?limit=2")).await;
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first.int_at(&["metadata", "remainingItemCount"]), Some(3));
    cluster.ok(Method::DELETE, &format!("{PATH}/d"), Value::Null).await;
    cluster.config_map("bb", "1").await;
    let token = first.str_at(&["metadata", "continue"]).expect("token");
    let second = cluster.get(&format!("{PATH}?limit=2&continue={token}")).await;
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(version(&first), version(&second));
    assert_eq!(second.int_at(&["metadata", "remainingItemCount"]), Some(1));
    let token = second.str_at(&["metadata", "continue"]).expect("token");
    let third = cluster.get(&format!("{PATH}?limit=2&continue={token}")).await;
    assert_eq!(names(&third), ["e"]);
    assert!(third["metadata"]["continue"].is_null());
    let exact = cluster.get(&format!("{PATH}?resourceVersion={}&resourceVersionMatch=Exact", version(&first))).await;
    assert_eq!(names(&exact), ["a", "b", "c", "d", "e"]);
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
async fn selectors() {
    let cluster = Cluster::start().await;
    for (name, value) in [("a", "1"), ("b", "2"), ("c", "1")] {
        cluster.config_map(name, value).await;
    }
    for (query, want) in [
        ("labelSelector=v%3D1", vec!["a", "c"]),
        ("labelSelector=v+in+(2,3)", vec!["b"]),
        ("labelSelector=!v", vec![]),
        ("fieldSelector=metadata.name%3Db", vec!["b"]),
        ("fieldSelector=metadata.name!%3Db", vec!["a", "c"]),
        ("labelSelector=v%3D1&limit=1", vec!["a"]),
    ] {
        let list = cluster.get(&format!("{PATH}?{query}")).await;
        assert_eq!(names(&list), want, "{query}");
        assert!(list["metadata"]["remainingItemCount"].is_null(), "{query}");
    }
    cluster.pod("p").await;
    let pods = cluster.get("/api/v1/pods?fieldSelector=spec.nodeName%3D").await;
    assert_eq!(names(&pods), ["p"]);
    let pods = cluster.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn,status.phase%3DPending").await;
    assert_eq!(names(&pods), Vec::<&str>::new());
}

#[tokio::test]
async fn tables_and_metadata() {
    let cluster = Cluster::start().await;
    cluster.config_map("a", "1").await;
    let table = cluster.accepting(PATH, "application/json;as=Table;v=v1;g=meta.k8s.io,application/json").await.body;
    assert_eq!(table.str_at(&["kind"]), Some("Table"));
    assert_eq!(table.array_at(&["columnDefinitions"])[0].str_at(&["name"]), Some("Name"));
    let row = &table["rows"][0];
    assert_eq!(row["cells"][0].as_str(), Some("a"));
    assert_eq!(row.str_at(&["object", "kind"]), Some("PartialObjectMetadata"));
    let without =
        cluster.accepting(&format!("{PATH}?includeObject=None"), "application/json;as=Table;v=v1;g=meta.k8s.io").await;
    assert!(without.body["rows"][0]["object"].is_null());
    let single = cluster.accepting(&format!("{PATH}/a"), "application/json;as=Table;v=v1;g=meta.k8s.io").await.body;
    assert_eq!(single["rows"][0]["cells"][0].as_str(), Some("a"));
    let partial =
        cluster.accepting(PATH, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io").await.body;
    assert_eq!(partial.str_at(&["kind"]), Some("PartialObjectMetadataList"));
    assert!(partial["items"][0]["data"].is_null());
    assert_eq!(partial["items"][0].str_at(&["metadata", "name"]), Some("a"));
    let yaml = cluster.accepting(&format!("{PATH}/a"), "application/yaml").await;
    assert!(yaml.text.starts_with("apiVersion: v1\n"), "{}", yaml.text);
    assert_eq!(cluster.accepting(PATH, "text/html").await.code, 406);
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
async fn events_are_served_in_both_versions() {
    let cluster = Cluster::start().await;
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Started", "message": "m", "type": "Normal", "count": 1});
    cluster.ok(Method::POST, "/api/v1/namespaces/default/events", event).await;
    let other = cluster.get("/apis/events.k8s.io/v1/namespaces/default/events/e").await;
    assert_eq!(other.str_at(&["apiVersion"]), Some("events.k8s.io/v1"));
    assert_eq!(other.str_at(&["note"]), Some("m"));
    assert_eq!(other.str_at(&["regarding", "name"]), Some("p"));
    let list = cluster.get("/apis/events.k8s.io/v1/events").await;
    assert_eq!(list["items"][0].str_at(&["note"]), Some("m"));
}

#[tokio::test]
async fn rows_are_the_same_when_they_are_kept() {
    const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let cluster = Cluster::start().await;
    let made = cluster.pod("p").await;
    let path = "/api/v1/namespaces/default/pods";
    for _ in 0..2 {
        let row = cluster.accepting(path, TABLE).await.body["rows"][0].clone();
        let shown: Vec<&str> = row.array_at(&["cells"]).iter().take(4).filter_map(Value::as_str).collect();
        assert_eq!(shown, ["p", "0/1", "Pending", "0"]);
        assert_eq!(row["object"]["metadata"], made["metadata"]);
        let whole = cluster.accepting(&format!("{path}?includeObject=Object"), TABLE).await.body["rows"][0].clone();
        assert_eq!((&whole["cells"], &whole["object"]), (&row["cells"], &made));
    }
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"namespace": "default"}, "message": "\u{1}5\u{2}",
        "reportingComponent": "c", "reportingInstance": "i", "type": "Normal", "reason": "R"});
    cluster.ok(Method::POST, "/api/v1/namespaces/default/events", event).await;
    for path in ["/api/v1/namespaces/default/events", "/apis/events.k8s.io/v1/namespaces/default/events"] {
        let row = cluster.accepting(&format!("{path}?includeObject=Object"), TABLE).await.body["rows"][0].clone();
        assert_eq!(row["cells"][6].as_str(), Some("\u{1}5\u{2}"));
        let member = if path.starts_with("/api/") { "message" } else { "note" };
        assert_eq!(row["object"][member].as_str(), Some("\u{1}5\u{2}"));
    }
}
