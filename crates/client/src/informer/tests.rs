//! Informers over a scripted API in process. Reads and writes memory only. Invariant: no sockets, the clock is paused.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use expect_test::expect;
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Frame};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

type Answer = (u16, Vec<String>, bool);

/// Answers the nth request with the nth script entry: code, lines, and whether the body stays open.
fn scripted(script: Vec<Answer>) -> (Client, Arc<Mutex<Vec<String>>>) {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let (seen, next, script) = (requests.clone(), Arc::new(AtomicUsize::new(0)), Arc::new(script));
    let service = tower::service_fn(move |request: Request<Body>| {
        let place = next.fetch_add(1, Ordering::SeqCst);
        let query = request.uri().query().unwrap_or_default().to_string();
        seen.lock().unwrap().push(query);
        let (code, lines, open) = script.get(place).cloned().unwrap_or((200, Vec::new(), true));
        async move {
            let lines = lines.into_iter().map(|line| Ok::<_, Infallible>(Frame::data(Bytes::from(line + "\n"))));
            let body: UnsyncBoxBody<Bytes, Infallible> = if open {
                BodyExt::boxed_unsync(StreamBody::new(futures::stream::iter(lines).chain(futures::stream::pending())))
            } else {
                BodyExt::boxed_unsync(StreamBody::new(futures::stream::iter(lines)))
            };
            Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
        }
    });
    (crate::local::client(service, "default"), requests)
}

fn object(name: &str, version: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
        "namespace": "ns", "name": name, "uid": name, "resourceVersion": version,
        "managedFields": [{"manager": "test", "operation": "Update"}]}})
}

fn list(version: &str, items: Vec<Value>) -> Answer {
    let list =
        json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items});
    (200, vec![list.to_string()], false)
}

fn event(kind: &str, object: Value) -> String {
    json!({"type": kind, "object": object}).to_string()
}

fn status(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
        "message": reason})
}

fn recorded(informer: &Informer<ConfigMap>) -> Arc<Mutex<String>> {
    let log = Arc::new(Mutex::new(String::new()));
    let out = log.clone();
    informer.on_event(move |event| {
        let object = event.object();
        let verb = match event {
            Event::Added(_) => "added",
            Event::Modified { .. } => "modified",
            Event::Deleted(_) => "deleted",
        };
        assert_eq!(object.metadata.managed_fields, None);
        let line = format!("{verb} {}@{}\n", object.name_any(), object.resource_version().unwrap_or_default());
        out.lock().unwrap().push_str(&line);
    });
    log
}

#[tokio::test(start_paused = true)]
async fn changes_relists_and_failures_end_in_the_right_content() {
    let (client, requests) = scripted(vec![
        (500, vec![status(500, "InternalError").to_string()], false),
        list("10", vec![object("a", "1"), object("b", "2")]),
        (200, vec![event("MODIFIED", object("a", "11")), event("ADDED", object("c", "12"))], false),
        // resumed, but too old: once as an event, once as an answer
        (200, vec![event("ERROR", status(410, "Expired"))], false),
        list("20", vec![object("a", "11"), object("d", "19")]),
        (410, vec![status(410, "Expired").to_string()], false),
        list("30", vec![object("d", "29")]),
        (200, vec![event("DELETED", object("d", "31"))], true),
    ]);
    let shutdown = CancellationToken::new();
    let informers = Informers::new(client, shutdown.clone());
    let informer = informers.of::<ConfigMap>();
    let log = recorded(&informer);
    informer.synced().await;
    assert!(informer.has_synced());
    tokio::time::sleep(Duration::from_secs(30)).await;
    expect![[r#"
        added a@1
        added b@2
        modified a@11
        added c@12
        deleted b@2
        deleted c@12
        added d@19
        deleted a@11
        modified d@29
        deleted d@31
    "#]]
    .assert_eq(&log.lock().unwrap());
    assert!(informer.is_empty());
    expect![[r#"
        limit=500
        limit=500
        watch=true&timeoutSeconds=290&allowWatchBookmarks=true&resourceVersion=10
        watch=true&timeoutSeconds=290&allowWatchBookmarks=true&resourceVersion=12
        limit=500
        watch=true&timeoutSeconds=290&allowWatchBookmarks=true&resourceVersion=20
        limit=500
        watch=true&timeoutSeconds=290&allowWatchBookmarks=true&resourceVersion=30
    "#]]
    .assert_eq(
        &(requests.lock().unwrap().iter().map(|q| q.trim_start_matches(['&', '?'])).collect::<Vec<_>>().join("\n")
            + "\n"),
    );
    shutdown.cancel();
    informers.ended().await;
}

#[tokio::test(start_paused = true)]
async fn one_watch_serves_all_and_late_handlers_get_a_replay() {
    let (client, requests) = scripted(vec![list("10", vec![object("a", "1"), object("b", "2")])]);
    let informers = Informers::new(client, CancellationToken::new());
    let informer = informers.of::<ConfigMap>();
    informer.on_event(|_| panic!("a test panics on purpose"));
    informer.synced().await;
    let log = recorded(&informers.of::<ConfigMap>());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(log.lock().unwrap().as_str(), "added a@1\nadded b@2\n");
    assert_eq!(requests.lock().unwrap().len(), 2);
    assert!(informer.get("ns", "a").is_some());
    assert!(informer.get("other", "a").is_none());
    assert_eq!(informer.list_in("ns").len(), 2);
    let other = informers.filtered::<ConfigMap>(Some("app=web"), None);
    assert!(!other.has_synced());
}
