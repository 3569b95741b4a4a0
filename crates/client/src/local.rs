//! A `kube::Client` whose transport is a tower service in the same process: no sockets, no TLS.
//! Reads and writes nothing itself. Invariant: the service sees the requests kube would send over the network, with a path
//! and query only in the URI.

use http::{Request, Response};
use hyper::body::Bytes;
use kube::Client;
use kube::client::Body;
use tower::{BoxError, Service};

/// Builds a client over an in-process service, such as the API server's `Server::local(user)`.
pub fn client<S, B>(service: S, default_namespace: &str) -> Client
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Client::new(service, default_namespace)
}
