//! exec and attach: from the client's upgraded connection to the kubelet's.
//!
//! A SPDY client, or a WebSocket one of the older subprotocols, speaks with the container runtime byte for byte: both
//! connections are joined. WebSocket with `v5.channel.k8s.io` is translated to SPDY here, as KEP-4006 has it: channels
//! 0-4 are stdin, stdout, stderr, error and resize; 255 closes one. Buffers are bounded: a slow side slows the other.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::spdy::{self, Frame, SpdyError};

/// The subprotocol of WebSocket that is translated.
pub const V5: &str = "v5.channel.k8s.io";
/// The protocol spoken to the kubelet then.
pub const SPDY_V4: &str = "v4.channel.k8s.io";

const READ_BYTES: usize = 32 << 10;
const CHANNELS: [&str; 5] = ["stdin", "stdout", "stderr", "error", "resize"];
const ERROR: usize = 3;
const CLOSE: u8 = 255;

/// Which streams a request asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

impl Wanted {
    /// From the query of exec and attach, in the names of `PodExecOptions`.
    pub fn from_query(query: &str) -> Self {
        let mut wanted = Wanted::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let set = matches!(value, "true" | "1" | "True" | "t");
            match name {
                "stdin" => wanted.stdin = set,
                "stdout" => wanted.stdout = set,
                "stderr" => wanted.stderr = set,
                "tty" => wanted.tty = set,
                _ => {}
            }
        }
        wanted
    }

    /// Channels in the order in which clients create their streams.
    fn channels(self) -> impl Iterator<Item = usize> {
        let asked = [(ERROR, true), (0, self.stdin), (1, self.stdout), (2, self.stderr && !self.tty), (4, self.tty)];
        asked.into_iter().filter(|(_, asked)| *asked).map(|(channel, _)| channel)
    }
}

/// Translates until either side ends.
pub async fn translate<C, K>(client: WebSocketStream<C>, kubelet: K, wanted: Wanted) -> Result<(), StreamError>
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    K: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut to_client, mut from_client) = client.split();
    let (mut from_kubelet, mut to_kubelet) = tokio::io::split(kubelet);
    let mut writer = spdy::Writer::new()?;
    let mut out = BytesMut::new();
    // The stream of each channel: odd numbers, since we are the client.
    let mut streams = [0u32; CHANNELS.len()];
    for (i, channel) in wanted.channels().enumerate() {
        streams[channel] = 1 + 2 * i as u32;
        writer.syn_stream(streams[channel], &[("streamtype", CHANNELS[channel])], &mut out)?;
    }
    to_kubelet.write_all(&out).await?;

    let (pings, mut pinged) = tokio::sync::mpsc::channel::<u32>(8);
    let upstream = async {
        let mut out = BytesMut::new();
        loop {
            tokio::select! {
                message = from_client.next() => match message {
                    Some(Ok(Message::Close(_))) | None => return Ok(()),
                    // Text too: that is how the Python client sends what was given to it as text.
                    Some(Ok(message)) if message.is_binary() || message.is_text() => {
                        forward(&message.into_data(), &streams, &mut out);
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(StreamError::Client(error.to_string())),
                },
                Some(id) = pinged.recv() => spdy::ping(id, &mut out),
            }
            if !out.is_empty() {
                to_kubelet.write_all(&out).await?;
                out.clear();
            }
        }
    };
    let downstream = async {
        let mut reader = spdy::Reader::new();
        let mut arrived = BytesMut::with_capacity(READ_BYTES);
        let mut ended = [false; CHANNELS.len()];
        loop {
            while let Some(frame) = reader.next(&mut arrived)? {
                let (id, fin, data) = match frame {
                    Frame::Data { id, fin, data } => (id, fin, data),
                    Frame::SynReply { id, fin, .. } => (id, fin, Bytes::new()),
                    Frame::Reset { id } => (id, true, Bytes::new()),
                    Frame::Ping { id } => {
                        // One that does not fit is not answered: the peer is flooding.
                        let _ = pings.try_send(id);
                        continue;
                    }
                    Frame::GoAway => return Ok(()),
                    Frame::SynStream { .. } | Frame::Other => continue,
                };
                let Some(channel) = streams.iter().position(|s| *s == id && id != 0) else { continue };
                if !data.is_empty() {
                    let mut message = BytesMut::with_capacity(data.len() + 1);
                    message.put_u8(channel as u8);
                    message.extend_from_slice(&data);
                    to_client
                        .send(Message::Binary(message.freeze()))
                        .await
                        .map_err(|e| StreamError::Client(e.to_string()))?;
                }
                ended[channel] |= fin;
            }
            // All outputs and the error stream have ended: the command is over.
            if wanted.channels().filter(|c| matches!(c, 1..=3)).all(|c| ended[c]) {
                return Ok(());
            }
            if from_kubelet.read_buf(&mut arrived).await? == 0 {
                return Ok(());
            }
        }
    };
    let result: Result<(), StreamError> = tokio::select! {
        result = upstream => result,
        result = downstream => result,
    };
    close(to_client, from_client).await;
    result
}

/// How long a client has to answer the end of its WebSocket.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// Ends a WebSocket so that the client has read everything before: code 1000, then its own close is awaited. Clients take
/// a close without a code for a failure.
pub async fn close<C>(
    mut to_client: SplitSink<WebSocketStream<C>, Message>,
    mut from_client: SplitStream<WebSocketStream<C>>,
) where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    let _ = to_client.send(Message::Close(Some(normal))).await;
    let answered = async { while let Some(Ok(_)) = from_client.next().await {} };
    let _ = tokio::time::timeout(CLOSE_LIMIT, answered).await;
}

/// One message of the client, as frames.
fn forward(message: &[u8], streams: &[u32; CHANNELS.len()], out: &mut BytesMut) {
    let Some((channel, rest)) = message.split_first() else { return };
    let (channel, payload, fin) = match (*channel, rest) {
        (CLOSE, [channel, ..]) => (*channel, &[][..], true),
        (channel, payload) => (channel, payload, false),
    };
    // Only what flows to the container; anything else a client sends is dropped.
    let known = matches!(channel, 0 | 4).then(|| streams[channel as usize]).filter(|id| *id != 0);
    if let Some(id) = known {
        spdy::data(id, fin, payload, out);
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("the client's connection failed: {0}")]
    Client(String),
    #[error("the kubelet's connection failed: {0}")]
    Kubelet(#[from] std::io::Error),
    #[error("the kubelet does not speak {0}")]
    Spdy(#[from] SpdyError),
}

/// A connection after its upgrade.
pub type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_tungstenite::tungstenite::protocol::Role;

    /// A client and a kubelet on pipes; the kubelet echoes stdin on stdout and ends with a status.
    #[tokio::test]
    async fn stdin_comes_back_as_stdout_and_the_status_last() {
        let (client_end, server_end) = tokio::io::duplex(1 << 16);
        let (mut kubelet_end, proxy_end) = tokio::io::duplex(1 << 16);
        let server = WebSocketStream::from_raw_socket(server_end, Role::Server, None).await;
        let mut client = WebSocketStream::from_raw_socket(client_end, Role::Client, None).await;
        let wanted = Wanted::from_query("command=cat&stdin=true&stdout=true");
        let translation = tokio::spawn(translate(server, proxy_end, wanted));

        client.send(Message::Binary(Bytes::from_static(b"\x00hel"))).await.expect("sent");
        client.send(Message::text("\x00lo")).await.expect("sent");
        client.send(Message::Binary(Bytes::from_static(&[CLOSE, 0]))).await.expect("sent");

        let mut reader = spdy::Reader::new();
        let (mut arrived, mut types, mut stdin) = (BytesMut::new(), Vec::new(), Vec::new());
        'reading: loop {
            while let Some(frame) = reader.next(&mut arrived).expect("frame") {
                match frame {
                    Frame::SynStream { id, headers, .. } => types.push((id, headers[0].1.clone())),
                    Frame::Data { id: 3, fin, data } => {
                        stdin.extend_from_slice(&data);
                        if fin {
                            break 'reading;
                        }
                    }
                    other => panic!("{other:?}"),
                }
            }
            kubelet_end.read_buf(&mut arrived).await.expect("read");
        }
        assert_eq!(types, [(1, "error".to_string()), (3, "stdin".into()), (5, "stdout".into())]);
        assert_eq!(stdin, b"hello");
        let mut out = BytesMut::new();
        spdy::data(5, false, b"hello", &mut out);
        spdy::data(5, true, b"", &mut out);
        spdy::data(1, true, br#"{"status":"Success"}"#, &mut out);
        kubelet_end.write_all(&out).await.expect("written");

        let mut messages = Vec::new();
        while let Some(Ok(Message::Binary(message))) = client.next().await {
            messages.push(message);
        }
        assert_eq!(messages, [&b"\x01hello"[..], &b"\x03{\"status\":\"Success\"}"[..]]);
        translation.await.expect("joined").expect("ended well");
    }
}
