//! Traces, as a collector gets them.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use http::{HeaderMap, HeaderValue, Method};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use meta::json;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::Cluster;
use super::webhooks::{Hooks, MUTATING, configure};
use crate::User;
use crate::trace::otlp::{AnyValue, ExportRequest, Span};
use crate::trace::{Settings, Tracer};

/// Takes spans; the channel has them.
async fn collector() -> (Settings, mpsc::UnboundedReceiver<Span>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
    let (sender, receiver) = mpsc::unbounded_channel();
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let sender = sender.clone();
        async move {
            assert_eq!(request.uri().path(), "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
            let body = request.into_body().collect().await?.to_bytes();
            // Of gRPC: one message, not compressed, after its length.
            let message = ExportRequest::decode(body.slice(5..)).expect("a message");
            let scopes = message.resource_spans.into_iter().flat_map(|r| r.scope_spans);
            scopes.flat_map(|s| s.spans).for_each(|span| drop(sender.send(span)));
            let mut answer = bytes::BytesMut::new();
            answer.put_bytes(0, 5);
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let body = Full::new(answer.freeze()).with_trailers(std::future::ready(Some(Ok(trailers))));
            let mut response = http::Response::new(body);
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            Ok::<_, hyper::Error>(response)
        }
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service.clone()));
        }
    });
    (Settings { endpoint, sampling_rate_per_million: 0 }, receiver)
}

fn request(cluster: &Cluster, method: Method, path: &str, body: &'static str) -> http::Request<Full<Bytes>> {
    let mut request = cluster.request(method, path, "application/json", body);
    let parent = HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    request.headers_mut().insert("traceparent", parent);
    request.headers_mut().insert("tracestate", HeaderValue::from_static("a=b"));
    request
}

/// Name, kind and attributes of a span and its parts.
fn shown(all: &[Span], parent: &[u8], depth: usize, out: &mut String) {
    let mut parts: Vec<&Span> = all.iter().filter(|s| s.parent_span_id == parent).collect();
    parts.sort_by_key(|s| s.start);
    for span in parts {
        assert_eq!(hex(&span.trace_id), "0af7651916cd43dd8448eb211c80319c");
        assert!((span.start..).contains(&span.end) && span.start > 0, "{span:?}");
        let value = |a: &AnyValue| a.text.clone().or(a.number.map(|n| n.to_string())).unwrap_or_default();
        let said = |name: &&str| span.attributes.iter().find(|a| a.key == **name).and_then(|a| a.value.as_ref());
        let names = ["http.response.status_code", "url.path", "key", "verb", "webhook", "resource"];
        let values: Vec<String> = names.iter().filter_map(said).map(value).collect();
        let line = format!("{:depth$}{} {} {}", "", span.name, span.kind, values.join(" "), depth = depth * 2);
        *out += &format!("{}\n", line.trim_end());
        shown(all, &span.span_id, depth + 1, out);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[tokio::test]
async fn a_request_and_its_parts_are_spans_of_the_callers_trace() {
    let (settings, mut spans) = collector().await;
    let tracer = Arc::new(Tracer::new(&settings).expect("a URL"));
    let cluster = Cluster::start_with(|c| c.tracer = Some(tracer)).await;
    let hooks = Hooks::start(|_, _| json!({"allowed": true})).await;
    configure(&cluster, MUTATING, vec![hooks.hook("a", json!({}))]).await;
    let path = "/api/v1/namespaces/default/configmaps";
    let made = cluster.send(request(&cluster, Method::POST, path, r#"{"metadata": {"name": "m"}}"#)).await;
    assert_eq!(made.status(), 201);
    cluster.send(request(&cluster, Method::GET, "/version", "")).await;
    // Nobody else says what is sampled.
    let mut other = cluster.server.local(User::new("other", Vec::<String>::new()));
    let asked = request(&cluster, Method::GET, path, "");
    tower::Service::call(&mut other, asked).await.expect("an answer");
    let contexts = hooks.contexts.lock().expect("not poisoned").clone();
    cluster.server.shutdown().await;
    let mut all = Vec::new();
    while let Ok(span) = spans.try_recv() {
        all.push(span);
    }
    let mut out = String::new();
    shown(&all, &0xb7ad_6b71_6920_3331_u64.to_be_bytes(), 0, &mut out);
    let want = "\
POST /api/v1/namespaces/{:namespace}/configmaps 2 201 /api/v1/namespaces/default/configmaps
  authentication 1
  authorization 1
  priorityandfairness 1
  Create 1 POST configmaps
    Call mutating webhook 1 a.hooks.test /v1, Resource=configmaps
      HTTP POST 3 200
    Create etcd3 1 /configmaps/default/m configmaps
GET 2 200 /version
  authentication 1
";
    assert_eq!(out, want);
    let call = all.iter().find(|s| s.name == "HTTP POST").expect("a call");
    let want = format!("00-{}-{}-01 a=b", hex(&call.trace_id), hex(&call.span_id));
    assert_eq!(contexts, [want]);
    assert_eq!(all.len(), out.lines().count(), "{all:?}");
}

#[tokio::test]
async fn a_collector_that_is_not_there_costs_spans_only() {
    let settings = Settings { endpoint: "http://127.0.0.1:1".into(), sampling_rate_per_million: 1_000_000 };
    let tracer = Arc::new(Tracer::new(&settings).expect("a URL"));
    let cluster = Cluster::start_with(|c| c.tracer = Some(tracer.clone())).await;
    for _ in 0..3000 {
        cluster.get("/version").await;
    }
    assert!(tracer.dropped() > 0, "more than the queue holds, and no time to send it");
    cluster.server.shutdown().await;
    // What was under way when the server stopped is not counted.
    assert!(tracer.dropped() > 5000, "{}", tracer.dropped());
}
