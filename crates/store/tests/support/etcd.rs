//! A real etcd for tests: one member or three, on loopback, in a directory of its own, with TLS and client certificates.
//!
//! Runs the machine's `etcd` (Debian's package etcd-server). Invariant: dropping it ends every member.

#![allow(dead_code)] // each test uses its part of this
#![allow(clippy::disallowed_methods)] // it waits for a process, on a thread that has nothing else to do

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pki::{Authority, CertificateRequest, Issued};

#[path = "ports.rs"]
mod ports;

pub struct EtcdServers {
    pub dir: tempfile::TempDir,
    pub ca_pem: String,
    /// What clients show.
    pub client: Issued,
    members: Vec<Member>,
}

struct Member {
    port: u16,
    peer_port: u16,
    child: Option<Child>,
}

impl EtcdServers {
    pub fn start(count: usize) -> EtcdServers {
        let dir = tempfile::tempdir().expect("a directory");
        let authority = Authority::generate("etcd-ca").expect("an authority");
        let request = CertificateRequest::server("etcd", &["localhost".into()], &[IpAddr::V4(Ipv4Addr::LOCALHOST)]);
        let server = authority.issue(&request).expect("issued");
        let client = authority.issue(&CertificateRequest::client("knarr", None)).expect("issued");
        let ca_pem = authority.certificate_pem().to_string();
        for (name, text) in [
            ("ca.crt", &ca_pem),
            ("server.crt", &server.certificate_pem),
            ("server.key", &server.key_pem),
            ("client.crt", &client.certificate_pem),
            ("client.key", &client.key_pem),
        ] {
            std::fs::write(dir.path().join(name), text).expect("written");
        }
        let members = (0..count).map(|_| Member { port: ports::own(), peer_port: ports::own(), child: None }).collect();
        let mut servers = EtcdServers { dir, ca_pem, client, members };
        (0..count).for_each(|i| servers.spawn(i));
        (0..count).for_each(|i| servers.wait(i));
        servers
    }

    pub fn urls(&self) -> Vec<String> {
        self.members.iter().map(|m| format!("https://127.0.0.1:{}", m.port)).collect()
    }

    /// The flags of knarr that lead here.
    pub fn flags(&self) -> Vec<String> {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let flags = [
            ["--etcd-servers", &self.urls().join(",")],
            ["--etcd-cafile", &path("ca.crt")],
            ["--etcd-certfile", &path("client.crt")],
            ["--etcd-keyfile", &path("client.key")],
        ];
        flags.concat().into_iter().map(String::from).collect()
    }

    /// As `kill -9` does.
    pub fn kill(&mut self, i: usize) {
        let mut child = self.members[i].child.take().expect("it runs");
        child.kill().expect("killed");
        child.wait().expect("ended");
    }

    pub fn restart(&mut self, i: usize) {
        self.spawn(i);
        self.wait(i);
    }

    fn log(&self, i: usize) -> PathBuf {
        self.dir.path().join(format!("{i}.log"))
    }

    fn spawn(&mut self, i: usize) {
        let peer = |(i, m): (usize, &Member)| format!("m{i}=http://127.0.0.1:{}", m.peer_port);
        let all: Vec<String> = self.members.iter().enumerate().map(peer).collect();
        let member = &self.members[i];
        let own = format!("https://127.0.0.1:{}", member.port);
        let own_peer = format!("http://127.0.0.1:{}", member.peer_port);
        let log = std::fs::File::create(self.log(i)).expect("a log");
        let child = Command::new("etcd")
            .current_dir(self.dir.path())
            .args(["--name", &format!("m{i}"), "--data-dir", &format!("data{i}"), "--logger", "zap"])
            .args(["--listen-client-urls", &own, "--advertise-client-urls", &own])
            .args(["--listen-peer-urls", &own_peer, "--initial-advertise-peer-urls", &own_peer])
            .args(["--initial-cluster", &all.join(","), "--enable-grpc-gateway=false"])
            .args(["--cert-file", "server.crt", "--key-file", "server.key"])
            .args(["--client-cert-auth", "--trusted-ca-file", "ca.crt"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd runs (install the package etcd-server)");
        self.members[i].child = Some(child);
    }

    fn wait(&self, i: usize) {
        let began = Instant::now();
        loop {
            let log = std::fs::read_to_string(self.log(i)).expect("a log");
            if log.contains("serving client traffic securely") {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(180), "etcd does not come up:\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for EtcdServers {
    fn drop(&mut self) {
        for member in &mut self.members {
            if let Some(mut child) = member.child.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}
