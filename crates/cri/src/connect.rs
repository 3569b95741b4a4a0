//! The connection to a runtime's unix socket, and the time limits of its calls.
//!
//! Reads an endpoint (`unix:///run/containerd/containerd.sock` or a bare path). The channel is lazy: it connects on the
//! first call and again after the runtime went away, so making a `Client` never fails because the runtime is down.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Response, Status};

use crate::v1::image_service_client::ImageServiceClient;
use crate::v1::runtime_service_client::RuntimeServiceClient;
use crate::{Error, Result};

/// The largest answer taken from a runtime: lists on a full node stay far below.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// How long every call may take but those below.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(120);
/// For making a sandbox, which waits for the network plugins.
pub(crate) const SANDBOX_LIMIT: Duration = Duration::from_secs(240);
/// For pulling one image.
pub(crate) const PULL_LIMIT: Duration = Duration::from_secs(30 * 60);

/// A runtime behind a unix socket. Cheap to clone; all clones share one connection.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) runtime: RuntimeServiceClient<Channel>,
    pub(crate) images: ImageServiceClient<Channel>,
}

impl Client {
    /// A client of the runtime at `endpoint`: `unix:///path`, `unix:path` or `/path`. Connects on the first call.
    pub fn new(endpoint: &str) -> Client {
        let path = endpoint.strip_prefix("unix://").or_else(|| endpoint.strip_prefix("unix:")).unwrap_or(endpoint);
        let target = PathBuf::from(path);
        let connector = tower::service_fn(move |_: Uri| {
            let target = target.clone();
            async move {
                let stream = tokio::net::UnixStream::connect(&target).await.map_err(|error| {
                    std::io::Error::new(error.kind(), format!("dial unix {}: {error}", target.display()))
                })?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        // the name is never resolved: the connector ignores it
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        Client {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            images: ImageServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES),
        }
    }
}

/// Runs one call within `limit`.
pub(crate) async fn within<T>(
    call: &'static str,
    limit: Duration,
    answer: impl Future<Output = std::result::Result<Response<T>, Status>>,
) -> Result<T> {
    match tokio::time::timeout(limit, answer).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(Error::new(call, status)),
        Err(_) => Err(Error::deadline(call)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_socket_is_unavailable_and_named() {
        let dir = tempfile::tempdir().expect("temp dir");
        let socket = dir.path().join("none.sock");
        let client = Client::new(&format!("unix://{}", socket.display()));
        let error = client.version().await.expect_err("nobody listens");
        assert!(error.is_unavailable(), "{error:?}");
        assert!(error.message.contains(&format!("dial unix {}", socket.display())), "{error}");
    }
}
