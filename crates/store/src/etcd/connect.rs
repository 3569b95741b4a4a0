//! Connections to the members of etcd, one at a time: the first member that answers and has a leader.
//!
//! A link is one connection and never reconnects by itself, so that a call either surely was not sent or went out on that
//! connection. Invariants: attempts are made one after another, at most one every [`PAUSE`]; what fails says of which member.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use super::proto::{StatusRequest, maintenance_client::MaintenanceClient};
use crate::StoreError;

/// For TCP, TLS and the first answer of one member.
const CONNECT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(100);
/// A silent connection is asked whether it lives; etcd ends those that ask more often than every 5 s.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_ANSWER: Duration = Duration::from_secs(5);
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const LINK_WINDOW_BYTES: u32 = 8 << 20;

/// One connection.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) channel: Channel,
    number: u64,
    /// Its answers to progress requests come after the events they speak of.
    pub(super) tells_progress: bool,
}

/// The connection is gone and nothing was sent.
#[derive(Debug, thiserror::Error)]
#[error("the connection was lost")]
pub(super) struct Spent;

#[derive(Debug)]
struct Server {
    host: String,
    port: u16,
    tls: bool,
}

#[derive(Debug)]
struct Attempts {
    /// Which server comes first.
    next: usize,
    links: u64,
    failed: Option<(Instant, StoreError)>,
}

pub(super) struct Servers {
    all: Vec<Server>,
    tls: Option<TlsConnector>,
    link: Mutex<Option<Link>>,
    attempts: tokio::sync::Mutex<Attempts>,
    /// Since when no server could be reached.
    down: Mutex<Option<Instant>>,
}

impl Servers {
    pub(super) fn new(urls: &[String], tls: Option<Arc<ClientConfig>>) -> Result<Self, StoreError> {
        let all = urls.iter().map(|url| server(url)).collect::<Result<Vec<_>, _>>()?;
        if all.is_empty() {
            return Err(StoreError::invalid("no server of etcd is named"));
        }
        if let (Some(server), None) = (all.iter().find(|s| s.tls), &tls) {
            let what = format!("https://{}:{} needs the authority of its certificate", server.host, server.port);
            return Err(StoreError::invalid(what));
        }
        let tls = tls.map(|config| {
            let mut config = ClientConfig::clone(&config);
            config.alpn_protocols = vec![b"h2".to_vec()];
            TlsConnector::from(Arc::new(config))
        });
        let attempts = tokio::sync::Mutex::new(Attempts { next: 0, links: 0, failed: None });
        Ok(Servers { all, tls, link: Mutex::default(), attempts, down: Mutex::default() })
    }

    fn current(&self) -> Option<Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How long no server could be reached.
    pub(super) fn down_for(&self) -> Duration {
        self.down.lock().unwrap_or_else(PoisonError::into_inner).map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// The connection there is, or a new one; each server is tried once.
    pub(super) async fn link(&self) -> Result<Link, StoreError> {
        if let Some(link) = self.current() {
            return Ok(link);
        }
        let mut attempts = self.attempts.lock().await;
        if let Some(link) = self.current() {
            return Ok(link);
        }
        if let Some((at, error)) = &attempts.failed
            && at.elapsed() < PAUSE
        {
            return Err(error.clone());
        }
        let mut causes = Vec::new();
        for _ in 0..self.all.len() {
            let server = &self.all[attempts.next % self.all.len()];
            attempts.links += 1;
            match timeout(CONNECT, self.connect(server, attempts.links))
                .await
                .unwrap_or(Err("it does not answer".into()))
            {
                Ok(link) => {
                    attempts.failed = None;
                    *self.link.lock().unwrap_or_else(PoisonError::into_inner) = Some(link.clone());
                    *self.down.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    return Ok(link);
                }
                Err(cause) => causes.push(format!("{}:{}: {cause}", server.host, server.port)),
            }
            attempts.next += 1;
        }
        let error = StoreError::Unavailable { cause: causes.join("; ") };
        attempts.failed = Some((Instant::now(), error.clone()));
        self.down.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
        Err(error)
    }

    /// Gives up a connection: the next call begins with the next server.
    pub(super) async fn leave(&self, link: &Link) {
        let mut attempts = self.attempts.lock().await;
        let mut current = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|c| c.number == link.number) {
            *current = None;
            attempts.next += 1;
        }
    }

    async fn connect(&self, server: &Server, number: u64) -> Result<Link, String> {
        let tcp = TcpStream::connect((server.host.as_str(), server.port)).await.map_err(|e| e.to_string())?;
        tcp.set_nodelay(true).map_err(|e| e.to_string())?;
        let io: Box<dyn Io> = match &self.tls {
            Some(tls) if server.tls => {
                let name = ServerName::try_from(server.host.clone()).map_err(|e| e.to_string())?;
                Box::new(tls.connect(name, tcp).await.map_err(|e| e.to_string())?)
            }
            _ => Box::new(tcp),
        };
        let mut io = Some(TokioIo::new(io));
        let once = tower::service_fn(move |_: Uri| std::future::ready(io.take().ok_or(Spent)));
        // TLS is below: to HTTP this is a plain connection.
        let channel = Endpoint::from_shared(format!("http://{}:{}", server.host, server.port))
            .map_err(|e| e.to_string())?
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(LINK_WINDOW_BYTES)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_ANSWER)
            .keep_alive_while_idle(true)
            .connect_with_connector(once)
            .await
            .map_err(|e| e.to_string())?;
        let status = MaintenanceClient::new(channel.clone()).status(StatusRequest {}).await;
        let status = status.map_err(|e| e.message().to_string())?.into_inner();
        if status.leader == 0 {
            return Err("it has no leader".into());
        }
        Ok(Link { channel, number, tells_progress: tells_progress(&status.version) })
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

fn server(url: &str) -> Result<Server, StoreError> {
    let bad = || StoreError::invalid(format!("{url:?} is no server of etcd such as https://10.0.0.1:2379"));
    let uri: Uri = url.trim_end_matches('/').parse().map_err(|_| bad())?;
    let tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(bad()),
    };
    let host = uri.host().ok_or_else(bad)?.trim_matches(['[', ']']).to_string();
    Ok(Server { host, port: uri.port_u16().unwrap_or(2379), tls })
}

// Compat: before 3.4.25 and 3.5.8 the answer may overtake events. Source: etcd issue 15220; upstream asks from these on.
fn tells_progress(version: &str) -> bool {
    let mut numbers = version.split(['.', '-', '+']).map(|n| n.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    let version = (next(), next(), next());
    version >= (3, 5, 8) || ((3, 4, 25)..(3, 5, 0)).contains(&version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_urls() {
        for (url, expected) in [
            ("https://10.0.0.1:2379/", Some(("10.0.0.1", 2379, true))),
            ("http://etcd", Some(("etcd", 2379, false))),
            ("https://[::1]:4001", Some(("::1", 4001, true))),
            ("10.0.0.1:2379", None),
            ("ftp://etcd", None),
        ] {
            let read = server(url).ok();
            assert_eq!(read.as_ref().map(|s| (s.host.as_str(), s.port, s.tls)), expected, "{url}");
        }
        let error = Servers::new(&["https://etcd".into()], None).err().map(|e| e.to_string());
        let found = error.as_deref();
        assert_eq!(found, Some("invalid store request: https://etcd:2379 needs the authority of its certificate"));
    }

    #[test]
    fn versions_that_tell_progress() {
        for (version, expected) in
            [("3.4.23", false), ("3.4.25", true), ("3.5.7", false), ("3.5.8", true), ("3.6.0-rc.1", true), ("", false)]
        {
            assert_eq!(tells_progress(version), expected, "{version}");
        }
    }
}
