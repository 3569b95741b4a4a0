//! The server: put together, started, asked from inside the process, stopped.
//!
//! Invariant: `start` answers once the default objects exist and requests are served; after `shutdown` nothing that it
//! started runs any more.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use store::StoreError;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::admission::outside::Outside;
use crate::aggregate::{self, Aggregator};
use crate::alloc::Services;
use crate::authn::KnownTokens;
use crate::authz::AllowAuthenticated;
use crate::body::{Body, BoxError, boxed};
use crate::config::Config;
use crate::custom::definitions::{self, Definitions};
use crate::feed::Feed;
use crate::flow::{self, Flow};
use crate::handle::{Connection, handle};
use crate::leases::Leases;
use crate::masters;
use crate::metrics::{Family, Metrics};
use crate::registry::Registry;
use crate::serve;
use crate::shared::Shared;
use crate::storage::Storage;
use crate::user::User;
use crate::{bootstrap, compaction};

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on {address}: {source}; choose another port, or 0 for any free one")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] pki::Error),
    #[error("cannot read the store: {0}")]
    Store(#[from] StoreError),
    #[error("cannot make the default objects: {0}")]
    Bootstrap(meta::Status),
}

pub struct Server {
    pub(crate) shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    pub fn start(config: Config) -> BoxFuture<'static, Result<Server, Error>> {
        // Boxed, so that it is compiled here and not in the binary.
        async move {
            let shutdown = CancellationToken::new();
            let (registry, caches) = Registry::built_in(&config.runtime_config, &config.feature_gates);
            let feed = Feed::start(config.store.clone(), caches, config.limits.fresh, shutdown.clone()).await?;
            let listener = match config.listen {
                Some(address) => {
                    Some(TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?)
                }
                None => None,
            };
            let tls = match &config.tls {
                Some(identity) => {
                    let tls = pki::tls::server(identity, config.client_ca_pem.as_deref())?;
                    Some(TlsAcceptor::from(Arc::new(tls)))
                }
                None => None,
            };
            let address = OnceLock::new();
            if let Some(Ok(bound)) = listener.as_ref().map(TcpListener::local_addr) {
                let _ = address.set(bound);
            }
            let services = Arc::new(Services::new(config.service_cidrs.clone(), config.node_ports.clone()));
            let shared = Arc::new(Shared {
                storage: Storage { store: config.store.clone(), feed, times: Family::of_store() },
                flow: Flow::new(&config.limits),
                leases: Leases::new(config.limits.event_ttl),
                definitions: Definitions::default(),
                aggregator: Aggregator::default(),
                outside: Outside::default(),
                tokens: KnownTokens::default(),
                authorizer: Box::new(AllowAuthenticated),
                metrics: Metrics::default(),
                registry,
                services,
                shutdown: shutdown.clone(),
                ready: AtomicBool::new(false),
                address,
                config,
            });
            if let Err(status) = bootstrap::settle_services(&shared).await {
                shutdown.cancel();
                return Err(Error::Bootstrap(status));
            }
            definitions::sync(&shared);
            let mut tasks = Vec::new();
            if let Some(listener) = listener {
                tasks.push(tokio::spawn(serve::serve(shared.clone(), listener, tls, shutdown.clone())));
            }
            let server = Server { shared: shared.clone(), tasks };
            let mut place = masters::Place::default();
            let made = async {
                bootstrap::create_defaults(&shared).await?;
                place.take(&shared).await
            };
            if let Err(status) = made.await {
                server.shutdown().await;
                return Err(Error::Bootstrap(status));
            }
            // Before anybody is served: afterwards these objects only change when somebody changes them.
            if shared.storage.fresh().await.is_ok() {
                flow::settle(&shared).await;
                aggregate::settle_local(&shared).await;
            }
            shared.ready.store(true, Ordering::Release);
            let mut server = server;
            server.tasks.push(tokio::spawn(compaction::keep(shared.config.store.clone(), shutdown)));
            server.tasks.push(tokio::spawn(flow::follow(shared.clone())));
            server.tasks.push(tokio::spawn(definitions::keep(shared.clone())));
            server.tasks.push(tokio::spawn(aggregate::follow(shared.clone())));
            server.tasks.push(tokio::spawn(place.keep(shared.clone())));
            server.tasks.push(tokio::spawn(bootstrap::keep(shared.clone())));
            if let Some(tracer) = shared.config.tracer.clone() {
                server.tasks.push(tokio::spawn(async move { tracer.run(&shared.shutdown).await }));
            }
            Ok(server)
        }
        .boxed()
    }

    /// The bound address; `None` when the server only serves this process.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.shared.address.get().copied()
    }

    /// A service that asks as `user`, for `kube::Client::new` and for tests.
    pub fn local(&self, user: Arc<User>) -> Local {
        Local { shared: self.shared.clone(), user: Some(user) }
    }

    /// A service that asks without credentials.
    pub fn local_anonymous(&self) -> Local {
        Local { shared: self.shared.clone(), user: None }
    }

    /// Ends watches and streams, lets requests finish, and stops listening. The store stays open: it is the caller's.
    pub fn shutdown(self) -> BoxFuture<'static, ()> {
        // Boxed, so that it is compiled here and not in the binary.
        async move {
            self.shared.shutdown.cancel();
            for task in self.tasks {
                let _ = task.await;
            }
            if let Some(tracer) = &self.shared.config.tracer {
                tracer.flush().await;
            }
        }
        .boxed()
    }
}

/// Requests from inside the process: no socket, no TLS, the same path from authentication on.
#[derive(Clone)]
pub struct Local {
    shared: Arc<Shared>,
    user: Option<Arc<User>>,
}

impl<B> tower::Service<http::Request<B>> for Local
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let shared = self.shared.clone();
        let connection = Connection { user: self.user.clone(), is_near: true, peer: None };
        Box::pin(async move { Ok(handle(shared, connection, request.map(boxed)).await) })
    }
}
