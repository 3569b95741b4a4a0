//! TLS for probes: encrypted, but nobody's certificate is checked, as the API says of HTTPS and gRPC probes.

use std::sync::{Arc, LazyLock};

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

static HTTP1: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| config(&[]));
static HTTP2: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| config(&[b"h2"]));

/// Shakes hands over `stream`; `h2` asks for HTTP/2.
pub async fn wrap(stream: TcpStream, host: &str, h2: bool) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(std::io::Error::other)?;
    let config = if h2 { &HTTP2 } else { &HTTP1 };
    TlsConnector::from(Arc::clone(config)).connect(name, stream).await
}

fn config(protocols: &[&[u8]]) -> Arc<ClientConfig> {
    let mut config = pki::tls::client_unverified(None).expect("no identity that could be wrong");
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}
