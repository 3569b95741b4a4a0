//! The listener: TLS, HTTP/1.1 and HTTP/2 on one port.
//!
//! Invariant: a client certificate is read once per connection; a connection that fails takes nothing else with it. On
//! shutdown no connection is accepted any more, and those there are finish what they have begun.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::body::boxed;
use crate::drain::Drained;
use crate::handle::{Connection, handle};
use crate::shared::Shared;
use crate::user::User;

const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection of HTTP/1.1 may rest between two requests, as upstream's.
const IDLE_WITHIN: Duration = Duration::from_secs(90);
/// How long requests have to end after a shutdown began.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);
/// Streams of one HTTP/2 connection, as upstream's `--http2-max-streams-per-connection`.
const MAX_STREAMS: u32 = 1000;
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

/// Accepts connections until `shutdown`, then lets them end.
pub async fn serve(shared: Arc<Shared>, listener: TcpListener, tls: Option<TlsAcceptor>, shutdown: CancellationToken) {
    let graceful = GracefulShutdown::new();
    // Ends what did not end by itself.
    let cut = CancellationToken::new();
    loop {
        let (stream, peer) = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, as a rule: others will be closed.
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                    continue;
                }
            },
        };
        let _ = stream.set_nodelay(true);
        let (shared, tls, watcher, cut) = (shared.clone(), tls.clone(), graceful.watcher(), cut.clone());
        tokio::spawn(cut.run_until_cancelled_owned(async move {
            let connection = Connection { user: None, is_near: peer.ip().is_loopback(), peer: Some(peer.ip()) };
            match tls {
                None => run(shared, connection, stream, watcher).await,
                Some(tls) => secure(shared, connection, tls, stream, peer, watcher).await,
            }
        }));
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_WITHIN, graceful.shutdown()).await.is_err() {
        tracing::debug!("some connections did not end in time and are cut");
    }
    cut.cancel();
}

async fn secure(
    shared: Arc<Shared>,
    mut connection: Connection,
    tls: TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
    watcher: Watcher,
) {
    let stream = match tokio::time::timeout(HANDSHAKE_WITHIN, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!("TLS handshake with {peer} failed: {error}"),
        Err(_) => return tracing::debug!("TLS handshake with {peer} took too long"),
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|all| all.first());
    if let Some(identity) = certificate.and_then(|der| pki::identity::of_der(der)) {
        connection.user = Some(User::new(identity.name, identity.groups));
    }
    run(shared, connection, stream, watcher).await;
}

async fn run<S>(shared: Arc<Shared>, connection: Connection, stream: S, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (shared, connection) = (shared.clone(), connection.clone());
        async move { Ok::<_, Infallible>(handle(shared, connection, request.map(|body| boxed(Drained::new(body)))).await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE_WITHIN);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(15));
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    if let Err(error) = watcher.watch(serving).await {
        tracing::debug!("a connection ended: {error}");
    }
}
