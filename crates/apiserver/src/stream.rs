//! Connections that stay open: exec, attach, port-forward and logs, from the client through here to a kubelet.
//!
//! Reads: the client's upgrade request. What the kubelet answers instead of an upgrade reaches the client as a Status.
//! Invariant: nothing is upgraded towards the client before the kubelet has agreed, so errors stay readable.

pub mod connect;
mod links;
pub mod log;
pub mod port_forward;
pub mod proxy;
pub mod remote_command;
pub mod spdy;
pub mod watch;

use std::net::SocketAddr;

use bytes::Bytes;
use futures::TryStreamExt;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::{Method, StatusCode};
use http_body_util::{BodyExt, BodyStream, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use meta::{Reason, Status};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::backend::{Backend, insert};
use crate::body::{Body, Request, Response, boxed};
use remote_command::{Upgraded, Wanted};

const PROTOCOLS: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const WS_PROTOCOL: HeaderName = HeaderName::from_static("sec-websocket-protocol");
const WS_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const WS_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
const WS_VERSION: HeaderName = HeaderName::from_static("sec-websocket-version");
const WS_EXTENSIONS: HeaderName = HeaderName::from_static("sec-websocket-extensions");

/// What of a kubelet's error is read.
const ERROR_BYTES: usize = 16 << 10;
/// The largest WebSocket message taken from a client.
const MESSAGE_BYTES: usize = 1 << 20;

/// What kind of stream is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// exec and attach.
    RemoteCommand,
    PortForward,
}

/// Joins an upgrade request to the kubelet's `path` (with its query).
pub async fn connect(
    kubelet: &Backend,
    at: SocketAddr,
    path: &str,
    kind: Kind,
    mut request: Request,
) -> Result<Response, Status> {
    let way = Way::of(&request, kind)?;
    let asked = way.request(&request, path)?;
    let mut answer = ask(kubelet, at, asked).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refused(answer).await);
    }
    let mut response = http::Response::new(Body::Empty);
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    way.answer(&request, &answer, response.headers_mut());
    let wanted = Wanted::from_query(request.uri().query().unwrap_or_default());
    let (client, kubelet) = (hyper::upgrade::on(&mut request), hyper::upgrade::on(&mut answer));
    tokio::spawn(async move {
        let (client, kubelet): (Upgraded, Upgraded) = match tokio::try_join!(client, kubelet) {
            Ok((client, kubelet)) => (TokioIo::new(client), TokioIo::new(kubelet)),
            Err(error) => return tracing::debug!("a connection was not upgraded: {error}"),
        };
        if let Err(error) = way.carry(client, kubelet, wanted).await {
            tracing::debug!("a stream ended: {error}");
        }
    });
    Ok(response)
}

/// How bytes get from one side to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The same protocol on both sides.
    Join,
    /// WebSocket channels to SPDY streams.
    Translate,
    /// SPDY inside a WebSocket.
    Tunnel,
}

impl Way {
    fn of(request: &Request, kind: Kind) -> Result<Self, Status> {
        let upgrade = text(request, &UPGRADE).to_ascii_lowercase();
        if upgrade.starts_with("spdy/3.1") {
            return Ok(Way::Join);
        }
        if upgrade != "websocket" {
            return Err(Status::bad_request("Upgrade request required"));
        }
        let offered = |protocol: &str| text(request, &WS_PROTOCOL).split(',').any(|p| p.trim() == protocol);
        Ok(match kind {
            Kind::RemoteCommand if offered(remote_command::V5) => Way::Translate,
            Kind::PortForward if offered(port_forward::TUNNEL) => Way::Tunnel,
            _ => Way::Join,
        })
    }

    /// The kubelet's side of the upgrade.
    fn request(self, client: &Request, path: &str) -> Result<http::Request<Empty<Bytes>>, Status> {
        let mut request = http::Request::builder().method(Method::POST).uri(path);
        match self {
            Way::Join => {
                request = request.method(client.method());
                for name in [UPGRADE, PROTOCOLS, WS_PROTOCOL, WS_KEY, WS_VERSION, WS_EXTENSIONS] {
                    for value in client.headers().get_all(&name) {
                        request = request.header(&name, value);
                    }
                }
            }
            Way::Translate => request = request.header(UPGRADE, "SPDY/3.1").header(PROTOCOLS, remote_command::SPDY_V4),
            Way::Tunnel => request = request.header(UPGRADE, "SPDY/3.1").header(PROTOCOLS, port_forward::INNER),
        }
        request.header(CONNECTION, "Upgrade").body(Empty::new()).map_err(Status::internal)
    }

    /// The client's side of the upgrade.
    fn answer(self, client: &Request, kubelet: &http::Response<Incoming>, headers: &mut http::HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        let protocol = match self {
            Way::Join => {
                for name in [UPGRADE, PROTOCOLS, WS_PROTOCOL, WS_ACCEPT, WS_EXTENSIONS] {
                    for value in kubelet.headers().get_all(&name) {
                        headers.append(&name, value.clone());
                    }
                }
                return;
            }
            Way::Translate => remote_command::V5,
            Way::Tunnel => port_forward::TUNNEL,
        };
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(WS_PROTOCOL, HeaderValue::from_static(protocol));
        let key = client.headers().get(&WS_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
        if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key)) {
            headers.insert(WS_ACCEPT, accept);
        }
    }

    async fn carry(
        self,
        mut client: Upgraded,
        mut kubelet: Upgraded,
        wanted: Wanted,
    ) -> Result<(), remote_command::StreamError> {
        match self {
            Way::Join => {
                tokio::io::copy_bidirectional(&mut client, &mut kubelet).await?;
                Ok(())
            }
            Way::Translate => remote_command::translate(websocket(client).await, kubelet, wanted).await,
            Way::Tunnel => port_forward::tunnel(websocket(client).await, kubelet).await,
        }
    }
}

/// Whether a request asks for a WebSocket.
pub fn wants_websocket(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|upgrade| upgrade.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// The answer that agrees to a WebSocket, in this protocol if one was chosen.
fn switching(asked: &HeaderMap, protocol: Option<HeaderValue>) -> Response {
    let mut response = http::Response::new(Body::Empty);
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.extend(protocol.map(|protocol| (WS_PROTOCOL, protocol)));
    let key = asked.get(&WS_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    headers.extend(HeaderValue::from_str(&derive_accept_key(key)).ok().map(|accept| (WS_ACCEPT, accept)));
    response
}

async fn websocket(client: Upgraded) -> WebSocketStream<Upgraded> {
    let config = WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES)).max_frame_size(Some(MESSAGE_BYTES));
    WebSocketStream::from_raw_socket(client, Role::Server, Some(config)).await
}

fn text<'a>(request: &'a Request, name: &HeaderName) -> &'a str {
    request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

/// Sends a kubelet a request without a body; the answer may be upgraded.
async fn ask(
    kubelet: &Backend,
    at: SocketAddr,
    mut request: http::Request<Empty<Bytes>>,
) -> Result<http::Response<Incoming>, Status> {
    insert(request.headers_mut(), HOST, &at.to_string());
    let answer = kubelet.send(&[at], request.map(boxed)).await;
    answer.map(|(answer, _)| answer).map_err(|why| Status::internal(format!("error dialing backend: {why}")))
}

/// Fetches the kubelet's `path` and hands its body through as it comes: logs.
pub async fn fetch(kubelet: &Backend, at: SocketAddr, path: &str) -> Result<Response, Status> {
    let request = http::Request::builder().method(Method::GET).uri(path).body(Empty::new());
    let answer = ask(kubelet, at, request.map_err(Status::internal)?).await?;
    if !answer.status().is_success() {
        return Err(refused(answer).await);
    }
    let (head, body) = answer.into_parts();
    let frames = BodyStream::new(body)
        .try_filter_map(|frame| async move { Ok(frame.into_data().ok()) })
        .map_err(|e| Box::new(e) as crate::body::BoxError);
    let mut response = http::Response::new(Body::stream(frames));
    *response.status_mut() = head.status;
    let content_type = head.headers.get(CONTENT_TYPE).cloned();
    let content_type = content_type.unwrap_or(HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}

/// What a kubelet answered instead of what was asked, as a Status with its code and its words.
async fn refused(answer: http::Response<Incoming>) -> Status {
    let code = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), ERROR_BYTES).collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let message = String::from_utf8_lossy(&body).trim().to_string();
    match code {
        400 => Status::bad_request(message),
        404 => Status::new(404, Reason::NotFound, message),
        _ if message.is_empty() => Status::internal(format!("the kubelet answered {code}")),
        _ => Status::internal(message),
    }
}
