//! A log in a WebSocket: a message for each piece as it comes, for browsers.
//!
//! Reads: the log's own answer. Source: "Accessing the Kubernetes API from a browser" (the subprotocols of upstream's
//! wsstream readers). Invariants: what is wrong with a log is said before anything is upgraded; an empty message tells that the
//! stream stands; the end of the log is a close with code 1000.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::header::{HeaderMap, HeaderValue};
use http_body_util::BodyExt;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::Message;

use super::remote_command::{Upgraded, close};
use super::{WS_PROTOCOL, switching, websocket};
use crate::body::{Body, Response};
use crate::reply;

const BINARY: &str = "binary.k8s.io";
const BASE64: &str = "base64.binary.k8s.io";

/// The first protocol offered that we speak; binary messages without a name where none is offered.
fn chosen(headers: &HeaderMap) -> Option<Option<&'static str>> {
    let Some(offered) = headers.get(&WS_PROTOCOL).and_then(|offered| offered.to_str().ok()) else { return Some(None) };
    let known = |offered: &str| [BINARY, BASE64].into_iter().find(|known| *known == offered);
    offered.split(',').find_map(|offered| known(offered.trim())).map(Some)
}

/// The answer that upgrades, while the log goes on in the background.
pub fn upgrade(headers: &HeaderMap, client: OnUpgrade, log: Response) -> Response {
    let Some(protocol) = chosen(headers) else { return reply::text(403, "") };
    tokio::spawn(async move {
        match client.await {
            Ok(client) => carry(TokioIo::new(client), log.into_body(), protocol == Some(BASE64)).await,
            Err(error) => tracing::debug!("a log was not upgraded: {error}"),
        }
    });
    switching(headers, protocol.map(HeaderValue::from_static))
}

async fn carry(client: Upgraded, mut log: Body, base64: bool) {
    let message = |bytes: Bytes| match base64 {
        true => Message::Text(STANDARD.encode(bytes).into()),
        false => Message::Binary(bytes),
    };
    let (mut to_client, mut from_client) = websocket(client).await.split();
    let mut next = Some(Bytes::new());
    loop {
        if let Some(bytes) = next.take()
            && to_client.send(message(bytes)).await.is_err()
        {
            return;
        }
        tokio::select! {
            frame = log.frame() => match frame {
                Some(Ok(frame)) => next = frame.into_data().ok().filter(|bytes| !bytes.is_empty()),
                _ => break,
            },
            message = from_client.next() => match message {
                Some(Ok(message)) if !message.is_close() => {}
                _ => return,
            },
        }
    }
    close(to_client, from_client).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use hyper::body::Incoming;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;

    /// What a client that offers these protocols is told: the code and the protocol, or the messages.
    async fn asked(protocols: &str) -> Result<(String, Vec<Message>), u16> {
        let (client, server) = tokio::io::duplex(1 << 16);
        let service = hyper::service::service_fn(|mut request: Request<Incoming>| async move {
            let client = hyper::upgrade::on(&mut request);
            let pieces = ["one\n", "", "two\n"].map(|piece| Ok(Bytes::from(piece)));
            let log = Response::new(Body::stream(futures::stream::iter(pieces)));
            Ok::<_, std::convert::Infallible>(upgrade(request.headers(), client, log))
        });
        let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service);
        tokio::spawn(serving.with_upgrades());
        let mut request = "ws://h/log".into_client_request().expect("a request");
        if !protocols.is_empty() {
            request.headers_mut().insert(WS_PROTOCOL, protocols.parse().expect("a value"));
        }
        match tokio_tungstenite::client_async(request, client).await {
            Ok((socket, answer)) => {
                let protocol = answer.headers().get(&WS_PROTOCOL).map(|p| p.to_str().expect("text").to_string());
                let messages = socket.filter_map(|message| std::future::ready(message.ok())).collect().await;
                Ok((protocol.unwrap_or_default(), messages))
            }
            Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => Err(answer.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    #[tokio::test]
    async fn a_message_for_each_piece() {
        for (protocols, chosen) in [(BINARY, BINARY), ("a, binary.k8s.io", BINARY), (BASE64, BASE64)] {
            let (protocol, messages) = asked(protocols).await.expect("an upgrade");
            let bytes: Vec<Vec<u8>> =
                messages[..3].iter().map(|message| message.clone().into_data().to_vec()).collect();
            let want = match chosen {
                BASE64 => ["", "b25lCg==", "dHdvCg=="],
                _ => ["", "one\n", "two\n"],
            };
            assert_eq!((protocol.as_str(), bytes), (chosen, want.map(|piece| piece.as_bytes().to_vec()).to_vec()));
            assert!(
                matches!(&messages[3..], [Message::Close(Some(end))] if u16::from(end.code) == 1000),
                "{messages:?}"
            );
        }
        assert_eq!(asked("").await.map(|(protocol, messages)| (protocol, messages.len())), Ok((String::new(), 4)));
        assert_eq!(asked("other").await.err(), Some(403));
    }
}
