//! Calls of webhooks: JSON over HTTPS to a URL or to a service of the cluster.
//!
//! Reads: a `clientConfig` (url or service, caBundle) as definitions, webhook configurations and API services hold it; the
//! service and its endpoints from the watch cache. Invariants: every call has a time limit and a bound on its answer; the
//! server's certificate is for the name that was asked for, by the bundle's authority.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use meta::Value;
use rand::seq::IndexedRandom;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::shared::Shared;

/// An answer holds converted objects or a patch; larger ones are refused.
const ANSWER_MAX_BYTES: usize = 64 << 20;
const DIAL_LIMIT: Duration = Duration::from_secs(10);
/// Connections kept for the next call.
const IDLE_MAX: usize = 4;
/// Authorities of this machine, for URLs without a bundle.
const SYSTEM_BUNDLES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// Where a webhook is.
#[derive(Clone, Debug, PartialEq)]
enum Place {
    Url { host: String },
    Service { namespace: String, name: String },
}

/// One webhook, with the connections to it.
pub struct Webhook {
    place: Place,
    port: u16,
    /// As certificates name it, without the port.
    server_name: String,
    path: String,
    tls: Arc<rustls::ClientConfig>,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

impl Webhook {
    /// Reads a client config.
    pub fn new(config: &Value) -> Result<Webhook, String> {
        let (place, server_name, port, path) = match (config.str_at(&["url"]), config.get("service")) {
            (Some(url), _) if !url.is_empty() => read_url(url)?,
            (_, Some(service @ Value::Object(_))) => {
                let text = |member: &str| service.str_at(&[member]).unwrap_or_default().to_string();
                let (namespace, name) = (text("namespace"), text("name"));
                let port = service.int_at(&["port"]).and_then(|p| u16::try_from(p).ok()).unwrap_or(443);
                let path = format!("/{}", text("path").trim_start_matches('/'));
                let server = format!("{name}.{namespace}.svc");
                (Place::Service { namespace, name }, server, port, path)
            }
            _ => return Err("exactly one of url or service is required".into()),
        };
        let bundle = match config.str_at(&["caBundle"]).filter(|b| !b.is_empty()) {
            Some(bundle) => {
                let pem = base64::engine::general_purpose::STANDARD.decode(bundle);
                let pem = pem.map_err(|e| format!("unable to load root certificates: {e}"))?;
                String::from_utf8(pem).map_err(|e| format!("unable to load root certificates: {e}"))?
            }
            None => SYSTEM_BUNDLES.iter().find_map(|p| std::fs::read_to_string(p).ok()).unwrap_or_default(),
        };
        let mut tls = pki::tls::client(&bundle, None).map_err(|e| format!("unable to load root certificates: {e}"))?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Webhook { place, port, server_name, path, tls: Arc::new(tls), idle: Mutex::default() })
    }

    /// Posts a document and reads the document that answers it. The error is in the words of Go's HTTP client.
    pub async fn call(&self, shared: &Shared, body: &Value, within: Duration) -> Result<Value, String> {
        let query = if self.path.contains('?') { '&' } else { '?' };
        let target = format!("{}{query}timeout={}s", self.path, within.as_secs());
        let url = format!("https://{}:{}{target}", self.server_name, self.port);
        let failed = |why: String| format!("Post {url:?}: {why}");
        let work = self.post(shared, &target, body.to_vec().into());
        let (code, bytes) = match tokio::time::timeout(within, work).await {
            Ok(done) => done.map_err(failed)?,
            Err(_) => return Err(failed("context deadline exceeded".into())),
        };
        if code != 200 {
            let shown: String = String::from_utf8_lossy(&bytes).trim().chars().take(1024).collect();
            // Compat: the words of client-go for an answer that is no Status.
            return Err(match meta::parse(&bytes).ok().and_then(|v| v.str_at(&["message"]).map(str::to_string)) {
                Some(message) => message,
                None if code >= 500 => {
                    format!("an error on the server ({shown:?}) has prevented the request from succeeding")
                }
                None => format!("the server rejected our request: status {code}: {shown}"),
            });
        }
        meta::parse(&bytes).map_err(|e| format!("the answer is no JSON object: {e}"))
    }

    async fn post(&self, shared: &Shared, target: &str, body: Bytes) -> Result<(u16, Bytes), String> {
        let mut request = http::Request::new(Full::new(body));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = target.parse().map_err(|e| format!("{e}"))?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, */*"));
        headers.insert(USER_AGENT, HeaderValue::from_static("kube-apiserver-admission"));
        let host = format!("{}:{}", self.server_name, self.port);
        headers.insert(HOST, host.parse().map_err(|e| format!("{e}"))?);
        // One that was kept may have ended meanwhile: then it says so before it takes the request.
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop().filter(|c| c.is_ready());
        let mut connection = match kept {
            Some(connection) => connection,
            None => tokio::time::timeout(DIAL_LIMIT, self.dial(shared))
                .await
                .unwrap_or_else(|_| Err(format!("dial tcp {host}: i/o timeout")))?,
        };
        let answer = connection.send_request(request).await.map_err(|e| e.to_string())?;
        let code = answer.status().as_u16();
        let bytes = Limited::new(answer.into_body(), ANSWER_MAX_BYTES).collect().await.map_err(|e| e.to_string())?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX && !connection.is_closed() {
            idle.push(connection);
        }
        Ok((code, bytes.to_bytes()))
    }

    async fn dial(&self, shared: &Shared) -> Result<SendRequest<Full<Bytes>>, String> {
        let addresses = match &self.place {
            Place::Url { host } => {
                let found = tokio::net::lookup_host((host.as_str(), self.port)).await;
                found.map_err(|e| format!("dial tcp: lookup {host}: {e}"))?.collect()
            }
            Place::Service { namespace, name } => vec![resolve(shared, namespace, name, self.port).await?],
        };
        let mut last = String::from("no such host");
        for address in addresses {
            let tcp = match TcpStream::connect(address).await {
                Ok(tcp) => tcp,
                Err(error) => {
                    last = format!("dial tcp {address}: connect: {error}");
                    continue;
                }
            };
            tcp.set_nodelay(true).map_err(|e| e.to_string())?;
            let name = ServerName::try_from(self.server_name.clone()).map_err(|e| e.to_string())?;
            let stream = TlsConnector::from(self.tls.clone()).connect(name, tcp).await;
            let stream = stream.map_err(|e| format!("tls: failed to verify certificate: {e}"))?;
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!("the connection to a webhook ended: {error}");
                }
            });
            return Ok(sender);
        }
        Err(last)
    }
}

/// Host, name for TLS, port and path of `https://host[:port][/path]`.
fn read_url(url: &str) -> Result<(Place, String, u16, String), String> {
    let uri: http::Uri = url.parse().map_err(|e| format!("url must be a valid URL: {e}"))?;
    if uri.scheme_str() != Some("https") {
        return Err(format!("'https' is the only allowed URL scheme: {url}"));
    }
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_string();
    let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_string();
    Ok((Place::Url { host: host.clone() }, host, uri.port_u16().unwrap_or(443), path))
}

/// An address behind a service's port: a ready endpoint, so that no proxy need run here; else the service's own.
async fn resolve(shared: &Shared, namespace: &str, name: &str, port: u16) -> Result<SocketAddr, String> {
    let Some(service) = shared.peek("", "services", namespace, name) else {
        return Err(format!("service {name:?} not found"));
    };
    let service = service.stored_document();
    if service.str_at(&["spec", "type"]) == Some("ExternalName") {
        let host = service.str_at(&["spec", "externalName"]).unwrap_or_default();
        let mut found =
            tokio::net::lookup_host((host, port)).await.map_err(|e| format!("dial tcp: lookup {host}: {e}"))?;
        return found.next().ok_or_else(|| format!("dial tcp: lookup {host}: no such host"));
    }
    let ports = service.array_at(&["spec", "ports"]);
    let Some(asked) = ports.iter().find(|p| p.int_at(&["port"]) == Some(i64::from(port))) else {
        return Err(format!("no service port {port} found for service {name:?}"));
    };
    let endpoints = shared.peek("", "endpoints", namespace, name).map(|e| e.stored_document()).unwrap_or_default();
    let ready = ready_addresses(&endpoints, asked.str_at(&["name"]).unwrap_or_default());
    if let Some(address) = ready.choose(&mut rand::rng()) {
        return Ok(*address);
    }
    let own = service.str_at(&["spec", "clusterIP"]).and_then(|ip| ip.parse::<IpAddr>().ok());
    match own {
        Some(ip) => Ok((ip, port).into()),
        None => Err(format!("no endpoints available for service {name:?}")),
    }
}

/// The ready addresses of an Endpoints object for the port of this name.
fn ready_addresses(endpoints: &Value, port_name: &str) -> Vec<SocketAddr> {
    let mut all = Vec::new();
    for subset in endpoints.array_at(&["subsets"]) {
        let named = |p: &&Value| p.str_at(&["name"]).unwrap_or_default() == port_name;
        let Some(port) = subset.array_at(&["ports"]).iter().find(named) else { continue };
        let Some(port) = port.int_at(&["port"]).and_then(|p| u16::try_from(p).ok()) else { continue };
        let ips = subset.array_at(&["addresses"]).iter().filter_map(|a| a.str_at(&["ip"])?.parse::<IpAddr>().ok());
        all.extend(ips.map(|ip| SocketAddr::from((ip, port))));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::json;

    #[test]
    fn client_configs() {
        for (url, want) in [
            ("https://a.b:8443/c?d=e", Ok(("a.b", 8443, "/c?d=e"))),
            ("https://[::1]", Ok(("::1", 443, "/"))),
            ("http://a", Err("'https' is the only allowed URL scheme: http://a")),
        ] {
            let found = read_url(url);
            let found = found.as_ref().map(|(_, name, port, path)| (name.as_str(), *port, path.as_str()));
            assert_eq!(found.map_err(String::as_str), want);
        }
    }

    #[test]
    fn endpoints_by_the_name_of_their_port() {
        let endpoints = json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "notReadyAddresses": [{"ip": "10.0.0.2"}],
            "ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}]}]});
        assert_eq!(ready_addresses(&endpoints, "b"), ["10.0.0.1:2".parse().expect("an address")]);
        assert!(ready_addresses(&endpoints, "").is_empty());
    }
}
