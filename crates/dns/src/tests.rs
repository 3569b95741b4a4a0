//! The whole server over real sockets: informers fed by a few lines of API server, an upstream of its own.

use std::convert::Infallible;

use hickory_server::proto::op::{Edns, Message, Query, ResponseCode};
use hickory_server::proto::rr::rdata::A;
use hickory_server::proto::rr::{RData, Record, RecordType};
use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

// Lists are fixed; watches never say anything.
fn api_server() -> kube::Client {
    let service = tower::service_fn(|request: Request<Body>| async move {
        if request.uri().query().unwrap_or_default().contains("watch=true") {
            return std::future::pending::<Result<Response<Body>, Infallible>>().await;
        }
        let meta = |name: &str| json!({"name": name, "namespace": "default", "uid": name, "resourceVersion": "1"});
        let items: Vec<Value> = match request.uri().path() {
            "/api/v1/services" => vec![
                json!({"metadata": meta("web"), "spec": {"clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 80}]}}),
                json!({"metadata": meta("many"), "spec": {"clusterIP": "None"}}),
                json!({"metadata": meta("out"), "spec": {"type": "ExternalName", "externalName": "far.example"}}),
                json!({"metadata": meta("round"), "spec": {"type": "ExternalName", "externalName": "round.default.svc.cluster.local"}}),
            ],
            "/api/v1/namespaces" => vec![json!({"metadata": {"name": "default", "uid": "d", "resourceVersion": "1"}})],
            "/apis/discovery.k8s.io/v1/endpointslices" => {
                let mut slice = json!({"metadata": meta("many-1"), "addressType": "IPv4", "endpoints": []});
                slice["metadata"]["labels"] = json!({"kubernetes.io/service-name": "many"});
                slice["endpoints"] = (1..=200).map(|last| json!({"addresses": [format!("10.1.0.{last}")]})).collect();
                vec![slice]
            }
            _ => vec![],
        };
        let body = json!({"metadata": {"resourceVersion": "1"}, "items": items});
        Ok(Response::new(Body::from(body.to_string().into_bytes())))
    });
    kube::Client::new(service, "default")
}

// Knows far.example; everything else does not exist. Counts questions.
async fn upstream() -> (SocketAddr, Arc<std::sync::atomic::AtomicUsize>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let question = Message::from_vec(&buffer[..length]).unwrap();
            let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
            let name = question.queries[0].name().clone();
            answer.queries = question.queries;
            if name.to_ascii() == "far.example." {
                answer.add_answer(Record::from_rdata(name, 60, RData::A(A::new(192, 0, 2, 1))));
            } else {
                answer.metadata.response_code = ResponseCode::NXDomain;
            }
            socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
        }
    });
    (address, asked)
}

struct Fixture {
    address: SocketAddr,
    shutdown: CancellationToken,
    asked: Arc<std::sync::atomic::AtomicUsize>,
    task: tokio::task::JoinHandle<Result<(), Error>>,
}

impl Fixture {
    async fn new() -> Self {
        let (upstream, asked) = upstream().await;
        let mut config = Config { listen: vec!["127.0.0.1:0".parse().unwrap()], ..Config::default() };
        config.upstreams = vec![upstream];
        let server = Server::bind(config).await.unwrap();
        let address = server.addr();
        let mut ready = server.readiness();
        let shutdown = CancellationToken::new();
        let informers = client::Informers::new(api_server(), shutdown.clone());
        let task = tokio::spawn(server.run(api_server(), informers, shutdown.clone()));
        ready.wait_for(|ready| *ready).await.unwrap();
        Self { address, shutdown, asked, task }
    }

    fn question(name: &str, kind: RecordType, payload: Option<u16>) -> Message {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        if let Some(payload) = payload {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            message.set_edns(edns);
        }
        message
    }

    async fn udp(&self, question: &Message) -> Message {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(&question.to_vec().unwrap(), self.address).await.unwrap();
        let mut buffer = [0; 65535];
        let length = tokio::time::timeout(Duration::from_secs(60), socket.recv(&mut buffer)).await.unwrap().unwrap();
        Message::from_vec(&buffer[..length]).unwrap()
    }

    async fn tcp(&self, question: &Message) -> Message {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let bytes = question.to_vec().unwrap();
        stream.write_all(&(bytes.len() as u16).to_be_bytes()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let length = stream.read_u16().await.unwrap();
        let mut buffer = vec![0; length.into()];
        stream.read_exact(&mut buffer).await.unwrap();
        Message::from_vec(&buffer).unwrap()
    }

    async fn end(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}

fn show(message: &Message) -> String {
    let meta = &message.metadata;
    let lines = |title: &str, records: &[Record]| {
        // What was remembered has aged by a second or more on a slow machine.
        let young = |record: &Record| {
            let mut record = record.clone();
            record.ttl = if record.ttl > 5 { 60 } else { record.ttl };
            record
        };
        records.iter().map(|record| format!("; {title} {}", young(record))).collect::<String>()
    };
    format!(
        "{:?} aa={} ra={}{}{}",
        meta.response_code,
        meta.authoritative,
        meta.recursion_available,
        lines("answer", &message.answers),
        lines("add", &message.additionals)
    )
}

#[tokio::test]
async fn questions_over_udp() {
    let at = Fixture::new().await;
    let a = RecordType::A;
    let table = [
        (
            "web.default.svc.cluster.local.",
            a,
            "NoError aa=true ra=true; answer web.default.svc.cluster.local. 5 IN A 10.96.0.5",
        ),
        ("web.default.svc.cluster.local.", RecordType::AAAA, "NoError aa=true ra=true"),
        ("none.default.svc.cluster.local.", a, "NXDomain aa=true ra=true"),
        ("far.example.", a, "NoError aa=false ra=true; answer far.example. 60 IN A 192.0.2.1"),
        ("gone.example.", a, "NXDomain aa=false ra=true"),
        (
            "out.default.svc.cluster.local.",
            a,
            "NoError aa=false ra=true; answer out.default.svc.cluster.local. 5 IN CNAME far.example.; answer far.example. 60 IN A 192.0.2.1",
        ),
        (
            "out.default.svc.cluster.local.",
            RecordType::CNAME,
            "NoError aa=true ra=true; answer out.default.svc.cluster.local. 5 IN CNAME far.example.",
        ),
        ("round.default.svc.cluster.local.", a, "ServFail aa=false ra=true"),
        ("cluster.local.", RecordType::AXFR, "Refused aa=false ra=true"),
    ];
    for (name, kind, expected) in table {
        let answer = at.udp(&Fixture::question(name, kind, None)).await;
        assert_eq!(show(&answer), expected, "{name} {kind}");
        let negative = answer.answers.is_empty() && answer.metadata.authoritative;
        let found = answer.authorities.len();
        assert_eq!(found, usize::from(negative), "{name} {kind} has an SOA only when it has nothing else");
    }
    // far.example was asked for three times, once by way of an alias, and forwarded once.
    assert_eq!(at.asked.load(std::sync::atomic::Ordering::SeqCst), 2);
    at.end().await;
}

#[tokio::test]
async fn what_does_not_fit_is_cut_and_comes_whole_by_tcp() {
    let at = Fixture::new().await;
    let name = "many.default.svc.cluster.local.";
    for (payload, most) in [(None, 512), (Some(1232), 1232), (Some(4096), 1232)] {
        let answer = at.udp(&Fixture::question(name, RecordType::A, payload)).await;
        assert!(answer.metadata.truncation && answer.to_vec().unwrap().len() <= most, "{payload:?}");
        assert_eq!(answer.edns.is_some(), payload.is_some());
    }
    let whole = at.tcp(&Fixture::question(name, RecordType::A, None)).await;
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 200);
    at.end().await;
}

#[tokio::test]
async fn odd_packets_do_no_harm() {
    let at = Fixture::new().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for packet in [&b""[..], b"x", &[0; 12], &[0xff; 600]] {
        socket.send_to(packet, at.address).await.unwrap();
    }
    let mut two = Fixture::question("web.default.svc.cluster.local.", RecordType::A, None);
    two.add_query(two.queries[0].clone());
    assert_eq!(at.udp(&two).await.metadata.response_code, ResponseCode::FormErr);
    let answer = at.udp(&Fixture::question("web.default.svc.cluster.local.", RecordType::A, None)).await;
    assert_eq!(answer.answers.len(), 1);
    at.end().await;
}

#[tokio::test]
async fn bad_settings_are_named() {
    let mut config = Config { listen: vec!["127.0.0.1:0".parse().unwrap()], ..Config::default() };
    config.cluster_domain = "bad domain..".into();
    assert!(matches!(Server::bind(config.clone()).await, Err(Error::Domain(_))));
    config.cluster_domain = "corp.test".into();
    let first = Server::bind(config.clone()).await.unwrap();
    config.listen = vec![first.addr()];
    let error = Server::bind(config).await.err().unwrap().to_string();
    assert!(error.starts_with("cannot listen for DNS on 127.0.0.1:"), "{error}");
}
