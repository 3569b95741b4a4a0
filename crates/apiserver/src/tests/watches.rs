//! Watches: order, starts, selectors, bookmarks, ends.

use futures::StreamExt;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tower::Service;

use http::Method;
use meta::{Value, json};
use store::Store;

use super::{Cluster, Lines, version};

const PATH: &str = "/api/v1/namespaces/default/configmaps";

async fn watch(cluster: &Cluster, query: &str) -> Lines {
    let path = format!("{PATH}?watch=true&{query}");
    Lines::new(cluster.send(cluster.request(Method::GET, &path, "", "")).await)
}

async fn set(cluster: &Cluster, name: &str, value: &str) -> Value {
    let body = json!({"metadata": {"labels": {"v": value}}, "data": {"v": value}});
    cluster.ok(Method::PATCH, &format!("{PATH}/{name}"), body).await
}

#[tokio::test]
async fn changes_come_in_order() {
    let cluster = Cluster::start().await;
    let a = cluster.config_map("a", "1").await;
    let mut lines = watch(&cluster, "").await;
    assert_eq!(lines.shown().await, format!("ADDED a@{}", version(&a)));
    let b = cluster.config_map("b", "1").await;
    let a2 = set(&cluster, "a", "2").await;
    cluster.ok(Method::DELETE, &format!("{PATH}/b"), Value::Null).await;
    assert_eq!(lines.shown().await, format!("ADDED b@{}", version(&b)));
    assert_eq!(lines.shown().await, format!("MODIFIED a@{}", version(&a2)));
    let deleted = lines.next().await.expect("event");
    assert_eq!(deleted.str_at(&["type"]), Some("DELETED"));
    let at: u64 = version(&deleted["object"]).parse().expect("number");
    assert!(at > version(&a2).parse().expect("number"));
}

#[tokio::test]
async fn a_watch_goes_on_from_any_version() {
    let cluster = Cluster::start().await;
    let a = cluster.config_map("a", "1").await;
    let b = cluster.config_map("b", "1").await;
    let a2 = set(&cluster, "a", "2").await;
    let mut lines = watch(&cluster, &format!("resourceVersion={}", version(&a))).await;
    assert_eq!(lines.shown().await, format!("ADDED b@{}", version(&b)));
    assert_eq!(lines.shown().await, format!("MODIFIED a@{}", version(&a2)));
}

#[tokio::test]
async fn history_before_the_cache_comes_from_the_store() {
    let first = Cluster::start().await;
    let a = first.config_map("a", "1").await;
    let b = first.config_map("b", "1").await;
    // A second server on the same store knows nothing of what happened before it.
    let config = crate::Config::new(first.store.clone());
    let server = crate::Server::start(config).await.expect("a second server");
    let local = server.local(crate::User::loopback());
    let path = format!("{PATH}?watch=true&resourceVersion={}", version(&a));
    let request = first.request(Method::GET, &path, "", "");
    let response = tower::Service::call(&mut local.clone(), request).await.unwrap_or_else(|e| match e {});
    let mut lines = Lines::new(response);
    assert_eq!(lines.shown().await, format!("ADDED b@{}", version(&b)));
    let c = first.config_map("c", "1").await;
    assert_eq!(lines.shown().await, format!("ADDED c@{}", version(&c)));

    let revision = first.store.revision().await.expect("revision");
    first.store.compact(revision).await.expect("compacted");
    let request = first.request(Method::GET, &path, "", "");
    let response = tower::Service::call(&mut local.clone(), request).await.unwrap_or_else(|e| match e {});
    let mut lines = Lines::new(response);
    let error = lines.next().await.expect("an event");
    assert_eq!(error.str_at(&["type"]), Some("ERROR"));
    assert_eq!(error.int_at(&["object", "code"]), Some(410));
    assert_eq!(error.str_at(&["object", "reason"]), Some("Expired"));
    assert_eq!(lines.shown().await, "end");
}

#[tokio::test]
async fn objects_move_into_and_out_of_a_selector() {
    let cluster = Cluster::start().await;
    let mut lines = watch(&cluster, "labelSelector=v%3D1").await;
    let a = cluster.config_map("a", "0").await;
    let in_sight = set(&cluster, "a", "1").await;
    let out_of_sight = set(&cluster, "a", "2").await;
    let b = cluster.config_map("b", "1").await;
    let _ = a;
    assert_eq!(lines.shown().await, format!("ADDED a@{}", version(&in_sight)));
    let gone = lines.next().await.expect("event");
    assert_eq!(gone.str_at(&["type"]), Some("DELETED"));
    assert_eq!(version(&gone["object"]), version(&out_of_sight));
    assert_eq!(gone.str_at(&["object", "metadata", "labels", "v"]), Some("1"));
    assert_eq!(lines.shown().await, format!("ADDED b@{}", version(&b)));
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let cluster = Cluster::start().await;
    let a = cluster.config_map("a", "1").await;
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut lines = watch(&cluster, query).await;
    assert_eq!(lines.shown().await, format!("ADDED a@{}", version(&a)));
    let mark = lines.next().await.expect("bookmark");
    assert_eq!(mark.str_at(&["type"]), Some("BOOKMARK"));
    assert_eq!(mark.str_at(&["object", "metadata", "annotations", "k8s.io/initial-events-end"]), Some("true"));
    assert_eq!(mark.str_at(&["object", "kind"]), Some("ConfigMap"));
    assert_eq!(version(&mark["object"]), version(&a));
}

#[tokio::test]
async fn bookmarks_and_the_end_come_in_time() {
    let cluster = Cluster::start().await;
    cluster.config_map("a", "1").await;
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    let mut lines = watch(&cluster, "allowWatchBookmarks=true&timeoutSeconds=100&resourceVersion=0").await;
    assert!(lines.shown().await.starts_with("ADDED a@"));
    assert!(lines.shown().await.starts_with("BOOKMARK @"));
    assert_eq!(begun.elapsed().as_secs(), 60);
    assert!(lines.shown().await.starts_with("BOOKMARK @"));
    assert_eq!(begun.elapsed().as_secs(), 98);
    assert_eq!(lines.shown().await, "end");
    assert_eq!(begun.elapsed().as_secs(), 100);
}

#[tokio::test]
async fn slow_watchers_are_ended_and_others_go_on() {
    let cluster = Cluster::start().await;
    cluster.config_map("a", "0").await;
    let mut slow = watch(&cluster, "resourceVersion=0").await;
    assert!(slow.shown().await.starts_with("ADDED a@"));
    for i in 0..9000 {
        set(&cluster, "a", &i.to_string()).await;
    }
    assert_eq!(slow.shown().await, "end");
    let mut other = watch(&cluster, "fieldSelector=metadata.name%3Da").await;
    assert!(other.shown().await.starts_with("ADDED a@"));
}

#[tokio::test]
async fn shutdown_ends_watches() {
    let cluster = Cluster::start().await;
    let mut lines = watch(&cluster, "").await;
    let ended = tokio::spawn(async move { lines.shown().await });
    tokio::task::yield_now().await;
    tokio::time::timeout(Duration::from_secs(10), cluster.server.shutdown()).await.expect("stopped");
    assert_eq!(ended.await.expect("joined"), "end");
}

#[tokio::test]
async fn a_websocket_has_a_message_an_event() {
    let cluster = Cluster::start().await;
    cluster.config_map("a", "1").await;
    let path = "/api/v1/namespaces/default/configmaps?watch=1&resourceVersion=0&timeoutSeconds=1";
    let ask = async |protocols: &str| {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let local = cluster.local.clone();
        let service = hyper::service::service_fn(move |request| local.clone().call(request));
        let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service);
        tokio::spawn(serving.with_upgrades());
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let asked =
            format!("GET {path} HTTP/1.1\r\nHost: h\r\n{upgrade}{key}Sec-WebSocket-Protocol: {protocols}\r\n\r\n");
        client.write_all(asked.as_bytes()).await.expect("sent");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.expect("a byte"));
        }
        (String::from_utf8(head).expect("text").to_lowercase(), client)
    };
    assert!(ask("a, b").await.0.starts_with("http/1.1 400 "));
    let (head, client) = ask("a").await;
    assert!(head.starts_with("http/1.1 101 ") && head.contains("sec-websocket-protocol: a\r\n"), "{head}");
    // The key and what follows from it are RFC 6455's example.
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
    let mut socket = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    let Some(Ok(Message::Text(event))) = socket.next().await else { panic!("an event") };
    assert!(event.starts_with("{\"type\":\"ADDED\",\"object\":{") && event.ends_with("}\n"), "{event}");
    let Some(Ok(Message::Close(Some(end)))) = socket.next().await else { panic!("an end") };
    assert_eq!(u16::from(end.code), 1000);
}
