//! The whole scheduler against an API of canned answers: what it writes for pods that fit, that do not, and whose binding fails.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::client::Body;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

type Writes = Arc<Mutex<Vec<(String, Value)>>>;
type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

fn answer(code: u16, body: &Value) -> Answer {
    let body = Full::new(Bytes::from(body.to_string())).boxed_unsync();
    Response::builder().status(code).header("content-type", "application/json").body(body).expect("a response")
}

/// A watch that never says anything.
fn silence() -> Answer {
    let body = StreamBody::new(stream::pending::<Result<http_body::Frame<Bytes>, Infallible>>());
    Response::new(BodyExt::boxed_unsync(body))
}

fn pod(name: &str, cpu: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "d", "uid": format!("uid-{name}"), "resourceVersion": "1"},
        "spec": {"schedulerName": "default-scheduler", "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}})
}

fn objects(path: &str) -> Vec<Value> {
    match path.rsplit('/').next() {
        Some("pods") => vec![pod("fits", "1"), pod("huge", "100"), pod("taken", "1")],
        Some("nodes") => vec![json!({"metadata": {"name": "n1", "uid": "n1", "resourceVersion": "1"},
            "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}}})],
        _ => Vec::new(),
    }
}

async fn serve(writes: Writes, request: Request<Body>) -> Result<Answer, Infallible> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let query = parts.uri.query().unwrap_or_default();
    if parts.method == Method::GET {
        if query.contains("watch=") {
            return Ok(silence());
        }
        let list =
            json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": objects(&path)});
        return Ok(answer(200, &list));
    }
    let bytes = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    writes.lock().expect("not poisoned").push((format!("{} {path}", parts.method), value.clone()));
    if path.ends_with("/taken/binding") {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 500, "reason": "InternalError", "message": "etcd is gone"});
        return Ok(answer(500, &status));
    }
    Ok(answer(
        201,
        &if path.ends_with("/binding") {
            json!({"kind": "Status", "apiVersion": "v1", "status": "Success"})
        } else {
            value
        },
    ))
}

/// The parts of the writes that matter here, sorted.
fn summary(writes: &Writes) -> Vec<String> {
    let mut out: Vec<_> = writes
        .lock()
        .expect("not poisoned")
        .iter()
        .filter(|(what, _)| !(what.starts_with("PATCH") && what.contains("/events/"))) // repeats of the same event
        .map(|(what, body)| {
            if what.ends_with("/events") {
                let (kind, about) = (&body["type"], &body["involvedObject"]["name"]);
                format!("event {} {} {}: {}", about.as_str().unwrap_or("?"), kind, body["reason"], body["message"])
            } else if what.ends_with("/binding") {
                format!("{what} -> {} {}", body["target"]["name"], body["metadata"]["uid"])
            } else {
                let condition = &body["status"]["conditions"][0];
                format!("{what} {} {} {}", condition["type"], condition["reason"], condition["message"])
            }
        })
        .collect();
    out.sort();
    out.dedup();
    out
}

#[tokio::test]
async fn pods_are_bound_or_told_why_not() {
    let writes: Writes = Writes::default();
    let seen = writes.clone();
    let service = tower::service_fn(move |request| serve(seen.clone(), request));
    let kube = client::local::client(service, "default");
    let shutdown = CancellationToken::new();
    let informers = client::Informers::new(kube.clone(), shutdown.clone());
    let run = tokio::spawn(scheduler::run(scheduler::Config::default(), kube, informers, shutdown.clone()));
    let complete = async {
        while writes.lock().expect("not poisoned").iter().filter(|(w, _)| w.ends_with("/events")).count() < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(120), complete).await;
    shutdown.cancel();
    run.await.expect("no panic").expect("no error");
    assert!(done.is_ok(), "not all events came: {:#?}", summary(&writes));
    expect_test::expect![[r#"
        PATCH /api/v1/namespaces/d/pods/huge/status "PodScheduled" "Unschedulable" "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        PATCH /api/v1/namespaces/d/pods/taken/status "PodScheduled" "SchedulerError" "binding rejected: running Bind plugin \"DefaultBinder\": etcd is gone"
        POST /api/v1/namespaces/d/pods/fits/binding -> "n1" "uid-fits"
        POST /api/v1/namespaces/d/pods/taken/binding -> "n1" "uid-taken"
        event fits "Normal" "Scheduled": "Successfully assigned d/fits to n1"
        event huge "Warning" "FailedScheduling": "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        event taken "Warning" "FailedScheduling": "binding rejected: running Bind plugin \"DefaultBinder\": etcd is gone""#]].assert_eq(&summary(&writes).join("\n"));
}
