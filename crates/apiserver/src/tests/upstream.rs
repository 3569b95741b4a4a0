//! Upstream's own kube-apiserver as the judge: the recorded requests are asked of it, and it shares an etcd with ours.
//!
//! Runs the program that `KNARR_UPSTREAM` names and the `etcd` of the PATH; `cargo xtask upstream` builds both and runs
//! these tests. Invariant: dropping an [`Upstream`] ends both.

#![allow(clippy::disallowed_methods)] // it waits for a process, on a thread that has nothing else to do

#[path = "../../../store/tests/support/etcd.rs"]
pub mod etcd;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::TryStreamExt;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use meta::{Value, json};
use store::{Etcd, EtcdOptions};

use super::requests::{self, Asked};
use super::{Answer, Lines, collect, version};
use crate::backend::Backend;
use crate::body::{Body, boxed};
use crate::config::DEFAULT_ISSUER;
use crate::{Config, Server, User};
use etcd::EtcdServers;

/// Somebody anonymous may ask what ours tells them, and is nobody elsewhere.
const AUTHENTICATION: &str = r#"{"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
    "anonymous": {"enabled": true, "conditions": [
        {"path": "/livez"}, {"path": "/readyz"}, {"path": "/healthz"}, {"path": "/version"}]}}"#;
const START_LIMIT: Duration = Duration::from_secs(120);
/// For what one object goes through.
const PASS_LIMIT: Duration = Duration::from_secs(30);

pub struct Upstream {
    pub etcd: EtcdServers,
    child: Child,
    at: SocketAddr,
    backend: Backend,
}

impl Upstream {
    /// Both processes, and the namespace `default` with its service account.
    pub async fn start(flags: &str) -> Upstream {
        let (runtime_config, gates) = flags.split_once(' ').unwrap_or((flags, ""));
        let program = std::env::var_os("KNARR_UPSTREAM").expect("KNARR_UPSTREAM names upstream's kube-apiserver");
        let etcd = EtcdServers::start(1);
        let dir = etcd.dir.path();
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let at = held.local_addr().expect("an address");
        drop(held);
        // Not beside the authority of etcd.
        let keys = pki::Pki::open(&dir.join("pki")).expect("keys");
        for (name, text) in [
            ("sa.key", keys.service_account_key_pem.clone()),
            ("sa.pub", pki::tokens::public_key_pem(&keys.service_account_key_pem).expect("a key")),
            ("tokens.csv", "admin,test,,system:masters".to_string()),
            ("authentication.json", AUTHENTICATION.to_string()),
        ] {
            std::fs::write(dir.join(name), text).expect("written");
        }
        let log = std::fs::File::create(dir.join("upstream.log")).expect("a log");
        let child = Command::new(program)
            .current_dir(dir)
            .args(etcd.flags())
            .args(["--bind-address", "127.0.0.1", "--secure-port", &at.port().to_string(), "--cert-dir", "certs"])
            .args(["--advertise-address", "127.0.0.1", "--endpoint-reconciler-type", "none"])
            .args(["--service-cluster-ip-range", "10.96.0.0/12", "--authorization-mode", "RBAC"])
            .args(["--service-account-key-file", "sa.pub", "--service-account-signing-key-file", "sa.key"])
            .args(["--service-account-issuer", DEFAULT_ISSUER, "--token-auth-file", "tokens.csv"])
            .args(["--authentication-config", "authentication.json", "--allow-privileged"])
            .args(["--runtime-config", runtime_config, "--feature-gates", gates])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("kube-apiserver runs");
        let tls = pki::tls::client_unverified(None).expect("a client");
        let upstream = Upstream { etcd, child, at, backend: Backend::tls(tls, None) };
        upstream.until(Method::GET, "/readyz", "").await;
        let account = r#"{"metadata":{"name":"default"}}"#;
        upstream.until(Method::POST, "/api/v1/namespaces/default/serviceaccounts", account).await;
        upstream
    }

    async fn until(&self, method: Method, path: &str, body: &'static str) {
        let began = Instant::now();
        loop {
            let mut request = Request::new(Full::new(Bytes::from(body)));
            (*request.method_mut(), *request.uri_mut()) = (method.clone(), path.parse().expect("a path"));
            let why = match self.ask(request, false).await {
                Ok(answer) if answer.status().is_success() => return drop(collect(answer).await),
                Ok(answer) => collect(answer).await.text,
                Err(why) => why,
            };
            let log = self.etcd.dir.path().join("upstream.log");
            assert!(
                began.elapsed() < START_LIMIT,
                "kube-apiserver does not start: {why}\n{}",
                std::fs::read_to_string(log).unwrap_or_default()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// An answer as it comes. Who shows nothing else is the user `test`, as with ours.
    pub async fn ask(&self, mut request: Request<Full<Bytes>>, anonymous: bool) -> Result<Response<Body>, String> {
        let headers = request.headers_mut();
        if !anonymous && !headers.contains_key(AUTHORIZATION) {
            headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer admin"));
        }
        headers.insert(HOST, HeaderValue::from_static("localhost"));
        let (answer, _) = self.backend.send(&[self.at], request.map(boxed)).await?;
        Ok(answer.map(|body| Body::stream(body.into_data_stream().map_err(Into::into))))
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What stands for the names of `objects.txt` when there are to be two of each.
const RENAMED: [(&str, &str); 8] = [
    (r#""name":"name""#, r#""name":"second""#),
    (r#""name":"name-"#, r#""name":"second-"#),
    (r#""name":"name."#, r#""name":"second."#),
    (r#""name":"other""#, r#""name":"another""#),
    ("10.96.3.1", "10.96.3.2"),
    ("things", "others"),
    ("Thing", "Other"),
    ("interop2", "interop3"),
];

/// Two servers on one etcd, by name.
struct Pair([(&'static str, Asked); 2]);

impl Pair {
    async fn call(&self, who: usize, method: Method, path: &str, body: &Value) -> Answer {
        let mut request = Request::new(Full::default());
        if !body.is_null() {
            *request.body_mut() = Full::new(body.to_vec().into());
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        (*request.method_mut(), *request.uri_mut()) = (method, path.parse().expect("a path"));
        collect(self.0[who].1.send(request, false).await).await
    }

    /// An object as both read it, or how they differ.
    async fn read(&self, path: &str) -> Result<Value, String> {
        let mut pair = [Value::Null, Value::Null];
        // Somebody may write between the two reads: the status of definitions, say.
        for _ in 0..10 {
            for (who, read) in pair.iter_mut().enumerate() {
                *read = self.call(who, Method::GET, path, &Value::Null).await.body;
            }
            if pair[0] == pair[1] {
                break;
            }
        }
        self.same("reads", pair.into())
    }

    fn same(&self, does: &str, found: Vec<Value>) -> Result<Value, String> {
        match &found[..] {
            [a, b] if a != b => {
                let names: Vec<&str> = self.0.iter().map(|(name, _)| *name).collect();
                Err(format!("{} {does} {a}\n  {} {does} {b}", names[0], names[1]))
            }
            _ => Ok(found.into_iter().next().unwrap_or_default()),
        }
    }

    /// One makes an object, the other changes and deletes it; both read and watch it all along.
    async fn pass(&self, writer: usize, collection: &str, body: &Value) -> Result<(), String> {
        let list = self.call(writer, Method::GET, collection, &Value::Null).await;
        let mut watches = Vec::new();
        for (_, server) in &self.0 {
            let since = version(&list.body);
            let mut request = Request::new(Full::default());
            let uri = format!("{collection}?watch=1&resourceVersion={since}&timeoutSeconds=60");
            *request.uri_mut() = uri.parse().expect("a path");
            watches.push(Lines::new(server.send(request, false).await));
        }
        let made = self.call(writer, Method::POST, collection, body).await;
        if made.code != 201 {
            return Err(format!("POST: {}", made.text));
        }
        let name = made.body.str_at(&["metadata", "name"]).unwrap_or_default().to_string();
        let path = format!("{collection}/{name}");
        loop {
            let mut object = self.read(&path).await?;
            object.set(&["metadata", "annotations", "by"], self.0[1 - writer].0);
            let put = self.call(1 - writer, Method::PUT, &path, &object).await;
            match put.code {
                200 => break,
                409 => {}
                _ => return Err(format!("PUT: {}", put.text)),
            }
        }
        self.read(&path).await?;
        let delete = self.call(1 - writer, Method::DELETE, &path, &json!({"gracePeriodSeconds": 0})).await;
        if delete.code >= 300 {
            return Err(format!("DELETE: {}", delete.text));
        }
        loop {
            let mut events = Vec::new();
            for watch in &mut watches {
                events.push(watch.next().await.ok_or("a watch ends")?);
            }
            let event = self.same("sees", events)?;
            let object = &event["object"];
            let is_it = object.str_at(&["metadata", "name"]) == Some(&name);
            if is_it
                && (event["type"] == Value::from("DELETED") || object.at(&["metadata", "deletionTimestamp"]).is_some())
            {
                return Ok(());
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs upstream's kube-apiserver: cargo xtask upstream"]
async fn two_kinds_of_servers_share_an_etcd() {
    let upstream = Upstream::start("api/all=true").await;
    let etcd = &upstream.etcd;
    let tls = pki::tls::client(&etcd.ca_pem, Some(&etcd.client)).expect("a client");
    let options = EtcdOptions { servers: etcd.urls(), tls: Some(Arc::new(tls)), ..EtcdOptions::default() };
    let mut config = Config::new(Etcd::new(options).expect("an etcd"));
    config.runtime_config = "api/all=true".parse().expect("a runtime config");
    let ours = Server::start(config).await.expect("the server starts");
    let ours = Asked::Ours(ours.local(User::new("test", ["system:masters"])), ours);
    let pair = Pair([("upstream", Asked::Upstream(upstream)), ("knarr", ours)]);
    let texts = [include_str!("requests/objects.txt"), include_str!("requests/previews_objects.txt")];
    let mut failures = 0;
    for (asked, _) in texts.into_iter().flat_map(|text| requests::read(text).1) {
        let lines: Vec<&str> = asked.lines().collect();
        let (collection, body) = (lines[1].trim_start_matches("POST "), lines[lines.len() - 1]);
        let renamed = RENAMED.iter().fold(body.to_string(), |text, (from, to)| text.replace(from, to));
        for (writer, body) in [body, &renamed].into_iter().enumerate() {
            let body = meta::parse(body.as_bytes()).expect("an object");
            let done = tokio::time::timeout(PASS_LIMIT, pair.pass(writer, collection, &body)).await;
            if let Err(why) = done.unwrap_or_else(|_| Err("no end".into())) {
                failures += 1;
                println!("=== {}, written by {}: {why}", lines[0], pair.0[writer].0);
            }
        }
    }
    assert_eq!(failures, 0, "objects that are not the same to both, above");
}
