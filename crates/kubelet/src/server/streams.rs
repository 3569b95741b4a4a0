//! exec, attach and port-forward: asks the runtime for the address of the stream, then passes the upgraded connection
//! through byte by byte, whatever protocol (SPDY or WebSocket) the client and the runtime speak.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::{Body, text};

/// Passes `request` on to the runtime's stream at `url`.
pub async fn proxy(request: Request<Incoming>, url: &str, shutdown: CancellationToken) -> Response<Body> {
    match forward(request, url, shutdown).await {
        Ok(response) => response,
        Err(error) => {
            tracing::warn!(error, "streaming");
            text(StatusCode::BAD_GATEWAY, format!("cannot reach the container runtime's stream: {error}"))
        }
    }
}

async fn forward(
    mut request: Request<Incoming>,
    url: &str,
    shutdown: CancellationToken,
) -> Result<Response<Body>, String> {
    let uri: Uri = url.parse().map_err(|_| format!("{url} is not a URL"))?;
    let host = uri.host().ok_or_else(|| format!("{url} has no host"))?;
    if uri.scheme_str() != Some("http") {
        return Err(format!("{url} is not plain http; let the runtime stream on loopback without TLS"));
    }
    let port = uri.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port))
        .await
        .map_err(|error| format!("{host}:{port}: {error}"))?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(connection.with_upgrades());

    let mut onward = Request::new(Empty::<Bytes>::new());
    *onward.method_mut() = request.method().clone();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *onward.uri_mut() = path.parse().map_err(|_| format!("{url} has no path"))?;
    *onward.headers_mut() = request.headers().clone();
    onward.headers_mut().remove(header::AUTHORIZATION);
    onward.headers_mut().remove(header::CONTENT_LENGTH);
    onward.headers_mut().remove(header::TRANSFER_ENCODING);
    let authority = uri.authority().map_or(host, |authority| authority.as_str());
    onward.headers_mut().insert(header::HOST, HeaderValue::from_str(authority).map_err(|error| error.to_string())?);

    let mut answer = sender.send_request(onward).await.map_err(|error| error.to_string())?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(answer.map(|body| body.map_err(std::io::Error::other).boxed_unsync()));
    }
    let headers = answer.headers().clone();
    let (near, far) = (hyper::upgrade::on(&mut request), hyper::upgrade::on(&mut answer));
    tokio::spawn(async move {
        let joined = async {
            let (near, far) = tokio::try_join!(near, far)?;
            let (mut near, mut far) = (TokioIo::new(near), TokioIo::new(far));
            // An error here is one side hanging up: the ordinary end of a stream.
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            Ok::<_, hyper::Error>(())
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            ended = joined => if let Err(error) = ended { tracing::debug!(%error, "upgrade") },
        }
    });
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers;
    Ok(response)
}
