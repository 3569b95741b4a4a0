//! A watch in a WebSocket: a message an event, for browsers, which cannot read an answer that does not end.
//!
//! Reads: the watch's own answer. Invariants: what is wrong with a watch is said before anything is upgraded; the end of the
//! watch is a close with code 1000.

use bytes::{Buf, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::remote_command::close;
use super::{WS_PROTOCOL, switching, websocket};
use crate::accept::Format;
use crate::body::{Body, Response};
use crate::call::Call;
use crate::reply;

/// Before a frame of protobuf.
const LENGTH_BYTES: usize = 4;

/// The answer that upgrades, while the watch goes on in the background.
pub fn upgrade(call: &Call, client: OnUpgrade, watch: Response) -> Response {
    let protocol = call.headers.get(&WS_PROTOCOL).cloned();
    // Compat: whatever is offered is agreed to, but no choice is made (apiserver's websocket handshake).
    if protocol.as_ref().is_some_and(|protocol| protocol.as_bytes().contains(&b',')) {
        return reply::text(400, "");
    }
    let binary = call.accept.format == Format::Protobuf;
    tokio::spawn(async move {
        match client.await {
            Ok(client) => carry(TokioIo::new(client), watch.into_body(), binary).await,
            Err(error) => tracing::debug!("a watch was not upgraded: {error}"),
        }
    });
    switching(&call.headers, protocol)
}

async fn carry(client: super::remote_command::Upgraded, mut events: Body, binary: bool) {
    let (mut to_client, mut from_client) = websocket(client).await.split();
    let mut buffer = BytesMut::new();
    loop {
        tokio::select! {
            frame = events.frame() => match frame.map(|frame| frame.map(|f| f.into_data().unwrap_or_default())) {
                Some(Ok(data)) => buffer.extend_from_slice(&data),
                _ => break,
            },
            message = from_client.next() => match message {
                Some(Ok(message)) if !message.is_close() => continue,
                _ => return,
            },
        }
        while let Some(event) = next(&mut buffer, binary) {
            let message = if binary { Some(Message::Binary(event)) } else { text(event) };
            if let Some(message) = message
                && to_client.send(message).await.is_err()
            {
                return;
            }
        }
    }
    close(to_client, from_client).await;
}

fn text(event: Bytes) -> Option<Message> {
    Utf8Bytes::try_from(event).ok().map(Message::Text)
}

/// The next whole event: a line with its end, or a frame without its length.
fn next(buffer: &mut BytesMut, binary: bool) -> Option<Bytes> {
    if !binary {
        let end = buffer.iter().position(|byte| *byte == b'\n')?;
        return Some(buffer.split_to(end + 1).freeze());
    }
    let length = u32::from_be_bytes(buffer.get(..LENGTH_BYTES)?.try_into().ok()?) as usize;
    buffer.get(LENGTH_BYTES..LENGTH_BYTES + length)?;
    buffer.advance(LENGTH_BYTES);
    Some(buffer.split_to(length).freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_cut_out() {
        let mut lines = BytesMut::from("{1}\n{2}\n{3");
        let found: Vec<Bytes> = std::iter::from_fn(|| next(&mut lines, false)).collect();
        assert_eq!((found, &lines[..]), (vec![Bytes::from("{1}\n"), Bytes::from("{2}\n")], &b"{3"[..]));
        let mut frames = BytesMut::from(&b"\0\0\0\x02ab\0\0\0\x03c"[..]);
        let found: Vec<Bytes> = std::iter::from_fn(|| next(&mut frames, true)).collect();
        assert_eq!((found, &frames[..]), (vec![Bytes::from("ab")], &b"\0\0\0\x03c"[..]));
    }
}
