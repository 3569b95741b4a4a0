//! The gRPC probe: `grpc.health.v1.Health/Check` over one HTTP/2 connection, written out by hand since it is one message.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

use super::action::{MAX_OUTPUT_BYTES, Outcome};
use super::{tcp, tls};

const SERVING: u64 = 1;
const UNIMPLEMENTED: &str = "12";
const DEADLINE_EXCEEDED: &str = "4";

pub async fn check(host: &str, port: u16, service: &str, use_tls: bool, timeout: Duration) -> Outcome {
    let address = tcp::address(host, port);
    let deadline = tokio::time::Instant::now() + timeout;
    let connect = async {
        let stream = tcp::connect(host, port, timeout).await?;
        let _ = stream.set_nodelay(true);
        if use_tls {
            let stream = tls::wrap(stream, host, true).await.map_err(|error| tcp::words(&error))?;
            return Ok(Box::new(stream) as Box<dyn Stream>);
        }
        Ok::<_, String>(Box::new(stream) as Box<dyn Stream>)
    };
    let seconds = timeout.as_secs();
    let stream = match tokio::time::timeout_at(deadline, connect).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            return Outcome::Failure(format!("error: failed to connect service at \"{address}\": {error}"));
        }
        Err(_) => {
            return Outcome::Failure(format!(
                "timeout: failed to connect service \"{address}\" within {seconds}s: context deadline exceeded"
            ));
        }
    };
    match tokio::time::timeout_at(deadline, call(stream, &address, service)).await {
        Ok(Ok(answer)) => judge(&answer, seconds),
        Ok(Err(error)) => Outcome::Failure(format!("error: health rpc probe failed: {error}")),
        Err(_) => Outcome::Failure(format!("timeout: health rpc did not complete within {seconds}s")),
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

#[derive(Debug, Default)]
struct Answer {
    code: String,
    message: String,
    body: Bytes,
}

async fn call(stream: Box<dyn Stream>, address: &str, service: &str) -> Result<Answer, String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.37")
        .body(Full::new(encode(service)))
        .map_err(|error| words(&error))?;
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|error| words(&error))?;
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(|error| words(&error))?;
        let (head, body) = response.into_parts();
        let collected = Limited::new(body, MAX_OUTPUT_BYTES).collect().await.map_err(|error| words(&error))?;
        let mut answer = Answer::default();
        let trailers = collected.trailers().cloned().unwrap_or_default();
        for headers in [&head.headers, &trailers] {
            take_status(headers, &mut answer);
        }
        if answer.code.is_empty() {
            return Err(format!("unexpected HTTP status code received from server: {}", head.status.as_u16()));
        }
        answer.body = collected.to_bytes();
        Ok(answer)
    };
    tokio::pin!(exchange);
    tokio::pin!(connection);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => match ended {
            Err(error) => Err(error.to_string()),
            Ok(()) => exchange.await,
        },
    }
}

fn take_status(headers: &HeaderMap, answer: &mut Answer) {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    if let Some(code) = text("grpc-status") {
        answer.code = code;
        answer.message = text("grpc-message").unwrap_or_default();
    }
}

fn judge(answer: &Answer, seconds: u64) -> Outcome {
    match answer.code.as_str() {
        "0" => match status(&answer.body) {
            SERVING => Outcome::Success,
            other => {
                let name = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"]
                    .get(other as usize)
                    .copied()
                    .unwrap_or("UNKNOWN");
                Outcome::Failure(format!("service unhealthy (responded with \"{name}\")"))
            }
        },
        UNIMPLEMENTED => Outcome::Failure(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
            answer.message
        )),
        DEADLINE_EXCEEDED => Outcome::Failure(format!("timeout: health rpc did not complete within {seconds}s")),
        code => {
            let name = code
                .parse::<i32>()
                .map(tonic::Code::from_i32)
                .map_or_else(|_| code.to_owned(), |code| format!("{code:?}"));
            Outcome::Failure(format!(
                "error: health rpc probe failed: rpc error: code = {name} desc = {}",
                answer.message
            ))
        }
    }
}

// One gRPC frame: not compressed, length, HealthCheckRequest { service = 1 }.
fn encode(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8((length as u8 & 0x7f) | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.extend_from_slice(&message);
    frame.freeze()
}

// HealthCheckResponse { status = 1 }: the enum, 0 when absent.
fn status(frame: &[u8]) -> u64 {
    match frame.get(5..) {
        Some([0x08, value, ..]) => u64::from(*value),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_one_frame() {
        assert_eq!(encode("").as_ref(), [0, 0, 0, 0, 0]);
        assert_eq!(encode("ab").as_ref(), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(encode(&"x".repeat(300))[..8], [0, 0, 0, 1, 0x2f, 0x0a, 0xac, 0x02]);
    }

    #[test]
    fn answers_are_judged() {
        let answer = |code: &str, message: &str, status: u8| Answer {
            code: code.into(),
            message: message.into(),
            body: Bytes::from(vec![0, 0, 0, 0, 2, 8, status]),
        };
        let failure = |text: &str| Outcome::Failure(text.to_owned());
        let table = [
            (answer("0", "", 1), Outcome::Success),
            (answer("0", "", 2), failure("service unhealthy (responded with \"NOT_SERVING\")")),
            (
                answer("12", "no", 0),
                failure("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): no"),
            ),
            (answer("5", "gone", 0), failure("error: health rpc probe failed: rpc error: code = NotFound desc = gone")),
            (answer("4", "", 0), failure("timeout: health rpc did not complete within 3s")),
        ];
        for (answer, expected) in table {
            assert_eq!(judge(&answer, 3), expected);
        }
    }
}
