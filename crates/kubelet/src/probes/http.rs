//! The HTTP probe: one GET, redirects on the same host followed, certificates not checked.
//!
//! 200 to 399 is success. Invariant: at most `MAX_OUTPUT_BYTES` of a body are read, and the connection is not used again.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::action::{MAX_OUTPUT_BYTES, Outcome};
use super::{tcp, tls};

const MAX_REDIRECTS: usize = 10;
const USER_AGENT: &str = "kube-probe/1.37";

/// What to get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub https: bool,
    pub host: String,
    pub port: u16,
    /// With the query, as the manifest has it.
    pub path: String,
}

impl Target {
    fn url(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}{}", tcp::address(&self.host, self.port), self.path_and_query())
    }

    fn path_and_query(&self) -> String {
        let mut out = String::with_capacity(self.path.len() + 1);
        if !self.path.starts_with('/') {
            out.push('/');
        }
        for byte in self.path.split('#').next().unwrap_or_default().bytes() {
            if byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte) {
                out.push(byte as char);
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
        }
        out
    }

    // Where a redirect leads; None when there is no sense in it.
    fn redirected(&self, location: &str) -> Option<Target> {
        let location = location.split('#').next().unwrap_or_default();
        if !location.contains("://") && !location.starts_with('/') {
            let base = self.path.split('?').next().unwrap_or_default();
            let directory = base.rfind('/').map_or("/", |end| &base[..=end]);
            return Some(Target { path: format!("{directory}{location}"), ..self.clone() });
        }
        let uri: Uri = location.parse().ok()?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        match uri.host() {
            Some(host) => {
                let https = match uri.scheme_str() {
                    Some("https") => true,
                    Some("http") => false,
                    Some(_) => return None,
                    None => self.https,
                };
                let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
                Some(Target { https, host: host.trim_matches(['[', ']']).to_owned(), port, path: path.to_owned() })
            }
            None => Some(Target { path: path.to_owned(), ..self.clone() }),
        }
    }
}

pub async fn get(target: Target, headers: Vec<(String, String)>, timeout: Duration) -> Outcome {
    let mut at = target;
    let first_host = at.host.clone();
    let deadline = tokio::time::Instant::now() + timeout;
    for _ in 0..=MAX_REDIRECTS {
        let attempt = tokio::time::timeout_at(deadline, request(&at, &headers, timeout));
        let (status, location, body) = match attempt.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Outcome::Failure(format!("Get \"{}\": {error}", at.url())),
            Err(_) => {
                let reason = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
                return Outcome::Failure(format!("Get \"{}\": {reason}", at.url()));
            }
        };
        let redirect = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
        match location.filter(|_| redirect).and_then(|location| at.redirected(&location)) {
            Some(next) if next.host == first_host => at = next,
            Some(_) => return Outcome::Warning(format!("Probe terminated redirects, Response body: {body}")),
            None if (200..400).contains(&status.as_u16()) => return Outcome::Success,
            None => return Outcome::Failure(format!("HTTP probe failed with statuscode: {}", status.as_u16())),
        }
    }
    Outcome::Failure(format!("Get \"{}\": stopped after {MAX_REDIRECTS} redirects", at.url()))
}

type Answer = (StatusCode, Option<String>, String);

async fn request(target: &Target, headers: &[(String, String)], timeout: Duration) -> Result<Answer, String> {
    let stream = tcp::connect(&target.host, target.port, timeout).await?;
    let _ = stream.set_nodelay(true);
    if target.https {
        let stream = tls::wrap(stream, &target.host, false).await.map_err(|error| tcp::words(&error))?;
        exchange(stream, target, headers).await
    } else {
        exchange(stream, target, headers).await
    }
}

async fn exchange<S>(stream: S, target: &Target, headers: &[(String, String)]) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut request = Request::builder()
        .method(Method::GET)
        .uri(target.path_and_query())
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    *request.headers_mut() = request_headers(target, headers)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| hyper_words(&error))?;
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(|error| hyper_words(&error))?;
        Ok(read(response).await)
    };
    // The connection lives only as long as this exchange: both run in this task and end with it.
    tokio::pin!(exchange);
    tokio::pin!(connection);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => match ended {
            Err(error) => Err(hyper_words(&error)),
            Ok(()) => exchange.await,
        },
    }
}

async fn read(response: Response<Incoming>) -> Answer {
    let status = response.status();
    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut body = response.into_body();
    let mut text = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        text.extend_from_slice(frame.data_ref().map_or(&[], |data| data.as_ref()));
        if text.len() >= MAX_OUTPUT_BYTES {
            break;
        }
    }
    text.truncate(MAX_OUTPUT_BYTES);
    (status, location, String::from_utf8_lossy(&text).into_owned())
}

fn request_headers(target: &Target, headers: &[(String, String)]) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name: HeaderName = name.parse().map_err(|_| format!("net/http: invalid header field name \"{name}\""))?;
        let value =
            HeaderValue::from_str(value).map_err(|_| format!("net/http: invalid header field value for \"{name}\""))?;
        map.append(name, value);
    }
    let default = |map: &mut HeaderMap, name: HeaderName, value: &str| -> Result<(), String> {
        if !map.contains_key(&name) {
            map.insert(name, HeaderValue::from_str(value).map_err(|error| error.to_string())?);
        }
        Ok(())
    };
    let default_port = if target.https { 443 } else { 80 };
    let host = tcp::address(&target.host, target.port);
    let host = if target.port == default_port { host.trim_end_matches(&format!(":{default_port}")) } else { &host };
    default(&mut map, header::HOST, host)?;
    default(&mut map, header::USER_AGENT, USER_AGENT)?;
    default(&mut map, header::ACCEPT, "*/*")?;
    // Compat: an empty Accept or User-Agent in the manifest means that the header is not sent (API reference, HTTPGetAction).
    for name in [header::ACCEPT, header::USER_AGENT] {
        if map.get(&name).is_some_and(HeaderValue::is_empty) {
            map.remove(&name);
        }
    }
    map.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(map)
}

fn hyper_words(error: &hyper::Error) -> String {
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        return "EOF".to_owned();
    }
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return tcp::words(io);
        }
        source = inner.source();
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    // Answers each connection with the next text; returns the port and what was asked.
    async fn serve(answers: Vec<String>) -> (u16, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).await.unwrap();
                    request.push(byte[0]);
                }
                asked.push(String::from_utf8(request).unwrap());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        });
        (port, task)
    }

    fn target(port: u16, path: &str) -> Target {
        Target { https: false, host: "127.0.0.1".into(), port, path: path.into() }
    }

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn status_codes_decide() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Outcome::Success),
            ("HTTP/1.1 399 Odd\r\nContent-Length: 0\r\n\r\n", Outcome::Success),
            ("HTTP/1.1 304 Not Modified\r\n\r\n", Outcome::Success),
            (
                "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
                Outcome::Failure("HTTP probe failed with statuscode: 500".into()),
            ),
            (
                "HTTP/1.1 302 Found\r\nLocation: http://example.com/\r\nContent-Length: 3\r\n\r\nbye",
                Outcome::Warning("Probe terminated redirects, Response body: bye".into()),
            ),
        ] {
            let (port, server) = serve(vec![answer.to_owned()]).await;
            assert_eq!(get(target(port, "/"), Vec::new(), LIMIT).await, expected, "{answer}");
            server.await.unwrap();
        }
    }

    #[tokio::test]
    async fn redirects_on_the_same_host_are_followed_and_headers_sent() {
        let answers = vec![
            "HTTP/1.1 302 Found\r\nLocation: /b?c=d\r\nContent-Length: 0\r\n\r\n".to_owned(),
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
        ];
        let (port, server) = serve(answers).await;
        let headers = vec![("X-A".to_owned(), "1".to_owned()), ("Host".to_owned(), "example.org".to_owned())];
        assert_eq!(get(target(port, "a b"), headers, LIMIT).await, Outcome::Success);
        let head =
            "x-a: 1\r\nhost: example.org\r\nuser-agent: kube-probe/1.37\r\naccept: */*\r\nconnection: close\r\n\r\n";
        let found = server.await.unwrap();
        assert_eq!(found, [format!("GET /a%20b HTTP/1.1\r\n{head}"), format!("GET /b?c=d HTTP/1.1\r\n{head}")]);
    }

    #[tokio::test]
    async fn failures_are_worded_as_users_know_them() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let slow = get(target(port, "/x"), Vec::new(), Duration::from_millis(50)).await;
        let text = format!(
            "Get \"http://127.0.0.1:{port}/x\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        );
        assert_eq!(slow, Outcome::Failure(text));
        drop(listener);
        // Nobody listens at a port that is held all the same, so that nobody else takes it meanwhile.
        let held = TcpSocket::new_v4().unwrap();
        held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = held.local_addr().unwrap().port();
        let refused = get(target(port, "/x"), Vec::new(), LIMIT).await;
        let text = format!("Get \"http://127.0.0.1:{port}/x\": dial tcp 127.0.0.1:{port}: connect: connection refused");
        assert_eq!(refused, Outcome::Failure(text));
        let (port, server) = serve(vec![String::new()]).await;
        let found = get(target(port, ""), Vec::new(), LIMIT).await;
        assert_eq!(found, Outcome::Failure(format!("Get \"http://127.0.0.1:{port}/\": EOF")));
        server.await.unwrap();
    }

    #[test]
    fn redirect_targets() {
        let from = target(80, "/dir/file?x=1");
        let table = [
            ("/a?b", "http://127.0.0.1:80/a?b"),
            ("next", "http://127.0.0.1:80/dir/next"),
            ("https://other/z", "https://other:443/z"),
        ];
        for (location, expected) in table {
            assert_eq!(from.redirected(location).unwrap().url(), expected);
        }
        assert_eq!(from.redirected("ftp://x/"), None);
    }
}
