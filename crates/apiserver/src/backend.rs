//! Requests passed on to other servers: pods, services, nodes, aggregated API servers.
//!
//! Reads: a service's EndpointSlices from the watch cache. Invariants: bodies flow both ways as they come; what a client
//! showed to be let in here goes no further; nothing is upgraded towards the client before the backend has agreed.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, stream};
use http::header::{AUTHORIZATION, CONNECTION, HOST, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use meta::Value;
use rand::seq::SliceRandom;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::body::{Body, BoxError, Request, RequestBody, Response};
use crate::shared::Shared;

const DIAL_LIMIT: Duration = Duration::from_secs(10);
/// Connections kept for the next request, per backend.
const IDLE_MAX: usize = 16;
/// Of one connection, not of the request (RFC 9110, 7.6.1, and what httputil takes out beside it).
const HOP_BY_HOP: [&str; 9] = [
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
];
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// Where a request came from, among its extensions.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

type Sender = SendRequest<RequestBody>;
type Idle = Arc<Mutex<Vec<(SocketAddr, Sender)>>>;

/// How to speak to a server.
#[derive(Default)]
pub struct Backend {
    /// With the name that its certificate has to be for; its address where none is given.
    tls: Option<(Arc<ClientConfig>, Option<String>)>,
    /// `None`: every request has a connection of its own.
    idle: Option<Idle>,
}

impl Backend {
    pub fn tls(mut config: ClientConfig, name: Option<String>) -> Backend {
        config.alpn_protocols = vec![b"http/1.1".to_vec()]; // upgrades are HTTP/1.1's
        Backend { tls: Some((Arc::new(config), name)), idle: None }
    }

    /// Keeps connections for the next request.
    pub fn kept(self) -> Backend {
        Backend { idle: Some(Idle::default()), ..self }
    }

    /// Passes a request on to `target` (path and query) at one of these addresses, and the answer back. The error is in
    /// the words of Go's dialler.
    pub async fn pass(&self, at: &[SocketAddr], mut request: Request, target: &str) -> Result<Response, String> {
        let upgrades = wants_upgrade(request.headers());
        let client = upgrades.then(|| hyper::upgrade::on(&mut request));
        let (parts, body) = request.into_parts();
        let mut asked = http::Request::new(body);
        *asked.method_mut() = parts.method;
        *asked.uri_mut() = target.parse().map_err(|e| format!("{target:?}: {e}"))?;
        *asked.headers_mut() = parts.headers;
        let headers = asked.headers_mut();
        strip(headers, upgrades);
        withhold_credentials(headers);
        if let Some(Peer(ip)) = parts.extensions.get() {
            let before = headers.get(&FORWARDED_FOR).and_then(|v| v.to_str().ok()).map(|v| format!("{v}, "));
            insert(headers, FORWARDED_FOR, &format!("{}{ip}", before.unwrap_or_default()));
        }
        if !headers.contains_key(HOST) {
            let host = parts.uri.authority().map(ToString::to_string);
            insert(headers, HOST, &host.or(at.first().map(ToString::to_string)).unwrap_or_default());
        }
        let (mut answer, kept) = self.send(at, asked).await?;
        let backend = (answer.status() == StatusCode::SWITCHING_PROTOCOLS).then(|| hyper::upgrade::on(&mut answer));
        let (parts, body) = answer.into_parts();
        let body = match (client, backend) {
            (Some(client), Some(backend)) => {
                tokio::spawn(join(client, backend));
                Body::Empty
            }
            (None, Some(_)) => return Err("the backend switched protocols though nobody asked for it".into()),
            (_, None) => Body::stream(frames(body, kept)),
        };
        let mut response = Response::new(body);
        *response.status_mut() = parts.status;
        *response.headers_mut() = parts.headers;
        strip(response.headers_mut(), parts.status == StatusCode::SWITCHING_PROTOCOLS);
        Ok(response)
    }

    /// Sends a request as it is.
    pub async fn send(
        &self,
        at: &[SocketAddr],
        mut request: http::Request<RequestBody>,
    ) -> Result<(http::Response<Incoming>, Option<Kept>), String> {
        while let Some((address, mut sender)) = self.idle.as_ref().and_then(|idle| take(idle, at)) {
            match sender.try_send_request(request).await {
                Ok(answer) => return Ok((answer, self.keep(address, sender))),
                // It has ended meanwhile, and says so before it takes the request.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().to_string()),
                },
            }
        }
        let mut order = at.to_vec();
        order.shuffle(&mut rand::rng());
        let mut failed = String::from("no endpoints available");
        for address in order {
            let dialled = tokio::time::timeout(DIAL_LIMIT, self.dial(address)).await;
            match dialled.unwrap_or_else(|_| Err(format!("dial tcp {address}: i/o timeout"))) {
                Ok(mut sender) => {
                    let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
                    return Ok((answer, self.keep(address, sender)));
                }
                Err(why) => failed = why,
            }
        }
        Err(failed)
    }

    fn keep(&self, address: SocketAddr, sender: Sender) -> Option<Kept> {
        self.idle.clone().map(|idle| Kept { idle, address, sender })
    }

    async fn dial(&self, address: SocketAddr) -> Result<Sender, String> {
        let tcp = TcpStream::connect(address).await.map_err(|e| {
            let what = match e.kind() {
                ErrorKind::ConnectionRefused => "connection refused".to_string(),
                ErrorKind::HostUnreachable => "no route to host".to_string(),
                ErrorKind::NetworkUnreachable => "network is unreachable".to_string(),
                _ => e.to_string(),
            };
            format!("dial tcp {address}: connect: {what}")
        })?;
        let _ = tcp.set_nodelay(true);
        let Some((config, name)) = &self.tls else { return handshake(tcp).await };
        let name = match name {
            Some(name) => ServerName::try_from(name.clone()).map_err(|e| e.to_string())?,
            None => ServerName::IpAddress(address.ip().into()),
        };
        let stream = TlsConnector::from(config.clone()).connect(name, tcp).await;
        handshake(stream.map_err(|e| format!("tls: failed to verify certificate: {e}"))?).await
    }
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Result<Sender, String> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!("the connection to a backend ended: {error}");
        }
    });
    Ok(sender)
}

/// A connection that goes back among the idle ones once its answer has been read.
pub struct Kept {
    idle: Idle,
    address: SocketAddr,
    sender: Sender,
}

impl Kept {
    pub fn put_back(self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push((self.address, self.sender));
        }
    }
}

/// An idle connection to one of these addresses.
fn take(idle: &Idle, at: &[SocketAddr]) -> Option<(SocketAddr, Sender)> {
    let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
    idle.retain(|(address, sender)| !sender.is_closed() && at.contains(address));
    let found = idle.iter().position(|(_, sender)| sender.is_ready())?;
    Some(idle.swap_remove(found))
}

/// The data of an answer as it comes.
fn frames(body: Incoming, kept: Option<Kept>) -> impl Stream<Item = Result<Bytes, BoxError>> + Send {
    stream::unfold((body, kept), |(mut body, kept)| async move {
        loop {
            match body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => return Some((Ok(data), (body, kept))),
                    Err(_trailers) => continue,
                },
                Some(Err(error)) => return Some((Err(error.into()), (body, None))),
                None => {
                    kept?.put_back();
                    return None;
                }
            }
        }
    })
}

async fn join(client: OnUpgrade, backend: OnUpgrade) {
    let (mut client, mut backend) = match tokio::try_join!(client, backend) {
        Ok((client, backend)) => (TokioIo::new(client), TokioIo::new(backend)),
        Err(error) => return tracing::debug!("a connection was not upgraded: {error}"),
    };
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut backend).await {
        tracing::debug!("a stream ended: {error}");
    }
}

pub fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        headers.insert(name, value);
    }
}

fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).map(str::trim)
}

pub fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE) && words(headers, &CONNECTION).any(|w| w.eq_ignore_ascii_case("upgrade"))
}

/// Takes out what belongs to one connection only; an upgrade is asked for anew.
fn strip(headers: &mut HeaderMap, upgrades: bool) {
    let protocol = headers.get(UPGRADE).filter(|_| upgrades).cloned();
    let named: Vec<HeaderName> = words(headers, &CONNECTION).filter_map(|w| w.parse().ok()).collect();
    // Who asks was written by us: a client may not have it taken out again by naming it as the connection's.
    let named = named.iter().filter(|name| !name.as_str().starts_with("x-remote-"));
    named.for_each(|name| drop(headers.remove(name)));
    HOP_BY_HOP.iter().for_each(|name| drop(headers.remove(*name)));
    if let Some(protocol) = protocol {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

fn withhold_credentials(headers: &mut HeaderMap) {
    headers.remove(AUTHORIZATION);
    let secret = |word: &&str| !word.starts_with(crate::authn::BEARER_PROTOCOL);
    let rest: Vec<&str> = words(headers, &SEC_WEBSOCKET_PROTOCOL).filter(secret).collect();
    let rest = rest.join(", ");
    headers.remove(SEC_WEBSOCKET_PROTOCOL);
    if !rest.is_empty() {
        insert(headers, SEC_WEBSOCKET_PROTOCOL, &rest);
    }
}

/// Whether an address is one that other machines could reach too.
pub fn is_proxyable(ip: IpAddr) -> bool {
    let is_local = match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
    };
    !(is_local || ip.is_unspecified() || ip.is_multicast())
}

/// Where a service's port leads.
pub enum Leads {
    To(Vec<SocketAddr>),
    /// To a name outside of the cluster.
    Outside(String),
}

/// Why a service's port leads nowhere.
pub enum Lost {
    Service,
    Port,
    /// Of the port of this name.
    Endpoints(String),
}

pub fn service_addresses(shared: &Shared, namespace: &str, name: &str, port: u16) -> Result<Leads, Lost> {
    let service = shared.peek("", "services", namespace, name).ok_or(Lost::Service)?.stored_document();
    if service.str_at(&["spec", "type"]) == Some("ExternalName") {
        return Ok(Leads::Outside(service.str_at(&["spec", "externalName"]).unwrap_or_default().into()));
    }
    let mut ports = service.array_at(&["spec", "ports"]).iter();
    let asked = ports.find(|p| p.int_at(&["port"]) == Some(port.into())).ok_or(Lost::Port)?;
    let port_name = asked.str_at(&["name"]).unwrap_or_default();
    match ready_addresses(shared, namespace, name, port_name) {
        all if all.is_empty() => Err(Lost::Endpoints(port_name.into())),
        all => Ok(Leads::To(all)),
    }
}

/// The ready addresses of a service's port of this name.
pub fn ready_addresses(shared: &Shared, namespace: &str, service: &str, port_name: &str) -> Vec<SocketAddr> {
    let Some(served) = shared.registry.stored("discovery.k8s.io", "endpointslices") else { return Vec::new() };
    let of_service = |o: &crate::object::Object| o.label("kubernetes.io/service-name") == Some(service);
    let slices = served.cache.snapshot(&format!("{namespace}/"), "", 0, false, of_service).objects;
    let mut all: Vec<SocketAddr> = slices.iter().flat_map(|s| slice_addresses(&s.document(), port_name)).collect();
    all.retain(|address| shared.config.features.loopback_endpoints || is_proxyable(address.ip()));
    all.sort();
    all.dedup();
    all
}

fn slice_addresses(slice: &Value, port_name: &str) -> Vec<SocketAddr> {
    let named = |p: &&Value| p.str_at(&["name"]).unwrap_or_default() == port_name;
    let port = slice.array_at(&["ports"]).iter().find(named).and_then(|p| p.int_at(&["port"]));
    let Some(port) = port.and_then(|p| u16::try_from(p).ok()) else { return Vec::new() };
    let ready = |e: &&Value| e.bool_at(&["conditions", "ready"]) != Some(false);
    let addresses = slice.array_at(&["endpoints"]).iter().filter(ready).flat_map(|e| e.array_at(&["addresses"]));
    addresses.filter_map(|a| Some(SocketAddr::new(a.as_str()?.parse().ok()?, port))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::json;

    #[test]
    fn what_goes_no_further() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer x"),
            ("connection", "close, X-Mine, X-Remote-User"),
            ("x-remote-user", "ann"),
            ("x-mine", "1"),
            ("te", "trailers"),
            ("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.eA, chat"),
            ("accept", "text/html"),
        ] {
            insert(&mut headers, name.parse().expect("name"), value);
        }
        strip(&mut headers, false);
        withhold_credentials(&mut headers);
        let mut left: Vec<String> =
            headers.iter().map(|(k, v)| format!("{k}: {}", v.to_str().expect("text"))).collect();
        left.sort();
        assert_eq!(left, ["accept: text/html", "sec-websocket-protocol: chat", "x-remote-user: ann"]);
    }

    #[test]
    fn addresses_by_the_name_of_their_port() {
        let slice = json!({
            "ports": [{"name": "a", "port": 1}, {"port": 2}],
            "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"], "conditions": {"ready": false}}],
        });
        let found = |name: &str| slice_addresses(&slice, name).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(found("a"), ["10.0.0.1:1"]);
        assert_eq!(found(""), ["10.0.0.1:2"]);
        assert!(found("b").is_empty());
    }
}
