//! The server over real TLS and sockets, with a node of one pod behind it.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::*;
use crate::pods::{ContainerRef, PodIps};

struct OnePod {
    log: PathBuf,
}

impl PodSource for OnePod {
    fn pods(&self) -> Vec<Arc<Pod>> {
        let pod = json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"containers": [{"name": "c", "image": "i"}, {"name": "stopped", "image": "i"}]},
        });
        vec![Arc::new(serde_json::from_value(pod).unwrap())]
    }

    fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.pods().into_iter().find(|_| (namespace, name) == ("ns", "p"))
    }

    fn pod_by_uid(&self, uid: &str) -> Option<Arc<Pod>> {
        self.pods().into_iter().find(|_| uid == "u")
    }

    fn sandbox_id(&self, _: &str) -> Option<String> {
        None
    }

    fn containers(&self, _: &str) -> Vec<ContainerRef> {
        vec![ContainerRef { id: "id".into(), name: "c".into(), attempt: 0, running: true, log_path: self.log.clone() }]
    }

    fn ips(&self, _: &str) -> PodIps {
        PodIps::default()
    }
}

struct Fixture {
    ca: pki::Authority,
    address: SocketAddr,
    shutdown: CancellationToken,
    log: PathBuf,
}

impl Fixture {
    async fn new(name: &str) -> Self {
        let log = std::env::temp_dir().join(format!("knarr-server-{name}-{}.log", std::process::id()));
        std::fs::write(&log, "2026-11-21T10:00:00Z stdout F one\n2026-11-21T10:00:01Z stderr F two\n").unwrap();
        let ca = pki::Authority::generate("test-ca").unwrap();
        let serving = ca.issue(&pki::CertificateRequest::server("node", &["localhost".to_owned()], &[])).unwrap();
        let settings = Settings {
            listen: "127.0.0.1:0".parse().unwrap(),
            cert_pem: serving.certificate_pem,
            key_pem: serving.key_pem,
            client_ca_pem: ca.certificate_pem().to_owned(),
            node_name: "node".into(),
            data_dir: "/".into(),
        };
        let server = Server::bind(settings).await.unwrap();
        let address = server.address();
        let shutdown = CancellationToken::new();
        let refuse = tower::service_fn(|_: Request<kube::client::Body>| async {
            let body = json!({"kind": "Status", "status": "Failure", "code": 404, "message": "no such thing", "reason": "NotFound"}).to_string();
            Ok::<_, Infallible>(
                Response::builder().status(404).body(kube::client::Body::from(body.into_bytes())).unwrap(),
            )
        });
        let client = kube::Client::new(refuse, "default");
        let runtime = cri::Client::new("unix:///no/such/socket");
        tokio::spawn(server.run(runtime, client, Arc::new(OnePod { log: log.clone() }), shutdown.clone()));
        Self { ca, address, shutdown, log }
    }

    async fn get(&self, user: Option<(&str, Option<&str>)>, path: &str) -> (u16, String) {
        let identity = user.map(|(name, group)| self.ca.issue(&pki::CertificateRequest::client(name, group)).unwrap());
        let config = pki::tls::client(self.ca.certificate_pem(), identity.as_ref()).unwrap();
        let stream = TcpStream::connect(self.address).await.unwrap();
        let stream =
            TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request =
            Request::get(path).header("host", "localhost").body(http_body_util::Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.shutdown.cancel();
        let _ = std::fs::remove_file(&self.log);
    }
}

const SERVER: Option<(&str, Option<&str>)> = Some((API_SERVER, None));

#[tokio::test]
async fn only_the_allowed_are_answered() {
    let at = Fixture::new("access").await;
    assert_eq!(at.get(None, "/healthz").await, (200, "ok".into()));
    assert_eq!(at.get(None, "/pods").await, (401, "Unauthorized".into()));
    let refused = "Forbidden (user=system:node:other, verb=get, resource=nodes, subresource(s)=[proxy])\n";
    let other = Some(("system:node:other", Some("system:nodes")));
    assert_eq!(at.get(other, "/containerLogs/ns/p/c").await, (403, refused.into()));
    assert_eq!(at.get(Some(("admin", Some("system:masters"))), "/runningpods/").await.0, 200);
    assert_eq!(at.get(SERVER, "/nothing").await, (404, "404 page not found\n".into()));
}

#[tokio::test]
async fn logs_and_lists() {
    let at = Fixture::new("logs").await;
    let table = [
        ("/containerLogs/ns/p/c", 200, "one\ntwo\n"),
        ("/containerLogs/ns/p/c?tailLines=1&timestamps=true", 200, "2026-11-21T10:00:01.000000000Z two\n"),
        ("/containerLogs/ns/p/c?stream=Stdout", 200, "one\n"),
        (
            "/containerLogs/ns/p/c?limitBytes=0",
            400,
            "{\"message\": \"limitBytes: Invalid value: \\\"0\\\": must be greater than or equal to 1\"}",
        ),
        ("/containerLogs/ns/p/c?previous=true", 400, "previous terminated container \"c\" in pod \"p\" not found"),
        ("/containerLogs/ns/p/stopped", 400, "container \"stopped\" in pod \"p\" is not available"),
        ("/containerLogs/ns/p/none", 404, "container \"none\" not found in pod \"p\""),
        ("/containerLogs/ns/gone/c", 404, "pod does not exist"),
        ("/exec/ns/p/stopped?command=ls&output=1", 404, "container not found (\"stopped\")"),
        ("/exec/ns/p/c?command=ls", 400, "you must specify at least 1 of stdin, stdout, stderr"),
        ("/exec/ns/p/otheruid/c?command=ls&output=1", 404, "pod does not exist"),
        ("/portForward/ns/p", 404, "pod sandbox not found: the pod is not running"),
    ];
    for (path, status, body) in table {
        assert_eq!(at.get(SERVER, path).await, (status, body.to_owned()), "{path}");
    }
    let (_, running) = at.get(SERVER, "/runningpods/").await;
    let pod = "{\"metadata\":{\"name\":\"p\",\"namespace\":\"ns\",\"uid\":\"u\"},\"spec\":{\"containers\":[{\"image\":\"i\",\"name\":\"c\",\"resources\":{}},{\"image\":\"i\",\"name\":\"stopped\",\"resources\":{}}]},\"status\":{}}";
    assert_eq!(running, format!("{{\"apiVersion\":\"v1\",\"items\":[{pod}],\"kind\":\"PodList\",\"metadata\":{{}}}}"));
    let (status, own) = at.get(SERVER, "/metrics").await;
    assert!(status == 200 && own.contains("kubelet_running_pods 1\n"), "{own}");
    let (status, error) = at.get(SERVER, "/stats/summary").await;
    assert!(status == 500 && error.contains("dial unix /no/such/socket"), "{error}");
}

#[tokio::test]
async fn upgraded_streams_pass_both_ways() {
    // The runtime: checks the path, upgrades, echoes in upper case, hangs up at the end.
    let runtime = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/exec/token", runtime.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = runtime.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = stream.read_u8().await.unwrap();
            head.push(byte);
        }
        let head = String::from_utf8(head).unwrap();
        assert!(
            head.starts_with("POST /exec/token HTTP/1.1\r\n")
                && head.contains("x-stream-protocol-version: v4.channel.k8s.io"),
            "{head}"
        );
        let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: SPDY/3.1\r\nConnection: Upgrade\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let mut buffer = [0; 64];
        loop {
            let count = stream.read(&mut buffer).await.unwrap();
            if count == 0 {
                return;
            }
            stream.write_all(&buffer[..count].to_ascii_uppercase()).await.unwrap();
        }
    });
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = front.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (stream, _) = front.accept().await.unwrap();
        let service = service_fn(move |request| {
            let url = url.clone();
            async move { Ok::<_, Infallible>(streams::proxy(request, &url, CancellationToken::new()).await) }
        });
        let builder = auto::Builder::new(TokioExecutor::new());
        let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
    });
    let mut client = TcpStream::connect(address).await.unwrap();
    let request = "POST /exec/ns/p/c HTTP/1.1\r\nHost: x\r\nUpgrade: SPDY/3.1\r\nConnection: Upgrade\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\nContent-Length: 0\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(
        head.starts_with("http/1.1 101")
            && head.contains("upgrade: spdy/3.1")
            && head.contains("x-stream-protocol-version: v4.channel.k8s.io"),
        "{head}"
    );
    client.write_all(b"hello").await.unwrap();
    let mut echo = [0; 5];
    client.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"HELLO");
    client.shutdown().await.unwrap();
    assert_eq!(client.read(&mut echo).await.unwrap(), 0);
    server.await.unwrap();
}
