//! API servers on a real etcd: two at once, each seeing what the other writes, and what they do while etcd is away.
//!
//! Black box: the real binary, Debian's etcd with TLS, curl and kubectl. Needs no root.

#[path = "support/apiserver.rs"]
mod apiserver;
#[path = "support/cluster.rs"]
mod cluster;
#[path = "../../store/tests/support/etcd.rs"]
mod etcd;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use apiserver::ApiServer;
use cluster::{SOON, until};
use etcd::EtcdServers;
use store::Store;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SERVICES: &str = "/api/v1/namespaces/default/services";

fn server(etcd: &EtcdServers, keys: Option<&ApiServer>) -> ApiServer {
    let dir = tempfile::tempdir().expect("a directory");
    if let Some(first) = keys {
        let data = dir.path().join("data");
        std::fs::create_dir(&data).expect("a directory");
        let copied = Command::new("cp").arg("-a").arg(first.dir.path().join("data/pki")).arg(&data).status();
        assert!(copied.expect("cp runs").success());
    }
    let flags = etcd.flags();
    let mut all = vec!["--bind-address", "127.0.0.1", "--advertise-address", "192.0.2.1"];
    all.extend(flags.iter().map(String::as_str));
    ApiServer::start_in(dir, &all)
}

fn map(name: &str, version: &str) -> String {
    format!(r#"{{"metadata":{{"name":"{name}","resourceVersion":"{version}"}},"data":{{"a":"b"}}}}"#)
}

/// The answer's code and body.
#[track_caller]
fn ask(server: &ApiServer, method: &str, path: &str, body: &str) -> (String, serde_json::Value) {
    let (headers, body) = server.curl(method, path, &["Content-Type: application/json"], false, body);
    let code = headers.split_whitespace().nth(1).unwrap_or_default().to_string();
    (code, serde_json::from_str(&body).unwrap_or_default())
}

/// A watch that goes on until it is dropped.
struct Watch(Child, Arc<Mutex<Vec<String>>>);

impl Watch {
    fn start(server: &ApiServer, from: &str) -> Watch {
        let file = |name: &str| server.dir.path().join(name);
        let mut child = Command::new("curl")
            .args(["-sSN", "--cacert"])
            .arg(file("ca.crt"))
            .arg("--cert")
            .arg(file("client.crt"))
            .arg("--key")
            .arg(file("client.key"))
            .arg(format!("{}{MAPS}?watch=1&resourceVersion={from}", server.url))
            .stdout(Stdio::piped())
            .spawn()
            .expect("curl runs");
        let (output, seen) = (child.stdout.take().expect("a pipe"), Arc::new(Mutex::default()));
        let lines: Arc<Mutex<Vec<String>>> = seen.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let event: serde_json::Value = serde_json::from_str(&line).expect("JSON");
                let (kind, name) = (event["type"].as_str(), event["object"]["metadata"]["name"].as_str());
                lines.lock().expect("no panic").push(format!("{} {}", kind.unwrap_or("?"), name.unwrap_or("?")));
            }
        });
        Watch(child, seen)
    }

    fn seen(&self) -> Vec<String> {
        self.1.lock().expect("no panic").clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn in_etcd(etcd: &EtcdServers, key: &str) -> store::KeyValue {
    let tls = pki::tls::client(&etcd.ca_pem, Some(&etcd.client)).expect("a client");
    let options = store::EtcdOptions { servers: etcd.urls(), tls: Some(Arc::new(tls)), ..Default::default() };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let store = store::Etcd::new(options).expect("an etcd");
    runtime.block_on(store.get(key.to_string().into())).expect("read").expect("the key is there")
}

#[test]
fn two_api_servers_share_one_etcd() {
    let mut etcd = EtcdServers::start(1);
    let one = server(&etcd, None);
    let two = server(&etcd, Some(&one));

    println!("=== what one writes, the other reads at once");
    let (_, list) = ask(&two, "GET", MAPS, "");
    let from = list["metadata"]["resourceVersion"].as_str().expect("a version").to_string();
    let events = Watch::start(&two, &from);
    let mut version = String::new();
    for i in 0..10 {
        let (code, made) = ask(&one, "POST", MAPS, &map(&format!("m{i}"), ""));
        assert_eq!(code, "201", "{made}");
        let (code, read) = ask(&two, "GET", &format!("{MAPS}/m{i}"), "");
        assert_eq!((code.as_str(), &read["metadata"]), ("200", &made["metadata"]));
        version = made["metadata"]["resourceVersion"].as_str().expect("a version").to_string();
    }
    let (_, list) = ask(&two, "GET", MAPS, "");
    assert_eq!(list["items"].as_array().map(Vec::len), Some(10));
    assert_eq!(ask(&two, "PUT", &format!("{MAPS}/m9"), &map("m9", &version).replace("b\"", "c\"")).0, "200");
    assert_eq!(ask(&one, "DELETE", &format!("{MAPS}/m0"), "").0, "200");
    assert_eq!(ask(&two, "GET", &format!("{MAPS}/m0"), "").0, "404");
    let (code, refused) = ask(&one, "POST", MAPS, &map("m9", ""));
    assert_eq!((code.as_str(), refused["reason"].as_str()), ("409", Some("AlreadyExists")));

    println!("=== keys are where upstream has them; events have a lease");
    assert_eq!(in_etcd(&etcd, "/registry/configmaps/default/m1").lease, 0);
    let event = r#"{"metadata":{"name":"e"},"involvedObject":{"namespace":"default"},"type":"Normal"}"#;
    assert_eq!(ask(&one, "POST", "/api/v1/namespaces/default/events", event).0, "201");
    assert_ne!(in_etcd(&etcd, "/registry/events/default/e").lease, 0);

    println!("=== both give out addresses and ports, none twice, and both change one object");
    let mut given = std::collections::BTreeSet::new();
    for i in 0..20 {
        let body = format!(r#"{{"metadata":{{"name":"s{i}"}},"spec":{{"type":"NodePort","ports":[{{"port":80}}]}}}}"#);
        let (code, made) = ask(if i % 2 == 0 { &one } else { &two }, "POST", SERVICES, &body);
        assert_eq!(code, "201", "{made}");
        for has in [&made["spec"]["clusterIP"], &made["spec"]["ports"][0]["nodePort"]] {
            assert!(given.insert(has.to_string()), "{has} was given out twice");
        }
        let ip = made["spec"]["clusterIP"].as_str().expect("an address");
        assert_eq!(in_etcd(&etcd, &format!("/registry/ipaddresses/{ip}")).version, 1);
    }
    assert!(in_etcd(&etcd, "/registry/ranges/servicenodeports").version > 20);
    assert_ne!(in_etcd(&etcd, "/registry/masterleases/192.0.2.1").lease, 0);

    println!("=== etcd goes away and comes back");
    etcd.kill(0);
    // The first may be on its way while the connection breaks: then nobody knows, and it says so.
    let (code, said) = ask(&one, "POST", MAPS, &map("lost", ""));
    assert!(said["message"].as_str().is_some_and(|m| m.contains("etcd")), "{code} {said}");
    let (code, said) = ask(&one, "POST", MAPS, &map("away", ""));
    assert_eq!((code.as_str(), said["reason"].as_str()), ("503", Some("ServiceUnavailable")), "{said}");
    etcd.restart(0);
    until("writes go on", SOON, || ask(&one, "POST", MAPS, &map("back", "")).0 == "201");
    assert_eq!(ask(&two, "GET", &format!("{MAPS}/back"), "").0, "200");
    assert_eq!(ask(&two, "GET", &format!("{MAPS}/away"), "").0, "404");

    println!("=== one watch through the other saw everything once");
    let mut expected: Vec<String> = (0..10).map(|i| format!("ADDED m{i}")).collect();
    expected.extend(["MODIFIED m9", "DELETED m0", "ADDED back"].map(String::from));
    until("every event", SOON, || events.seen().len() >= expected.len());
    assert_eq!(events.seen(), expected);
    assert!(!one.dir.path().join("data/store").exists(), "nothing is stored here");
}
