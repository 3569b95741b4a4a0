//! Proxy subresources, with small servers as what they lead to.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, LOCATION, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use meta::{Value, json};
use pki::{Authority, CertificateRequest};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tower::Service;

use super::Cluster;
use crate::KubeletClient;
use crate::body::{RequestBody, boxed};

/// A server that says what it was asked.
pub async fn backend(tls: Option<TlsAcceptor>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                let Some(tls) = tls else { return serve(tcp, None).await };
                let Ok(stream) = tls.accept(tcp).await else { return };
                let shown = stream.get_ref().1.peer_certificates().and_then(|all| pki::identity::of_der(&all[0]));
                serve(stream, shown.map(|identity| identity.name)).await;
            });
        }
    });
    address
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, certificate: Option<String>) {
    let service = service_fn(move |request| std::future::ready(Ok::<_, Infallible>(answer(request, &certificate))));
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

fn full(text: impl Into<Bytes>) -> RequestBody {
    boxed(http_body_util::Full::new(text.into()))
}

fn answer(mut request: Request<Incoming>, certificate: &Option<String>) -> Response<RequestBody> {
    if let Some(protocol) = request.headers().get(UPGRADE).cloned() {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded.await.expect("upgraded")));
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
        let answer = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header(UPGRADE, protocol);
        return answer.header(CONNECTION, "Upgrade").body(full("")).expect("an answer");
    }
    let document = match request.uri().path() {
        "/echo" => return Response::new(boxed(request.into_body())),
        "/moved" => {
            return Response::builder().status(302).header(LOCATION, "/there/").body(full("")).expect("an answer");
        }
        "/apis/ext.example.com/v1" => {
            json!({"kind": "APIResourceList", "groupVersion": "ext.example.com/v1", "resources": [
            {"name": "things", "singularName": "thing", "namespaced": true, "kind": "Thing", "verbs": ["get", "list"]},
            {"name": "things/scale", "singularName": "", "namespaced": true, "group": "autoscaling", "version": "v1",
                "kind": "Scale", "verbs": ["get"]}]})
        }
        "/openapi/v3" => json!({"paths": {
            "apis/ext.example.com/v1": {"serverRelativeURL": "/openapi/v3/apis/ext.example.com/v1?hash=A"},
            "apis/apps/v1": {"serverRelativeURL": "/openapi/v3/apis/apps/v1?hash=EVIL"}}}),
        "/openapi/v2" => json!({"paths": {"/apis/ext.example.com/v1/things": {"get": {"responses": {"200":
            {"schema": {"$ref": "#/definitions/Thing"}}}}}, "/api/v1/pods": {"get": {"description": "EVIL"}}},
            "definitions": {"Thing": {"type": "object"}}}),
        _ => Value::Null,
    };
    if !document.is_null() {
        return Response::new(full(document.to_vec()));
    }
    let mut said = format!("{} {}\n", request.method(), request.uri());
    if let Some(name) = certificate {
        said.push_str(&format!("certificate: {name}\n"));
    }
    let mut headers: Vec<_> = request.headers().iter().filter(|(name, _)| *name != HOST).collect();
    headers.sort_by_key(|(name, value)| (name.as_str(), value.as_bytes()));
    for (name, value) in headers {
        said.push_str(&format!("{name}: {}\n", value.to_str().expect("text")));
    }
    Response::new(full(said))
}

pub fn slice(name: &str, port_name: &str, at: SocketAddr) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
        "endpoints": [{"addresses": [at.ip().to_string()]}], "ports": [{"name": port_name, "port": at.port()}]})
}

pub const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
pub const SERVICES: &str = "/api/v1/namespaces/default/services";

/// Writes a slice past the server, which takes no loopback addresses, and waits until the server knows it.
pub async fn store_slice(cluster: &Cluster, slice: &Value) {
    let name = slice.str_at(&["metadata", "name"]).expect("a name");
    let put = store::Op::put(format!("/registry/endpointslices/default/{name}"), slice.to_vec());
    let txn = store::Txn { success: vec![put], ..Default::default() };
    store::Store::txn(&*cluster.store, txn).await.expect("written");
    cluster.get(&format!("{SLICES}/{name}")).await;
}

async fn cluster_with(at: SocketAddr) -> Cluster {
    let cluster = Cluster::start_with(|c| c.features.loopback_endpoints = true).await;
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"name": "web", "port": 80}]}});
    cluster.ok(Method::POST, SERVICES, service).await;
    store_slice(&cluster, &slice("s", "web", at)).await;
    cluster
}

#[tokio::test]
async fn a_service_is_reached() {
    let cluster = cluster_with(backend(None).await).await;
    for method in [Method::GET, Method::PATCH, Method::OPTIONS, Method::DELETE] {
        let mut request = cluster.request(method.clone(), &format!("{SERVICES}/s:web/proxy/a%2Fb//c?d=e&d=f"), "", "");
        for (name, value) in [("accept", "text/html"), ("authorization", "Bearer x"), ("x-mine", "1"), ("host", "h")] {
            request.headers_mut().insert(name, value.parse().expect("value"));
        }
        let answer = super::collect(cluster.send(request).await).await;
        let want = format!(
            "{method} /a%2Fb//c?d=e&d=f\naccept: text/html\nx-forwarded-uri: {SERVICES}/s:web/proxy/a%2Fb//c\nx-mine: 1\n"
        );
        assert_eq!((answer.code, answer.text.replace("content-length: 0\n", "")), (200, want));
    }
    let moved = cluster.call(Method::GET, &format!("{SERVICES}/s/proxy?a=b"), Value::Null).await;
    let location = |answer: &super::Answer| answer.headers[LOCATION].to_str().expect("text").to_string();
    assert_eq!((moved.code, location(&moved)), (301, format!("{SERVICES}/s/proxy/?a=b")));
    let posted = cluster.raw(Method::POST, &format!("{SERVICES}/http:s:80/proxy"), "", "").await;
    assert!(posted.text.starts_with("POST /\n"), "{}", posted.text);
    let moved = cluster.call(Method::GET, &format!("{SERVICES}/s/proxy/moved"), Value::Null).await;
    assert_eq!((moved.code, location(&moved)), (302, format!("{SERVICES}/s/proxy/there/")));
}

#[tokio::test]
async fn who_is_not_reached() {
    // Held, so that nobody else takes the port, but nobody listens.
    let held = tokio::net::TcpSocket::new_v4().expect("a socket");
    held.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let gone = held.local_addr().expect("an address");
    let cluster = cluster_with(gone).await;
    let pod = cluster.pod("p").await;
    let mut running = pod.clone();
    running.set(&["status"], json!({"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}));
    for (path, code, message) in [
        ("services/x:80/proxy/", 404, "services \"x\" not found".to_string()),
        ("services/s:81/proxy/", 503, "no service port 81 found for service \"s\"".into()),
        ("services/https:s:other/proxy/", 503, "no endpoints available for service \"s\"".into()),
        ("services/ftp:s:web/proxy/", 400, "invalid service request \"ftp:s:web\"".into()),
        (
            "services/s/proxy/",
            503,
            format!("error trying to reach service: dial tcp {gone}: connect: connection refused"),
        ),
        ("pods/p:80/proxy/", 400, "address not allowed".into()),
    ] {
        let answer = cluster.call(Method::GET, &format!("/api/v1/namespaces/default/{path}"), Value::Null).await;
        let said = (answer.code, answer.body.str_at(&["message"]).unwrap_or_default().to_string());
        assert_eq!(said, (code, message), "{path}");
    }
    // Its own machine's loopback is nobody's pod.
    cluster.ok(Method::PUT, "/api/v1/namespaces/default/pods/p/status", running).await;
    let answer = cluster.call(Method::GET, "/api/v1/namespaces/default/pods/p:80/proxy/", Value::Null).await;
    assert_eq!((answer.code, answer.body.str_at(&["message"])), (400, Some("address not allowed")));
}

#[tokio::test]
async fn bodies_flow_as_they_come() {
    let cluster = cluster_with(backend(None).await).await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
    let chunks = futures::stream::unfold(receiver, |mut receiver| async move {
        let data = receiver.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(data)), receiver))
    });
    let path = format!("{SERVICES}/s/proxy/echo");
    let request = Request::post(path).body(StreamBody::new(chunks)).expect("a request");
    let mut local = cluster.local.clone();
    sender.send(Bytes::from_static(b"one")).await.expect("taken");
    let mut body = local.call(request).await.unwrap_or_else(|e| match e {}).into_body();
    for word in ["one", "two"] {
        let frame = body.frame().await.expect("a frame").expect("data");
        assert_eq!(frame.into_data().expect("data"), word);
        if word == "one" {
            sender.send(Bytes::from_static(b"two")).await.expect("taken");
        }
    }
    drop(sender);
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn upgrades_are_tunneled() {
    let cluster = cluster_with(backend(None).await).await;
    let local = cluster.local.clone();
    let (mut client, server) = tokio::io::duplex(4096);
    let service = service_fn(move |request: Request<Incoming>| local.clone().call(request));
    let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service);
    tokio::spawn(serving.with_upgrades());
    let asked =
        format!("GET {SERVICES}/s/proxy/ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    client.write_all(asked.as_bytes()).await.expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.expect("a byte"));
    }
    let head = String::from_utf8(head).expect("text").to_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("upgrade: websocket"), "{head}");
    client.write_all(b"ping").await.expect("sent");
    let mut echoed = [0; 4];
    client.read_exact(&mut echoed).await.expect("read");
    assert_eq!(&echoed, b"ping");
}

#[tokio::test]
async fn a_kubelet_is_asked_with_our_certificate() {
    let ca = Authority::generate("test").expect("an authority");
    let request = CertificateRequest::server("n", &[], &["127.0.0.1".parse().expect("ip")]);
    let tls = pki::tls::server(&ca.issue(&request).expect("issued"), Some(ca.certificate_pem())).expect("TLS");
    let kubelet = backend(Some(TlsAcceptor::from(std::sync::Arc::new(tls)))).await;
    let identity = ca.issue(&CertificateRequest::client("apiserver", None)).expect("issued");
    let ca_pem = ca.certificate_pem().to_string();
    let cluster = Cluster::start_with(|c| c.kubelet_client = Some(KubeletClient { identity, ca_pem })).await;
    let mut node = cluster.ok(Method::POST, "/api/v1/nodes", json!({"metadata": {"name": "n"}})).await;
    node.set(&["status", "addresses"], json!([{"type": "InternalIP", "address": "127.0.0.1"}]));
    node.set(&["status", "daemonEndpoints", "kubeletEndpoint", "Port"], kubelet.port());
    cluster.ok(Method::PUT, "/api/v1/nodes/n/status", node).await;
    for id in ["n".to_string(), format!("n:{}", kubelet.port())] {
        let answer = cluster.call(Method::GET, &format!("/api/v1/nodes/{id}/proxy/metrics"), Value::Null).await;
        assert!(answer.text.starts_with("GET /metrics\ncertificate: apiserver\n"), "{}", answer.text);
    }
    let answer = cluster.call(Method::GET, "/api/v1/nodes/n:1/proxy/metrics", Value::Null).await;
    assert_eq!(answer.body.str_at(&["message"]), Some("address not allowed"));
}
