//! port-forward in a WebSocket: SPDY's bytes travel in binary messages (KEP-4006). The messages' borders mean nothing.

use bytes::BytesMut;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::remote_command::StreamError;

/// The subprotocol of the tunnel, and what is spoken to the kubelet for it.
pub const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
pub const INNER: &str = "portforward.k8s.io";

const READ_BYTES: usize = 32 << 10;

/// Unwraps and wraps until either side ends.
pub async fn tunnel<C, K>(client: WebSocketStream<C>, kubelet: K) -> Result<(), StreamError>
where
    C: AsyncRead + AsyncWrite + Unpin,
    K: AsyncRead + AsyncWrite + Unpin,
{
    let (mut to_client, mut from_client) = client.split();
    let (mut from_kubelet, mut to_kubelet) = tokio::io::split(kubelet);
    let upstream = async {
        loop {
            match from_client.next().await {
                Some(Ok(Message::Binary(bytes))) => to_kubelet.write_all(&bytes).await?,
                Some(Ok(Message::Close(_))) | None => return Ok(()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(StreamError::Client(error.to_string())),
            }
        }
    };
    let downstream = async {
        loop {
            let mut bytes = BytesMut::with_capacity(READ_BYTES);
            if from_kubelet.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
            let message = Message::Binary(bytes.freeze());
            to_client.send(message).await.map_err(|e| StreamError::Client(e.to_string()))?;
        }
    };
    let result: Result<(), StreamError> = tokio::select! {
        result = upstream => result,
        result = downstream => result,
    };
    super::remote_command::close(to_client, from_client).await;
    result
}
