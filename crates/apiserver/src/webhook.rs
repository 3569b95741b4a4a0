//! Calls of webhooks: JSON over HTTPS to a URL or to a service of the cluster.
//!
//! Reads: a `clientConfig` (url or service, caBundle) as definitions, webhook configurations and API services hold it; the
//! service and its endpoints from the watch cache. Invariants: every call has a time limit and a bound on its answer; the
//! server's certificate is for the name that was asked for, by the bundle's authority.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use http_body_util::{BodyExt, Full, Limited};
use meta::Value;

use crate::backend::{self, Backend, Kept, Leads, Lost};
use crate::body::boxed;
use crate::shared::Shared;
use crate::trace;

/// An answer holds converted objects or a patch; larger ones are refused.
const ANSWER_MAX_BYTES: usize = 64 << 20;

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
    backend: Backend,
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
            None => pki::tls::system_bundle(),
        };
        let tls = pki::tls::client(&bundle, None).map_err(|e| format!("unable to load root certificates: {e}"))?;
        let backend = Backend::tls(tls, Some(server_name.clone())).kept();
        Ok(Webhook { place, port, server_name, path, backend })
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
        let mut request = http::Request::new(boxed(Full::new(body)));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = target.parse().map_err(|e| format!("{e}"))?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, */*"));
        headers.insert(USER_AGENT, HeaderValue::from_static("kube-apiserver-admission"));
        let host = format!("{}:{}", self.server_name, self.port);
        headers.insert(HOST, host.parse().map_err(|e| format!("{e}"))?);
        let mut span = trace::of_client("POST", || format!("https://{host}{target}"));
        span.iter().for_each(|span| span.hand_on(headers));
        let at = self.addresses(shared).await?;
        let (answer, kept) = self.backend.send(&at, request).await?;
        let code = answer.status().as_u16();
        span.iter_mut().for_each(|span| span.set("http.response.status_code", i64::from(code)));
        let bytes = Limited::new(answer.into_body(), ANSWER_MAX_BYTES).collect().await.map_err(|e| e.to_string())?;
        kept.into_iter().for_each(Kept::put_back);
        Ok((code, bytes.to_bytes()))
    }

    async fn addresses(&self, shared: &Shared) -> Result<Vec<SocketAddr>, String> {
        let lookup = |host: String, port| async move {
            let found = tokio::net::lookup_host((host.as_str(), port)).await;
            found.map(Iterator::collect).map_err(|e| format!("dial tcp: lookup {host}: {e}"))
        };
        match &self.place {
            Place::Url { host } => lookup(host.clone(), self.port).await,
            Place::Service { namespace, name } => {
                match backend::service_addresses(shared, namespace, name, self.port) {
                    Ok(Leads::To(all)) => Ok(all),
                    Ok(Leads::Outside(host)) => lookup(host, self.port).await,
                    Err(Lost::Service) => Err(format!("service {name:?} not found")),
                    Err(Lost::Port) => Err(format!("no service port {} found for service {name:?}", self.port)),
                    Err(Lost::Endpoints(_)) => Err(format!("no endpoints available for service {name:?}")),
                }
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
