//! Each component alone, as a process of its own that knows nothing but a kubeconfig: together they are a cluster.
//!
//! Black box: the real binary, the real kubectl, a containerd of the test's own. Needs root.

#[path = "support/apiserver.rs"]
mod apiserver;
#[path = "support/cluster.rs"]
mod cluster;
#[path = "../../kubelet/tests/lab/containerd.rs"]
#[allow(dead_code)] // made for the kubelet's own tests
mod containerd;

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use apiserver::{ApiServer, start, stop};
use cluster::{LATER, SOON, Turn, binary, both, eventually, until};
use containerd::Containerd;

/// Services of this test have addresses that no other cluster gives out, since its rules share the host with theirs.
const SERVICES: &str = "10.126.0.0/24";
const API_IP: &str = "10.126.0.1";

struct Component(Child, &'static str);

impl Component {
    /// Ends as it is asked to, at once.
    fn end(mut self) {
        assert!(self.0.try_wait().expect("asked").is_none(), "{} ended by itself", self.1);
        let began = Instant::now();
        stop(&mut self.0);
        assert!(began.elapsed() < LATER, "{} took its time to end", self.1);
        assert!(self.0.wait().expect("ended").success(), "{} ended badly", self.1);
    }
}

impl Drop for Component {
    fn drop(&mut self) {
        stop(&mut self.0);
    }
}

struct Walk {
    server: ApiServer,
    pki: PathBuf,
}

impl Walk {
    fn kubectl(&self, arguments: &[&str]) -> String {
        self.server.kubectl(arguments)
    }

    fn get(&self, what: &[&str], jsonpath: &str) -> String {
        let output = format!("jsonpath={jsonpath}");
        self.kubectl(&[&["get"], what, &["-o", &output]].concat())
    }

    fn apply(&self, manifest: &str) {
        let output = self.server.try_kubectl(&["apply", "-f", "-"], manifest);
        assert!(output.status.success(), "{}", both(&output));
    }

    fn command(&self, name: &'static str, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.arg(name).args(arguments).arg("--kubeconfig").arg(self.server.kubeconfig()).stdin(Stdio::null());
        command
    }

    fn run(&self, name: &'static str, arguments: &[&str]) -> Component {
        let log = std::fs::File::create(self.server.dir.path().join(format!("{name}.log"))).expect("a log");
        Component(self.command(name, arguments).stderr(log).spawn().expect("knarr runs"), name)
    }

    fn controllers(&self) -> Component {
        let ca = self.pki.join("ca.crt").display().to_string();
        self.run("controller-manager", &["--root-ca-file", &ca, "--cluster-cidr", "10.125.0.0/16"])
    }
}

#[test]
fn components_alone_make_a_cluster() {
    assert!(cluster::is_root(), "this test needs root: it runs containers and writes nftables rules");
    let _turn = Turn::take();
    let server = ApiServer::start_with(&["--service-cidr", SERVICES]);
    let walk = Walk { pki: server.dir.path().join("data/pki"), server };

    println!("=== controllers");
    let controllers = walk.controllers();
    controllers_make_pods(&walk);
    println!("=== scheduler");
    let scheduler = walk.run("scheduler", &[]);
    scheduler_binds(&walk);
    println!("=== dns");
    dns_answers(&walk);
    println!("=== proxy");
    proxy_writes_its_table(&walk);
    println!("=== kubelet");
    kubelet_runs_pods(&walk);
    println!("=== pods of a node that is gone");
    // No kubelet says that they ended; after a while it is believed without.
    until("the pods go with their node", LATER, || walk.kubectl(&["get", "pods", "-o", "name"]).is_empty());
    println!("=== a second scheduler waits for the first");
    let second = walk.run("scheduler", &[]);
    let holder = || walk.get(&["lease", "kube-scheduler", "-n", "kube-system"], "{.spec.holderIdentity}");
    let first = holder();
    assert!(!first.is_empty());
    scheduler.end();
    eventually("the second one takes over", LATER, || Some(holder()).filter(|now| *now != first && !now.is_empty()));
    second.end();
    controllers.end();
}

fn controllers_make_pods(walk: &Walk) {
    until("namespaces have accounts", SOON, || {
        walk.server.try_kubectl(&["get", "serviceaccount", "default"], "").status.success()
    });
    walk.apply(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 3\n  selector: {matchLabels: {app: web}}\n  template:\n    \
         metadata: {labels: {app: web}}\n    spec: {containers: [{name: main, image: 'localhost/busybox:1'}]}\n",
    );
    until("three pods", SOON, || walk.kubectl(&["get", "pods", "-l", "app=web", "-o", "name"]).lines().count() == 3);
    let owner = walk.get(&["pods", "-l", "app=web"], "{.items[0].metadata.ownerReferences[0].kind}");
    assert_eq!(owner, "ReplicaSet");
    let path = "{.items[0].metadata.ownerReferences[0].kind}/{.items[0].metadata.ownerReferences[0].name}";
    assert_eq!(walk.get(&["replicasets", "-l", "app=web"], path), "Deployment/web");
    assert_eq!(walk.get(&["pods", "-l", "app=web"], "{.items[*].status.phase}"), "Pending Pending Pending");
    let ca = walk.get(&["configmap", "kube-root-ca.crt"], r"{.data.ca\.crt}");
    assert_eq!(ca.trim(), std::fs::read_to_string(walk.pki.join("ca.crt")).expect("the authority").trim());
}

/// A node of paper, with room for two pods.
fn scheduler_binds(walk: &Walk) {
    let events = |reason: &str| {
        let selector = format!("reason={reason}");
        walk.get(&["events", "--field-selector", &selector], r#"{range .items[*]}{.message}{"\n"}{end}"#)
    };
    until("the scheduler says why not", SOON, || {
        events("FailedScheduling").contains("no nodes available to schedule pods")
    });
    walk.apply("apiVersion: v1\nkind: Node\nmetadata: {name: paper, labels: {kubernetes.io/hostname: paper}}\n");
    let status = r#"{"status":{"capacity":{"cpu":"2","memory":"1Gi","pods":"2"},"allocatable":{"cpu":"2","memory":"1Gi","pods":"2"},
        "conditions":[{"type":"Ready","status":"True","reason":"KubeletReady","lastHeartbeatTime":"NOW","lastTransitionTime":"NOW"}]}}"#;
    let now = both(&Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]).output().expect("date runs"));
    let status = status.replace("NOW", now.trim());
    walk.kubectl(&["patch", "node", "paper", "--subresource=status", "--type=merge", "-p", &status]);
    let bound = || walk.get(&["pods", "-l", "app=web"], "{.items[*].spec.nodeName}");
    until("two pods are bound", SOON, || bound() == "paper paper");
    until("the third one does not fit", SOON, || {
        events("FailedScheduling").lines().any(|m| m.starts_with("0/1 nodes are available: 1 Too many pods."))
    });
    let bound_here = |m: &&str| m.starts_with("Successfully assigned default/web-") && m.ends_with(" to paper");
    until("both are told", SOON, || events("Scheduled").lines().filter(bound_here).count() == 2);
    walk.kubectl(&["delete", "deployment", "web"]);
    walk.kubectl(&["delete", "node", "paper"]);
}

fn dns_answers(walk: &Walk) {
    let (child, rest) = start(&mut walk.command("dns", &["--listen", "127.0.0.1:0"]), "The DNS server answers at ");
    let dns = Component(child, "dns");
    let address = rest.trim();
    let api_ip: Vec<u8> = API_IP.split('.').map(|part| part.parse().expect("a byte")).collect();
    let asks = |name: &str| ask_udp(address, &question(name));
    let answer = eventually("the name of the API server", SOON, || {
        asks("kubernetes.default.svc.cluster.local").filter(|answer| answer[3] & 0x0f == 0 && answer.ends_with(&api_ip))
    });
    assert_eq!(answer[7], 1, "one record");
    let mut tcp = TcpStream::connect(address).expect("TCP too");
    let query = question("kubernetes.default.svc.cluster.local");
    tcp.write_all(&[&(query.len() as u16).to_be_bytes()[..], &query].concat()).expect("written");
    let mut length = [0; 2];
    tcp.read_exact(&mut length).expect("a length");
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    tcp.read_exact(&mut answer).expect("an answer");
    assert!(answer.ends_with(&api_ip));
    let none = asks("none.default.svc.cluster.local").expect("an answer");
    assert_eq!(none[3] & 0x0f, 3, "NXDOMAIN");
    dns.end();
}

/// An A query. Source: RFC 1035, section 4.
fn question(name: &str) -> Vec<u8> {
    let mut query = vec![0x6b, 0x6e, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

fn ask_udp(server: &str, query: &[u8]) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    socket.send_to(query, server).ok()?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).ok()?;
    Some(answer[..length].to_vec())
}

/// Gone at the end, whatever the test finds.
struct Table(String);

impl Drop for Table {
    fn drop(&mut self) {
        let _ = Command::new("nft").args(["delete", "table", "inet", &self.0]).stderr(Stdio::null()).status();
    }
}

fn proxy_writes_its_table(walk: &Walk) {
    let Table(table) = &Table(format!("knarr-test-{}", std::process::id()));
    let rules = || both(&Command::new("nft").args(["list", "table", "inet", table]).output().expect("nft runs"));
    let proxy = walk.run("proxy", &["--table", table]);
    until("rules for the API server", SOON, || rules().contains(API_IP));
    walk.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: other}\nspec: {clusterIP: 10.126.0.99, ports: [{port: 80}]}\n",
    );
    until("rules for a new service", SOON, || rules().contains("10.126.0.99"));
    // The API server answers at its service's address.
    let version = format!("https://{API_IP}/version");
    let ca = walk.server.dir.path().join("ca.crt");
    until("the way through the rules", SOON, || {
        let mut curl = Command::new("curl");
        curl.args(["-fsS", "--max-time", "20", &version, "--cacert"]).arg(&ca);
        both(&curl.output().expect("curl runs")).contains("gitVersion")
    });
    walk.kubectl(&["delete", "service", "other"]);
    until("no rules for a deleted service", SOON, || !rules().contains("10.126.0.99"));
    proxy.end();
    assert!(rules().contains(API_IP), "rules stay while the proxy is away");
    let cleaned = walk.command("proxy", &["--table", table, "--cleanup"]).output().expect("knarr runs");
    assert!(cleaned.status.success(), "{}", both(&cleaned));
    assert!(rules().contains("No such file"), "{}", rules());
    assert!(
        walk.command("proxy", &["--table", table, "--cleanup"]).status().expect("knarr runs").success(),
        "cleaned twice"
    );
}

fn kubelet_runs_pods(walk: &Walk) {
    let containerd = Containerd::start();
    let cgroup = format!("/knarr-test-{}", std::process::id());
    let path = |name: &str| walk.pki.join(name).display().to_string();
    let socket = format!("unix://{}", containerd.socket());
    let root = containerd.path("kubelet").display().to_string();
    let (cert, key, ca) = (path("apiserver.crt"), path("apiserver.key"), path("ca.crt"));
    let arguments = [
        ["--container-runtime-endpoint", &socket],
        ["--root-dir", &root],
        ["--hostname-override", "alone"],
        ["--cgroup-root", &cgroup],
        ["--listen", "0.0.0.0:0"],
        ["--tls-cert-file", &cert],
        ["--tls-private-key-file", &key],
        ["--client-ca-file", &ca],
    ]
    .concat();
    let kubelet = walk.run("kubelet", &arguments);
    until("the node registers", SOON, || walk.server.try_kubectl(&["get", "node", "alone"], "").status.success());
    walk.kubectl(&["wait", "--for=condition=Ready", "node/alone", "--timeout=240s"]);
    assert!(walk.get(&["node", "alone"], "{.spec.podCIDR}").starts_with("10.125."));
    walk.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: lives}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  \
         - {name: main, image: 'localhost/busybox:1', imagePullPolicy: Never, command: [sh, -c, 'echo hello; exec sleep 1000']}\n",
    );
    walk.kubectl(&["wait", "--for=condition=Ready", "pod/lives", "--timeout=240s"]);
    assert_eq!(walk.get(&["pod", "lives"], "{.spec.nodeName}"), "alone");
    until("it says hello", SOON, || walk.kubectl(&["logs", "lives"]) == "hello");
    assert_eq!(walk.kubectl(&["exec", "lives", "--", "echo", "inside"]), "inside");
    let id = walk.get(&["pod", "lives"], "{.status.containerStatuses[0].containerID}");
    println!("    the kubelet ends and comes back: the pod goes on");
    kubelet.end();
    let kubelet = walk.run("kubelet", &arguments);
    walk.kubectl(&["delete", "event", "--all"]);
    until("the new one writes status", LATER, || {
        walk.server.try_kubectl(&["exec", "lives", "--", "echo", "again"], "").status.success()
    });
    let same = "{.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}";
    assert_eq!(walk.get(&["pod", "lives"], same), format!("{id} 0"));
    walk.kubectl(&["delete", "pod", "lives"]);
    kubelet.end();
    walk.kubectl(&["delete", "node", "alone"]);
    remove_cgroup(&cgroup);
}

/// The kubelet leaves the cgroup that it was told to use.
fn remove_cgroup(name: &str) {
    fn remove(dir: &Path) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten().filter(|e| e.path().is_dir()) {
            remove(&entry.path());
        }
        let _ = std::fs::remove_dir(dir);
    }
    remove(&PathBuf::from(format!("/sys/fs/cgroup{name}")));
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten() {
        remove(&PathBuf::from(format!("{}{name}", hierarchy.path().display())));
    }
}
