//! The cluster's DNS: names of services and pods from what the API server knows, everything else from the host's resolvers.
//!
//! Reads Services, EndpointSlices, Namespaces and Pods (informers) and resolv.conf; answers on UDP and TCP. Implements the
//! Kubernetes DNS-Based Service Discovery specification 1.1.0. Invariant: [`answer`] is pure and looks at the informers'
//! newest state, so there is no second copy of the cluster that could be stale; a name inside the cluster's domain is
//! never asked of a resolver outside.

pub mod answer;
mod forward;
mod handler;
mod resolv_conf;
mod zone;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use hickory_server::proto::rr::Name;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use forward::{Forwarder, Upstreams};
use handler::Handler;
use zone::InformerZone;

/// A TCP connection that asks nothing for so long is closed.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Answers that wait for a slow TCP client.
const TCP_ANSWERS: usize = 64;
/// How often a free port is looked for that both UDP and TCP can have.
const PORT_ATTEMPTS: usize = 16;

/// What the DNS server needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen, UDP and TCP alike; port 0 takes any free one. Default none.
    pub listen: Vec<SocketAddr>,
    /// The domain of service names. Default `cluster.local`.
    pub cluster_domain: String,
    /// Life of answers about the cluster. Default 5.
    pub ttl_s: u32,
    /// Addresses under which pods reach this server: what `ns.dns.DOMAIN` resolves to. Default none.
    pub service_ips: Vec<IpAddr>,
    /// Resolvers for all other names; empty means those of `resolv_conf`. Default empty.
    pub upstreams: Vec<SocketAddr>,
    /// Read again when it changes. Default `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// How many answers of other resolvers are kept. Default 8192.
    pub cache_entries: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            ttl_s: 5,
            service_ips: Vec::new(),
            upstreams: Vec::new(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            cache_entries: 8192,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the DNS server has no address to listen on; name one, port 0 takes any free one")]
    NoAddress,
    #[error("cannot listen for DNS on {address}: {source}; choose another address or port, 0 takes any free one")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("the cluster domain {0:?} is not a DNS name; use one such as cluster.local")]
    Domain(String),
    #[error("the DNS server stopped: {0}")]
    Stopped(String),
}

/// A server that has its ports but does not answer yet.
pub struct Server {
    config: Config,
    domain: Name,
    first: SocketAddr,
    sockets: Vec<(SocketAddr, UdpSocket, TcpListener)>,
    ready: watch::Sender<bool>,
}

/// Binds and serves until `shutdown`.
pub fn run(
    config: Config,
    client: kube::Client,
    informers: client::Informers,
    shutdown: CancellationToken,
) -> BoxFuture<'static, Result<(), Error>> {
    // Boxed, so that it is compiled here and not in the binary.
    async move { Server::bind(config).await?.run(client, informers, shutdown).await }.boxed()
}

impl Server {
    /// Takes the ports.
    pub fn bind(config: Config) -> BoxFuture<'static, Result<Server, Error>> {
        // Boxed, so that it is compiled here and not in the binary.
        async move {
            let domain = parse_domain(&config.cluster_domain)?;
            let mut sockets = Vec::new();
            for address in &config.listen {
                sockets.push(bind_both(*address).await.map_err(|source| Error::Listen { address: *address, source })?);
            }
            let first = sockets.first().map(|(address, _, _)| *address).ok_or(Error::NoAddress)?;
            let (ready, _) = watch::channel(false);
            Ok(Server { config, domain, first, sockets, ready })
        }
        .boxed()
    }

    /// The first address it listens on, with the real port.
    pub fn addr(&self) -> SocketAddr {
        self.first
    }

    /// Becomes true once the cluster's names are known.
    pub fn readiness(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Serves until `shutdown`. Before the informers are in sync, cluster names get SERVFAIL: wait rather than deny.
    ///
    /// All that DNS reads comes by the informers; the client belongs to the signature that all components share.
    pub fn run(
        self,
        _client: kube::Client,
        informers: client::Informers,
        shutdown: CancellationToken,
    ) -> BoxFuture<'static, Result<(), Error>> {
        // Boxed, so that it is compiled here and not in the binary.
        async move {
            let Server { config, domain, sockets, ready, .. } = self;
            let zone = InformerZone::new(&informers);
            let settings = answer::Settings { domain, ttl_s: config.ttl_s, service_ips: config.service_ips };
            let own: Vec<SocketAddr> = sockets.iter().map(|(address, _, _)| *address).collect();
            let upstreams = if config.upstreams.is_empty() {
                Upstreams::file(config.resolv_conf, own)
            } else {
                Upstreams::fixed(config.upstreams)
            };
            let forwarder = Forwarder::new(upstreams, config.cache_entries);
            let handler = Handler::new(settings, Arc::new(zone.clone()), forwarder, ready.subscribe());
            let mut server = hickory_server::Server::new(handler);
            for (address, udp, tcp) in sockets {
                tracing::info!(%address, "dns listens");
                server.register_socket(udp);
                server.register_listener(tcp, TCP_IDLE, TCP_ANSWERS);
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                ended = server.block_until_done() => return ended.map_err(|error| Error::Stopped(error.to_string())),
                () = async {
                    zone.synced().await;
                    ready.send_replace(true);
                    std::future::pending::<()>().await;
                } => {}
            }
            server.shutdown_gracefully().await.map_err(|error| Error::Stopped(error.to_string()))
        }
        .boxed()
    }
}

fn parse_domain(text: &str) -> Result<Name, Error> {
    let trimmed = text.trim_end_matches('.');
    let name = Name::from_ascii(format!("{trimmed}.")).map_err(|_| Error::Domain(text.to_owned()))?;
    if trimmed.is_empty() { Err(Error::Domain(text.to_owned())) } else { Ok(name.to_lowercase()) }
}

async fn bind_both(address: SocketAddr) -> std::io::Result<(SocketAddr, UdpSocket, TcpListener)> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let tcp = TcpListener::bind(address).await?;
        let real = tcp.local_addr()?;
        match UdpSocket::bind(real).await {
            Ok(udp) => return Ok((real, udp, tcp)),
            // Somebody has the UDP port of the same number: any other will do.
            Err(_) if address.port() == 0 && attempt < PORT_ATTEMPTS => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
