//! Protobuf both ways: objects, lists, watches, errors, forms; and what an upstream server left in the store.

use bytes::Bytes;
use http::Method;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use http_body_util::BodyExt;
use meta::protobuf::{self, MEDIA_TYPE};
use meta::{Value, json};
use store::{Op, Store, Txn};

use super::{Answer, Cluster, collect, pod, version};
use crate::body::{Body, boxed};
use crate::handle::{Connection, handle};
use crate::protobuf::find;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const AS_METADATA: &str = ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

fn read(body: &[u8]) -> Value {
    protobuf::normal(body, &find).expect("a protobuf body")
}

async fn ask(cluster: &Cluster, method: Method, path: &str, accept: &str, body: Vec<u8>) -> Answer {
    let content_type = if body.is_empty() { "" } else { MEDIA_TYPE };
    let mut request = cluster.request(method, path, content_type, body);
    request.headers_mut().insert(ACCEPT, accept.parse().expect("header"));
    collect(cluster.send(request).await).await
}

async fn get(cluster: &Cluster, path: &str) -> Value {
    let answer = ask(cluster, Method::GET, path, MEDIA_TYPE, Vec::new()).await;
    assert_eq!((answer.code, &answer.headers[CONTENT_TYPE]), (200, &MEDIA_TYPE.parse().expect("a value")), "{path}");
    read(&answer.bytes)
}

/// A list as its items' own documents; an empty one is none, as protobuf cannot tell them apart.
fn items(mut list: Value) -> Value {
    for item in list.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        item.remove(&["apiVersion"]);
        item.remove(&["kind"]);
    }
    if list["items"].is_empty() {
        list.remove(&["items"]);
    }
    list
}

#[tokio::test]
async fn objects_lists_and_errors() {
    let cluster = Cluster::start().await;
    let mut document = pod("p");
    document.set(&["apiVersion"], "v1");
    document.set(&["kind"], "Pod");
    let body = crate::protobuf::body(&document).expect("has a form");
    let pods = "/api/v1/namespaces/default/pods";
    let created = ask(&cluster, Method::POST, pods, MEDIA_TYPE, body.clone()).await;
    assert_eq!(created.code, 201);
    for path in [
        "/api/v1/namespaces/default/pods/p", "/api/v1/namespaces/default", "/api/v1", "/apis", "/apis/apps",
        "/api/v1/namespaces/default/pods?limit=1", "/api/v1/namespaces", "/apis/events.k8s.io/v1/events",
    ] {
        let mut json = cluster.get(path).await;
        json.set_default(&["apiVersion"], "v1");
        let answer = get(&cluster, path).await;
        assert_eq!(items(answer), items(json), "{path}");
    }
    assert_eq!(read(&created.bytes), cluster.get("/api/v1/namespaces/default/pods/p").await);

    let again = ask(&cluster, Method::POST, pods, MEDIA_TYPE, body).await;
    assert_eq!((again.code, read(&again.bytes)["reason"].as_str()), (409, Some("AlreadyExists")));
    let absent = ask(&cluster, Method::GET, "/api/v1/namespaces/default/pods/x", MEDIA_TYPE, Vec::new()).await;
    assert_eq!(read(&absent.bytes)["message"].as_str(), Some("pods \"x\" not found"));
    let refused = ask(&cluster, Method::GET, pods, "text/html", Vec::new()).await;
    assert_eq!((refused.code, refused.body["reason"].as_str()), (406, Some("NotAcceptable")));
    cluster.config_map("c", "1").await;
    let deleted = ask(&cluster, Method::DELETE, &format!("{CONFIG_MAPS}/c"), MEDIA_TYPE, Vec::new()).await;
    assert_eq!(read(&deleted.bytes)["status"].as_str(), Some("Success"));
    cluster.config_map("d", "1").await;
    let all = ask(&cluster, Method::DELETE, CONFIG_MAPS, MEDIA_TYPE, Vec::new()).await;
    assert_eq!(read(&all.bytes)["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn forms() {
    let cluster = Cluster::start().await;
    cluster.config_map("c", "1").await;
    let accept = format!("{MEDIA_TYPE}{AS_METADATA},application/json{AS_METADATA}");
    let one = ask(&cluster, Method::GET, &format!("{CONFIG_MAPS}/c"), &accept, Vec::new()).await;
    let json = cluster.accepting(&format!("{CONFIG_MAPS}/c"), &format!("application/json{AS_METADATA}")).await;
    assert_eq!(read(&one.bytes), json.body);
    let list = ask(&cluster, Method::GET, CONFIG_MAPS, &accept.replace("Metadata;", "MetadataList;"), Vec::new()).await;
    let as_list = AS_METADATA.replace("Metadata;", "MetadataList;");
    let json = cluster.accepting(CONFIG_MAPS, &format!("application/json{as_list}")).await;
    assert_eq!(items(read(&list.bytes)), items(json.body));
    let yaml = cluster.accepting(&format!("{CONFIG_MAPS}?watch=1"), "application/yaml").await;
    assert_eq!(yaml.code, 406);
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let body = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    cluster.ok(Method::POST, deployments, body).await;
    let scale = format!("{deployments}/d/scale");
    assert_eq!(get(&cluster, &scale).await, cluster.get(&scale).await);
}

/// Frames of a watch as they come, as type and object.
struct Frames(Body, Vec<u8>);

impl Frames {
    async fn start(cluster: &Cluster, path: &str, accept: &str) -> Frames {
        let mut request = cluster.request(Method::GET, path, "", "");
        request.headers_mut().insert(ACCEPT, accept.parse().expect("header"));
        let response = cluster.send(request).await;
        assert_eq!(response.headers()[CONTENT_TYPE], "application/vnd.kubernetes.protobuf;stream=watch");
        Frames(response.into_body(), Vec::new())
    }

    async fn bytes(&mut self) -> Bytes {
        self.0.frame().await.expect("goes on").expect("a frame").into_data().expect("data")
    }

    async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some((head, rest)) = self.1.split_first_chunk::<4>()
                && let Some((frame, rest)) = rest.split_at_checked(u32::from_be_bytes(*head) as usize)
            {
                // A WatchEvent: its type, and a RawExtension with the enveloped object.
                let len = usize::from(frame[1]);
                let kind = String::from_utf8_lossy(&frame[2..2 + len]).into_owned();
                let start = frame.windows(4).position(|w| w == protobuf::MAGIC).expect("an envelope");
                let object = read(&frame[start..]);
                self.1 = rest.to_vec();
                return (kind, object);
            }
            let more = self.bytes().await;
            self.1.extend_from_slice(&more);
        }
    }
}

#[tokio::test]
async fn watches() {
    let cluster = Cluster::start().await;
    let a = cluster.config_map("a", "1").await;
    let path = format!(
        "{CONFIG_MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let mut whole = Frames::start(&cluster, &path, MEDIA_TYPE).await;
    let mut metadata = Frames::start(&cluster, &path, &format!("{MEDIA_TYPE};stream=watch{AS_METADATA}")).await;
    assert_eq!(whole.next().await, ("ADDED".into(), a.clone()));
    let (kind, mark) = whole.next().await;
    assert_eq!((kind.as_str(), mark["kind"].as_str()), ("BOOKMARK", Some("ConfigMap")));
    assert_eq!(mark.str_at(&["metadata", "annotations", "k8s.io/initial-events-end"]), Some("true"));
    let (kind, object) = metadata.next().await;
    assert_eq!((kind.as_str(), object["kind"].as_str()), ("ADDED", Some("PartialObjectMetadata")));
    assert_eq!(object["metadata"], a["metadata"]);
    assert_eq!(metadata.next().await.0, "BOOKMARK");

    // One change is encoded once for all who watch whole objects.
    let mut other =
        Frames::start(&cluster, &format!("{CONFIG_MAPS}?watch=1&resourceVersion={}", version(&a)), MEDIA_TYPE).await;
    let b = cluster.config_map("b", "1").await;
    let (first, second) = (whole.bytes().await, other.bytes().await);
    assert_eq!(first.as_ptr(), second.as_ptr());
    whole.1 = first.to_vec();
    assert_eq!(whole.next().await, ("ADDED".into(), b.clone()));
    cluster.ok(Method::DELETE, &format!("{CONFIG_MAPS}/b"), Value::Null).await;
    let (kind, gone) = whole.next().await;
    assert_eq!((kind.as_str(), gone["data"] == b["data"]), ("DELETED", true));
    assert_ne!(version(&gone), version(&b));

    cluster.store.compact(cluster.store.revision().await.expect("revision")).await.expect("compacted");
    let mut late = Frames::start(&cluster, &format!("{CONFIG_MAPS}?watch=1&resourceVersion=1"), MEDIA_TYPE).await;
    let (kind, status) = late.next().await;
    // The cache's ring may still reach that far back.
    assert!(kind == "ERROR" && status["code"].as_i64() == Some(410) || kind == "ADDED", "{kind} {status}");
}

#[tokio::test]
async fn large_answers_are_compressed() {
    let cluster = Cluster::start().await;
    cluster.config_map("large", &"v".repeat(60)).await;
    let body = json!({"data": {"x": "y".repeat(200 * 1024)}});
    cluster.ok(Method::PATCH, &format!("{CONFIG_MAPS}/large"), body).await;
    let user = Some(crate::User::new("far", ["system:masters"]));
    let far = Connection { user, is_near: false, peer: None };
    for path in [format!("{CONFIG_MAPS}/large"), CONFIG_MAPS.into()] {
        for accept in [MEDIA_TYPE, "application/json"] {
            let mut request = cluster.request(Method::GET, &path, "", "");
            request.headers_mut().insert(ACCEPT, accept.parse().expect("header"));
            request.headers_mut().insert(ACCEPT_ENCODING, "gzip".parse().expect("header"));
            let response = handle(cluster.server.shared.clone(), far.clone(), request.map(boxed)).await;
            assert_eq!(response.headers()[CONTENT_ENCODING], "gzip", "{path}");
            let compressed = collect(response).await.bytes;
            let mut plain = Vec::new();
            let mut reader = flate2::read::GzDecoder::new(&compressed[..]);
            std::io::Read::read_to_end(&mut reader, &mut plain).expect("gzip");
            let found = if accept == MEDIA_TYPE { read(&plain) } else { meta::parse(&plain).expect("JSON") };
            assert_eq!(items(found), items(cluster.get(&path).await));
        }
    }
}

#[tokio::test]
async fn values_that_upstream_stored() {
    let cluster = Cluster::start().await;
    let document = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"},
        "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z", "name": "n", "namespace": "default", "uid": "u"}});
    let value = Bytes::from(crate::protobuf::body(&document).expect("has a form"));
    let put = Op::Put { key: Bytes::from_static(b"/registry/configmaps/default/n"), value, lease: 0 };
    let txn = Txn { success: vec![put], ..Txn::default() };
    let done = cluster.store.txn(txn).await.expect("written");
    let mut want = document;
    want.set(&["metadata", "resourceVersion"], done.revision.to_string());
    assert_eq!(cluster.get(&format!("{CONFIG_MAPS}/n")).await, want);
    let changed = cluster.ok(Method::PATCH, &format!("{CONFIG_MAPS}/n"), json!({"data": {"c": "d"}})).await;
    assert_eq!(changed["data"], json!({"a": "b", "c": "d"}));
}
