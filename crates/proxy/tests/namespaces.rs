//! Services over real nftables rules: a node, three pods on its bridge and a client outside, each in a network namespace
//! of its own. Needs root, `ip` and `nft`; says so and fails if they are missing.
//! Invariant: everything it makes has this process's id in its name and is removed at the end, also after a failure.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use proxy::Config;
use proxy::engine::Engine;
use proxy::fragment::plan;
use tokio_util::sync::CancellationToken;

const ROLE: &str = "KNARR_PROXY_TEST_ROLE";
const WAIT_MAX: Duration = Duration::from_secs(120);
/// So many questions find every one of three pods but once in 10^10 times.
const MANY: usize = 60;
/// So many are asked where no answer is awaited; where one is, it may take its time on a slow machine.
const SILENT: usize = 1;
const POD_IPS: [&str; 3] = ["10.88.0.11", "10.88.0.12", "10.88.0.13"];

fn main() {
    match std::env::var(ROLE).as_deref() {
        Ok("serve") => serve(),
        Ok("ask") => ask(),
        _ => run(),
    }
}

/// Answers every TCP and UDP client on port 8080 with this pod's name and the client's address.
fn serve() {
    let name = std::env::args().nth(1).expect("the parent names the pod");
    let udp = UdpSocket::bind("[::]:8080").expect("port 8080 of a fresh namespace is free");
    let tcp = TcpListener::bind("[::]:8080").expect("port 8080 of a fresh namespace is free");
    let answer = |from: SocketAddr, name: &str| format!("{name} {}", from.ip().to_canonical());
    let udp_name = name.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(answer(from, &udp_name).as_bytes(), from);
        }
    });
    println!("ready");
    for stream in tcp.incoming().flatten() {
        let mut stream = stream;
        if let Ok(from) = stream.peer_addr() {
            let _ = stream.write_all(answer(from, &name).as_bytes());
        }
    }
}

/// Asks `tcp|udp|flow ADDRESS COUNT`, waiting for each answer for this long, and prints an answer a line: `NAME CLIENT`, `refused`, or `silent`.
fn ask() {
    let args: Vec<String> = std::env::args().collect();
    let (address, count): (SocketAddr, usize) =
        (args[2].parse().expect("an address"), args[3].parse().expect("a number"));
    let wait = if count == SILENT { Duration::from_millis(700) } else { WAIT_MAX };
    for _ in 0..count {
        let mut text = String::new();
        let outcome = if args[1] == "tcp" {
            TcpStream::connect_timeout(&address, wait).and_then(|mut s| s.read_to_string(&mut text).map(drop))
        } else {
            // "udp" takes a new port each time, "flow" always the same: one flow, also over several runs
            let own = if args[1] == "flow" { "0.0.0.0:5555" } else { "0.0.0.0:0" };
            let socket = UdpSocket::bind(own).expect("a free port");
            let mut buffer = [0; 64];
            socket
                .set_read_timeout(Some(wait))
                .and_then(|()| socket.connect(address))
                .and_then(|()| socket.send(b"?"))
                .and_then(|_| {
                    let n = socket.recv(&mut buffer)?;
                    text = String::from_utf8_lossy(&buffer[..n]).into_owned();
                    Ok(())
                })
        };
        match outcome {
            Ok(()) => println!("{text}"),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => println!("refused"),
            Err(_) => println!("silent"),
        }
    }
}

fn sh(line: &str) {
    let output = Command::new("sh").args(["-ec", line]).output().expect("sh runs");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The namespaces and servers of one test run.
struct Net {
    id: String,
    servers: Vec<Child>,
}

impl Net {
    fn name(&self, of: &str) -> String {
        format!("kp{}{of}", self.id)
    }

    fn path(&self, of: &str) -> PathBuf {
        PathBuf::from(format!("/run/netns/{}", self.name(of)))
    }

    fn own_program(&self, of: &str, role: &str, args: &[&str]) -> Command {
        let mut command = Command::new("ip");
        let program = std::env::current_exe().expect("this program has a path");
        command.args(["netns", "exec", &self.name(of)]).arg(program).args(args).env(ROLE, role);
        command
    }

    fn build() -> Self {
        let mut net = Net { id: std::process::id().to_string(), servers: Vec::new() };
        let (node, out) = (net.name("n"), net.name("o"));
        sh(&format!(
            "ip netns add {node}; ip netns add {out}
            ip -n {node} link set lo up; ip -n {out} link set lo up
            ip -n {node} link add br0 type bridge; ip -n {node} addr add 10.88.0.1/24 dev br0; ip -n {node} link set br0 up
            ip -n {node} addr add fd88::1/64 dev br0 nodad
            ip -n {node} link add up0 type veth peer name eth0 netns {out}
            ip -n {node} addr add 192.168.77.1/24 dev up0; ip -n {node} link set up0 up
            ip -n {out} addr add 192.168.77.2/24 dev eth0; ip -n {out} link set eth0 up
            ip -n {node} route add default via 192.168.77.2; ip -n {out} route add default via 192.168.77.1
            ip -n {node} -6 route add fd96::/64 dev br0
            for s in ipv4/ip_forward ipv4/conf/all/route_localnet ipv6/conf/all/forwarding; do ip netns exec {node} sh -c \"echo 1 > /proc/sys/net/$s\"; done"
        ));
        for (i, ip) in POD_IPS.iter().enumerate() {
            let pod = net.name(&format!("p{i}"));
            sh(&format!(
                "ip netns add {pod}; ip -n {pod} link set lo up
                ip -n {node} link add v{i} type veth peer name eth0 netns {pod}
                ip -n {node} link set v{i} master br0; ip -n {node} link set v{i} type bridge_slave hairpin on; ip -n {node} link set v{i} up
                ip -n {pod} addr add {ip}/24 dev eth0; ip -n {pod} addr add fd88::1{i}/64 dev eth0 nodad; ip -n {pod} link set eth0 up
                ip -n {pod} route add default via 10.88.0.1; ip -n {pod} -6 route add default via fd88::1"
            ));
            let mut server = net.own_program(&format!("p{i}"), "serve", &[&format!("pod{i}")]);
            let mut child = server.stdout(Stdio::piped()).spawn().expect("ip netns exec runs");
            let mut ready = [0; 6];
            child.stdout.as_mut().expect("piped").read_exact(&mut ready).expect("the server starts");
            net.servers.push(child);
        }
        net
    }

    /// How often each answer came.
    fn ask(&self, from: &str, protocol: &str, address: &str, count: usize) -> BTreeMap<String, usize> {
        let output = self.own_program(from, "ask", &[protocol, address, &count.to_string()]).output().expect("runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut out = BTreeMap::new();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            *out.entry(line.to_owned()).or_default() += 1;
        }
        out
    }

    /// Which pods answered, without their counts and the addresses they saw.
    fn who(&self, from: &str, protocol: &str, address: &str) -> String {
        let answers = self.ask(from, protocol, address, MANY);
        let mut names: Vec<_> = answers.keys().filter_map(|a| a.split(' ').next()).collect();
        names.dedup();
        names.join(" ")
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
        for of in ["n", "o", "p0", "p1", "p2"] {
            let _ = Command::new("ip").args(["netns", "del", &self.name(of)]).stderr(Stdio::null()).status();
        }
    }
}

fn service(name: &str, ip: &str, spec: &str) -> String {
    format!(r#"{{"metadata":{{"namespace":"t","name":"{name}"}},"spec":{{"clusterIP":"{ip}",{spec}}}}}"#)
}

/// A slice with these pods; pod 0 is on this node, the others count as elsewhere.
fn slice(pods: &[usize], protocol: &str) -> String {
    let endpoints: Vec<_> = pods
        .iter()
        .map(|i| {
            format!(r#"{{"addresses":["{}"],"nodeName":"{}"}}"#, POD_IPS[*i], if *i == 0 { "node" } else { "far" })
        })
        .collect();
    format!(
        r#"{{"metadata":{{}},"addressType":"IPv4","ports":[{{"port":8080,"protocol":"{protocol}"}}],"endpoints":[{}]}}"#,
        endpoints.join(",")
    )
}

struct Case {
    net: Net,
    engine: Engine,
    runtime: tokio::runtime::Runtime,
}

impl Case {
    fn set(&mut self, name: &str, service: &str, slices: &[String]) {
        let slices: Vec<_> = slices.iter().map(|s| Arc::new(serde_json::from_str(s).expect("a slice"))).collect();
        let fragment = plan(self.engine.context(), &serde_json::from_str(service).expect("a Service"), &slices);
        let change = vec![(format!("t/{name}"), Some(fragment))];
        self.runtime.block_on(self.engine.sync(change)).expect("nft takes the rules");
    }

    fn remove(&mut self, name: &str) {
        self.runtime.block_on(self.engine.sync(vec![(format!("t/{name}"), None)])).expect("nft takes the rules");
    }

    fn ruleset(&self) -> String {
        let output = Command::new("ip").args(["netns", "exec", &self.net.name("n"), "nft", "list", "ruleset"]).output();
        String::from_utf8_lossy(&output.expect("nft runs").stdout).into_owned()
    }
}

const ALL: &str = "pod0 pod1 pod2";

fn cluster_ip_and_node_port(c: &mut Case) {
    let spec = r#""type":"NodePort","ports":[{"port":80,"nodePort":30080}]"#;
    c.set("web", &service("web", "10.96.0.9", spec), &[slice(&[0, 1, 2], "TCP")]);
    for (from, address) in [
        ("n", "10.96.0.9:80"),
        ("p0", "10.96.0.9:80"), // its own pod among them: a hairpin
        ("n", "192.168.77.1:30080"),
        ("n", "127.0.0.1:30080"),
        ("o", "192.168.77.1:30080"),
        ("p1", "10.88.0.1:30080"),
    ] {
        assert_eq!(c.net.who(from, "tcp", address), ALL, "from {from} to {address}");
    }
    let seen = c.net.ask("p1", "tcp", "10.96.0.9:80", MANY);
    assert!(seen.keys().any(|a| a == "pod0 10.88.0.12"), "pods keep their address among each other: {seen:?}");
    assert!(seen.keys().all(|a| a != "pod1 10.88.0.12"), "a hairpin is masqueraded: {seen:?}");
    let seen = c.net.ask("o", "tcp", "192.168.77.1:30080", 30);
    assert!(seen.keys().all(|a| a.ends_with(" 10.88.0.1")), "node port traffic is masqueraded: {seen:?}");
    let seen = c.net.ask("o", "tcp", "192.168.77.1:30081", 2);
    assert_eq!(seen.keys().next().map(String::as_str), Some("refused"), "other ports are untouched");
    let seen = c.net.ask("p0", "tcp", "10.96.0.9:81", 2);
    assert_eq!(seen.keys().next().map(String::as_str), Some("refused"), "other ports of a cluster IP are refused");
}

fn endpoints_come_and_go(c: &mut Case) {
    let web = service("web", "10.96.0.9", r#""ports":[{"port":80}]"#);
    c.set("web", &web, &[slice(&[1, 2], "TCP")]);
    assert_eq!(c.net.who("p0", "tcp", "10.96.0.9:80"), "pod1 pod2");
    assert_eq!(c.net.who("o", "tcp", "192.168.77.1:30080"), "refused", "the node port is gone");
    c.set("web", &web, &[]);
    for from in ["n", "p0"] {
        assert_eq!(c.net.who(from, "tcp", "10.96.0.9:80"), "refused", "without endpoints, from {from}");
    }
    c.set("web", &web, &[slice(&[0], "TCP")]);
    assert_eq!(c.net.who("p1", "tcp", "10.96.0.9:80"), "pod0");
}

fn clients_stick(c: &mut Case) {
    let spec = r#""sessionAffinity":"ClientIP","ports":[{"port":80}]"#;
    c.set("sticky", &service("sticky", "10.96.0.11", spec), &[slice(&[0, 1, 2], "TCP")]);
    for from in ["p0", "p1", "p2"] {
        assert_eq!(c.net.ask(from, "tcp", "10.96.0.11:80", 20).len(), 1, "{from} changed its endpoint");
    }
    c.remove("sticky");
}

fn local_traffic_policy(c: &mut Case) {
    let spec = r#""type":"NodePort","externalTrafficPolicy":"Local","internalTrafficPolicy":"Local","ports":[{"port":80,"nodePort":30082}]"#;
    let near = service("near", "10.96.0.12", spec);
    c.set("near", &near, &[slice(&[0, 1, 2], "TCP")]);
    assert_eq!(c.net.who("p1", "tcp", "10.96.0.12:80"), "pod0");
    let seen = c.net.ask("o", "tcp", "192.168.77.1:30082", 10);
    assert_eq!(seen, BTreeMap::from([("pod0 192.168.77.2".to_owned(), 10)]), "the client's address is kept");
    assert_eq!(c.net.who("n", "tcp", "127.0.0.1:30082"), ALL, "from the node itself every endpoint will do");
    c.set("near", &near, &[slice(&[1, 2], "TCP")]);
    assert_eq!(c.net.ask("p1", "tcp", "10.96.0.12:80", SILENT), BTreeMap::from([("silent".to_owned(), 1)]));
    assert_eq!(c.net.ask("o", "tcp", "192.168.77.1:30082", SILENT), BTreeMap::from([("silent".to_owned(), 1)]));
    c.remove("near");
}

fn udp_and_external_ip(c: &mut Case) {
    let spec = r#""externalIPs":["203.0.113.5"],"ports":[{"port":53,"protocol":"UDP"}]"#;
    let dns = service("dns", "10.96.0.10", spec);
    c.set("dns", &dns, &[slice(&[0, 1, 2], "UDP")]);
    for (from, address) in [("p2", "10.96.0.10:53"), ("n", "10.96.0.10:53"), ("o", "203.0.113.5:53")] {
        assert_eq!(c.net.who(from, "udp", address), ALL, "from {from} to {address}");
    }
    for only in [1, 0] {
        c.set("dns", &dns, &[slice(&[only], "UDP")]);
        let (pod, flow) = (format!("pod{only}"), c.net.who("p2", "flow", "10.96.0.10:53"));
        assert_eq!(flow, pod, "a flow that goes on must not stay with the endpoint that left");
    }
    c.set("dns", &dns, &[]);
    let seen = c.net.ask("p2", "flow", "10.96.0.10:53", SILENT);
    assert!(seen.keys().all(|answer| !answer.starts_with("pod")), "{seen:?}");
    c.set("dns", &dns, &[slice(&[2], "UDP")]);
    assert_eq!(c.net.who("p1", "flow", "10.96.0.10:53"), "pod2");
    c.remove("dns");
}

fn ipv6(c: &mut Case) {
    let spec = r#""clusterIPs":["fd96::9"],"ports":[{"port":80}]"#;
    let endpoints: Vec<_> = (0..3).map(|i| format!(r#"{{"addresses":["fd88::1{i}"]}}"#)).collect();
    let slice = format!(
        r#"{{"metadata":{{}},"addressType":"IPv6","ports":[{{"port":8080}}],"endpoints":[{}]}}"#,
        endpoints.join(",")
    );
    c.set("six", &service("six", "fd96::9", spec), &[slice]);
    for from in ["n", "p0"] {
        assert_eq!(c.net.who(from, "tcp", "[fd96::9]:80"), ALL, "from {from}");
    }
    c.remove("six");
}

fn pods_reach_the_world_masqueraded(c: &mut Case) {
    let mut server = c.net.own_program("o", "serve", &["world"]).stdout(Stdio::piped()).spawn().expect("runs");
    let mut ready = [0; 6];
    let started = server.stdout.as_mut().expect("piped").read_exact(&mut ready);
    let seen = c.net.ask("p0", "tcp", "192.168.77.2:8080", 3);
    let _ = server.kill();
    let _ = server.wait();
    started.expect("the server starts");
    assert_eq!(seen, BTreeMap::from([("world 192.168.77.1".to_owned(), 3)]));
}

fn a_lost_table_is_rebuilt_and_cleanup_removes_it(c: &mut Case) {
    let before = c.ruleset();
    assert!(!before.contains("sticky") && !before.contains("aff-"), "removed Services leave nothing: {before}");
    sh(&format!("ip netns exec {} nft delete table inet kptest", c.net.name("n")));
    c.runtime.block_on(c.engine.check()).expect("nft answers");
    assert!(c.engine.is_lost());
    c.runtime.block_on(c.engine.sync(Vec::new())).expect("nft takes the rules");
    assert_eq!(c.net.who("p1", "tcp", "10.96.0.9:80"), "pod0");
    sh(&format!("ip netns exec {} nft add table inet other", c.net.name("n")));
    let path = c.net.path("n");
    c.runtime.block_on(proxy::cleanup_in("kptest", Some(&path))).expect("cleanup");
    c.runtime.block_on(proxy::cleanup_in("kptest", Some(&path))).expect("cleanup twice");
    assert_eq!(c.ruleset().trim(), "table inet other {\n}", "only our table goes");
}

/// Answers a list of Services and EndpointSlices; watches stay silent.
async fn serve_api(request: http::Request<kube::client::Body>) -> Result<Answer, Infallible> {
    if request.uri().query().is_some_and(|q| q.contains("watch=")) {
        let silence = futures::stream::pending::<Result<http_body::Frame<Bytes>, Infallible>>();
        return Ok(http::Response::new(BodyExt::boxed_unsync(StreamBody::new(silence))));
    }
    let meta = r#""metadata":{"namespace":"t","name":"app","uid":"u","resourceVersion":"1","labels":{"kubernetes.io/service-name":"app"}}"#;
    let item = match request.uri().path().rsplit('/').next() {
        Some("services") => service("app", "10.96.0.20", r#""ports":[{"port":80}]"#),
        _ => slice(&[0, 1, 2], "TCP"),
    };
    let (_, rest) = item.split_once("},").expect("metadata comes first");
    let list = format!(
        r#"{{"kind":"List","apiVersion":"v1","metadata":{{"resourceVersion":"1"}},"items":[{{{meta},{rest}]}}"#
    );
    let body = Full::new(Bytes::from(list)).boxed_unsync();
    Ok(http::Response::builder().header("content-type", "application/json").body(body).expect("a response"))
}

fn from_the_api_to_the_rules(c: &mut Case) {
    let config = Config { table: "kprun".to_owned(), network_namespace: Some(c.net.path("n")), ..Config::default() };
    c.runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let kube = client::local::client(tower::service_fn(serve_api), "default");
        let informers = client::Informers::new(kube.clone(), shutdown.clone());
        let run = tokio::spawn(proxy::run(config, kube, informers, shutdown.clone()));
        let begun = Instant::now();
        while !c.ruleset().contains("10.96.0.20") && begun.elapsed() < WAIT_MAX {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        shutdown.cancel();
        run.await.expect("no panic").expect("no error");
    });
    assert_eq!(c.net.who("n", "tcp", "10.96.0.20:80"), ALL, "the rules stay after the proxy has ended");
    c.runtime.block_on(proxy::cleanup_in("kprun", Some(&c.net.path("n")))).expect("cleanup");
}

type Answer = http::Response<UnsyncBoxBody<Bytes, Infallible>>;
type Test = (&'static str, fn(&mut Case));

const TESTS: [Test; 9] = [
    ("cluster_ip_and_node_port", cluster_ip_and_node_port),
    ("endpoints_come_and_go", endpoints_come_and_go),
    ("clients_stick", clients_stick),
    ("local_traffic_policy", local_traffic_policy),
    ("udp_and_external_ip", udp_and_external_ip),
    ("ipv6", ipv6),
    ("pods_reach_the_world_masqueraded", pods_reach_the_world_masqueraded),
    ("a_lost_table_is_rebuilt_and_cleanup_removes_it", a_lost_table_is_rebuilt_and_cleanup_removes_it),
    ("from_the_api_to_the_rules", from_the_api_to_the_rules),
];

fn run() {
    if std::env::args().any(|a| a == "--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    let root =
        std::fs::read_to_string("/proc/self/status").is_ok_and(|s| s.lines().any(|l| l.starts_with("Uid:\t0\t")));
    assert!(root, "this test makes network namespaces and nftables rules: run it as root");
    for tool in ["ip", "nft", "nsenter", "conntrack"] {
        let found = Command::new(tool).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(found.is_ok(), "this test needs `{tool}`: apt-get install iproute2 nftables util-linux conntrack");
    }
    let net = Net::build();
    let config = Config {
        table: "kptest".to_owned(),
        node_name: "node".to_owned(),
        pod_cidrs: vec!["10.88.0.0/24".parse().expect("a range"), "fd88::/64".parse().expect("a range")],
        network_namespace: Some(net.path("n")),
        ..Config::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let engine = runtime.block_on(proxy::engine(config)).expect("the engine starts");
    let mut case = Case { net, engine, runtime };
    case.runtime.block_on(case.engine.sync(Vec::new())).expect("nft takes the fixed part");
    println!("\nrunning {} tests", TESTS.len());
    for (name, test) in TESTS {
        // A failed step panics; `case` is dropped on the way out, which removes the namespaces.
        test(&mut case);
        println!("test {name} ... ok");
    }
    println!("\ntest result: ok. {} passed; 0 failed\n", TESTS.len());
}
