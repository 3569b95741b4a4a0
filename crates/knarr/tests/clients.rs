//! The official clients, unmodified: client-go over protobuf against `knarr apiserver` alone; then programs in Go, Python
//! and JavaScript and with kube-rs, all at once in one cluster, through a restart of its API server.
//!
//! Black box: the programs of `tests/clients` with the clients as they are published, which `cargo xtask test` installs.

#[path = "support/apiserver.rs"]
mod apiserver;
#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/operator.rs"]
mod operator;
#[path = "support/registry.rs"]
mod registry;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use apiserver::ApiServer;
use cluster::{Cluster, SOON, both, until, workspace};
use registry::Registry;

/// The program of a language: its interpreter and what it is given before a kubeconfig and a namespace.
const PROGRAMS: [(&str, &str, &str); 3] = [
    ("go", "go", "run ."),
    ("python", "target/tools/python/bin/python", "main.py"),
    ("js", "tests/clients/js/node_modules/.bin/node", "main.js"),
];

fn program((language, interpreter, arguments): (&str, &str, &str), kubeconfig: &Path) -> Command {
    let path = workspace().join(interpreter);
    let mut command = if path.exists() { Command::new(path) } else { Command::new(interpreter) };
    command.args(arguments.split(' ')).arg(kubeconfig).env("GOWORK", "off");
    command.current_dir(workspace().join("tests/clients").join(language));
    command
}

#[test]
fn client_go_over_protobuf() {
    let server = ApiServer::start();
    let output = program(PROGRAMS[0], &server.kubeconfig()).output().expect("go is installed: it builds the client");
    assert!(output.status.success(), "{}", both(&output));
    assert!(both(&output).contains("client-go over protobuf: "), "{}", both(&output));
}

/// A program that runs; it is ended with this.
struct Running(&'static str, Child, BufReader<ChildStdout>);

impl Running {
    fn start(which: (&'static str, &str, &str), cluster: &Cluster) -> Running {
        let mut command = program(which, &cluster.kubeconfig());
        command.arg(which.0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program's language is installed: cargo xtask test");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        Running(which.0, child, stdout)
    }

    fn is_ready(&mut self) {
        let mut line = String::new();
        self.2.read_line(&mut line).expect("read");
        assert_eq!(line, "ready\n", "the program in {} failed", self.0);
    }

    fn ends_well(mut self) {
        self.1.stdin.take().expect("a pipe").write_all(b"restarted\n").expect("written");
        let mut said = String::new();
        self.2.read_to_string(&mut said).expect("read");
        assert!(self.1.wait().expect("ended").success() && said.ends_with(": all held\n"), "{}: {said}", self.0);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.1.kill();
        let _ = self.1.wait();
    }
}

/// A namespace with a pod for logs, exec and port-forward.
fn prepare(cluster: &Cluster, namespace: &str, image: &str) {
    cluster.kubectl(&["create", "namespace", namespace]);
    until("its account", SOON, || {
        cluster.try_kubectl(&["get", "serviceaccount", "default", "-n", namespace]).status.success()
    });
    let serve = "echo started; exec busybox httpd -f -p 8080 -h /etc";
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: server, namespace: {namespace}}}\nspec: {{terminationGracePeriodSeconds: 1, \
         containers: [{{name: main, image: '{image}', command: [sh, -c, '{serve}']}}]}}\n"
    ));
}

#[test]
fn programs_in_a_cluster() {
    let cluster = Cluster::up("clients");
    let registry = Registry::start();
    let namespaces = PROGRAMS.map(|(language, ..)| language).into_iter().chain(["kube-rs"]);
    for namespace in namespaces.clone() {
        prepare(&cluster, namespace, &format!("{}/guestbook-web:1", registry.address));
    }
    for namespace in namespaces {
        cluster.kubectl(&["wait", "--for=condition=Ready", "pod/server", "-n", namespace, "--timeout=240s"]);
    }
    let mut programs = PROGRAMS.map(|which| Running::start(which, &cluster));
    let (ready, is_ready) = std::sync::mpsc::channel();
    let (go, restarted) = tokio::sync::oneshot::channel();
    let kubeconfig = cluster.kubeconfig();
    let kube_rs = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let client = client::config::client(Some(&kubeconfig)).await.expect("a client");
            let ready = move || ready.send(()).expect("listened to");
            operator::run(client, "kube-rs", ready, async { restarted.await.expect("told") }).await;
        });
    });
    programs.iter_mut().for_each(Running::is_ready);
    is_ready.recv().expect("the program with kube-rs is ready");
    restart(&cluster);
    go.send(()).expect("listened to");
    programs.into_iter().for_each(Running::ends_well);
    kube_rs.join().expect("the program with kube-rs holds");
}

/// Knarr is killed, and started again where clients know it.
fn restart(cluster: &Cluster) {
    let url = cluster.kubectl(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"]);
    let port = url.rsplit(':').next().expect("a port");
    cluster.kill_knarr();
    let up = cluster.knarr(&["up", "--detach", "--api-port", port, "--kubelet-port", "0"]);
    assert!(up.status.success(), "{}", both(&up));
}
