//! A light client of the Kubernetes API: HTTP/1.1 over TLS, bytes in and out, one connection at a time.
//! Reads a kubeconfig. Typed clients would take more of the machine than the server they measure.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use pki::Issued;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub const JSON: &str = "application/json";
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const APPLY: &str = "application/apply-patch+yaml";
pub const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// Where the server is and who we are to it.
#[derive(Clone)]
pub struct Api {
    address: SocketAddr,
    host: HeaderValue,
    tls: TlsConnector,
    /// Without our certificate.
    anonymous: TlsConnector,
    token: Option<HeaderValue>,
}

impl Api {
    pub fn from_kubeconfig(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let config: Value = serde_saphyr::from_str(&text).with_context(|| format!("{} is no YAML", path.display()))?;
        let (cluster, user) = (&config["clusters"][0]["cluster"], &config["users"][0]["user"]);
        let pem = |object: &Value, key: &str| -> Result<String> {
            let text = object[key].as_str().with_context(|| format!("{} has no {key}", path.display()))?;
            Ok(String::from_utf8(STANDARD.decode(text)?)?)
        };
        let identity =
            Issued { certificate_pem: pem(user, "client-certificate-data")?, key_pem: pem(user, "client-key-data")? };
        let ca = pem(cluster, "certificate-authority-data")?;
        let connector = |identity| -> Result<TlsConnector> {
            let mut tls = pki::tls::client(&ca, identity)?;
            tls.alpn_protocols = vec![b"http/1.1".to_vec()];
            Ok(TlsConnector::from(Arc::new(tls)))
        };
        let server = cluster["server"].as_str().unwrap_or_default();
        let authority = server.strip_prefix("https://").with_context(|| format!("server {server:?} is no https"))?;
        Ok(Api {
            address: authority.parse().with_context(|| format!("server {authority:?} is no address and port"))?,
            host: authority.parse()?,
            tls: connector(Some(&identity))?,
            anonymous: connector(None)?,
            token: None,
        })
    }

    /// As whoever a token is of.
    pub fn with_token(&self, token: &str) -> Result<Self> {
        Ok(Api { tls: self.anonymous.clone(), token: Some(format!("Bearer {token}").parse()?), ..self.clone() })
    }

    pub async fn connect(&self) -> Result<Connection> {
        let stream =
            TcpStream::connect(self.address).await.with_context(|| format!("cannot reach {}", self.address))?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect(ServerName::IpAddress(self.address.ip().into()), stream).await?;
        let (sender, driver) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(driver);
        Ok(Connection { sender, host: self.host.clone(), token: self.token.clone() })
    }

    /// A GET on a connection of its own.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.connect().await?.json(Method::GET, path, &Value::Null).await
    }

    /// A POST on a connection of its own.
    pub async fn create(&self, path: &str, body: &Value) -> Result<Value> {
        self.connect().await?.json(Method::POST, path, body).await
    }

    /// A watch on a connection of its own; the server has begun it when this returns.
    pub async fn watch(&self, path: &str) -> Result<Watch> {
        let mut connection = self.connect().await?;
        let response = connection.send(Method::GET, path, JSON, Bytes::new()).await?;
        ensure!(response.status().is_success(), "watch of {path}: {}", response.status());
        Ok(Watch { body: response.into_body(), buffer: BytesMut::new(), _connection: connection })
    }
}

/// One connection that is kept; a request at a time.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: HeaderValue,
    token: Option<HeaderValue>,
}

impl Connection {
    async fn send(
        &mut self,
        method: Method,
        path: &str,
        accept: &str,
        body: Bytes,
    ) -> Result<http::Response<Incoming>> {
        let media = if method == Method::PATCH { APPLY } else { JSON };
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, &self.host);
        request = request.header(header::ACCEPT, accept);
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, media);
        }
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, token);
        }
        self.sender.ready().await?;
        Ok(self.sender.send_request(request.body(Full::new(body))?).await?)
    }

    /// The whole answer, whatever its status.
    pub async fn call(&mut self, method: Method, path: &str, accept: &str, body: Bytes) -> Result<(StatusCode, Bytes)> {
        let response = self.send(method, path, accept, body).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }

    /// How many bytes a GET answers, without keeping them.
    pub async fn drain(&mut self, path: &str, accept: &str) -> Result<u64> {
        let response = self.send(Method::GET, path, accept, Bytes::new()).await?;
        ensure!(response.status().is_success(), "GET {path}: {}", response.status());
        let (mut body, mut total) = (response.into_body(), 0);
        while let Some(frame) = body.frame().await {
            total += frame?.data_ref().map_or(0, |data| data.len() as u64);
        }
        Ok(total)
    }

    /// An answer that has to be a success; `Null` sends no body.
    pub async fn json(&mut self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let bytes = if body.is_null() { Bytes::new() } else { Bytes::from(serde_json::to_vec(body)?) };
        let (status, answer) = self.call(method.clone(), path, JSON, bytes).await?;
        if !status.is_success() {
            bail!("{method} {path}: {status}: {}", message(&answer));
        }
        Ok(serde_json::from_slice(&answer)?)
    }
}

/// What a Status says, or the answer's beginning.
pub fn message(answer: &[u8]) -> String {
    let status: Value = serde_json::from_slice(answer).unwrap_or_default();
    match status["message"].as_str() {
        Some(message) => message.into(),
        None => String::from_utf8_lossy(&answer[..answer.len().min(300)]).into_owned(),
    }
}

pub struct Watch {
    body: Incoming,
    buffer: BytesMut,
    _connection: Connection,
}

impl Watch {
    /// The next bytes as they come; `None` when the server ends the watch.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.body.frame().await.transpose()? {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The next event: its type and object.
    pub async fn next(&mut self) -> Result<(String, Value)> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                let mut event: Value = serde_json::from_slice(&line).context("a watch event is no JSON")?;
                let kind = event["type"].as_str().unwrap_or_default().to_string();
                let object = event["object"].take();
                ensure!(kind != "ERROR", "the watch failed: {object}");
                return Ok((kind, object));
            }
            match self.chunk().await? {
                Some(data) => self.buffer.extend_from_slice(&data),
                None => bail!("the server ended the watch"),
            }
        }
    }
}
