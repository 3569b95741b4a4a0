//! Connections from the API server to a kubelet's HTTPS server.
//!
//! Each call has a connection of its own: streams are long and rare. Invariant: the kubelet must show a certificate of
//! the cluster's authority for the address it was dialled at, and gets ours.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use meta::Status;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::KubeletClient;

const DIAL_LIMIT: Duration = Duration::from_secs(10);

/// Where a node's kubelet listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub node: String,
    pub ip: IpAddr,
    pub port: u16,
}

/// Dials kubelets.
#[derive(Clone)]
pub struct Kubelets {
    tls: Arc<rustls::ClientConfig>,
}

impl Kubelets {
    pub fn new(client: &KubeletClient) -> Result<Self, pki::Error> {
        let mut tls = pki::tls::client(&client.ca_pem, Some(&client.identity))?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()]; // upgrades are HTTP/1.1's
        Ok(Kubelets { tls: Arc::new(tls) })
    }

    /// Sends a request without a body; the answer may be upgraded.
    pub async fn send(
        &self,
        address: &Address,
        mut request: http::Request<Empty<Bytes>>,
    ) -> Result<http::Response<Incoming>, Status> {
        let unreachable = |why: &dyn std::fmt::Display| {
            Status::internal(format!(
                "error dialing backend: the kubelet of node {} at {}:{}: {why}",
                address.node, address.ip, address.port
            ))
        };
        let dial = async {
            let tcp = TcpStream::connect((address.ip, address.port)).await?;
            tcp.set_nodelay(true)?;
            TlsConnector::from(self.tls.clone()).connect(ServerName::IpAddress(address.ip.into()), tcp).await
        };
        let stream = tokio::time::timeout(DIAL_LIMIT, dial)
            .await
            .map_err(|_| unreachable(&"no connection in time"))?
            .map_err(|e| unreachable(&e))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| unreachable(&e))?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!("the connection to a kubelet ended: {error}");
            }
        });
        let host = format!("{}:{}", address.node, address.port);
        request.headers_mut().insert(HOST, host.parse().map_err(Status::internal)?);
        sender.send_request(request).await.map_err(|e| unreachable(&e))
    }
}
