//! `knarr apiserver` alone, for tests that need no node: started with the real binary, asked with curl and kubectl.
//!
//! Everything lies in one temporary directory; dropping it ends the process. Needs no root.

#![allow(dead_code)] // each test uses its part of this

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use super::cluster::{binary, both, with_input};

pub struct ApiServer {
    pub dir: tempfile::TempDir,
    pub url: String,
    child: Child,
}

impl ApiServer {
    /// Starts one on a free port of loopback; returns when it answers.
    pub fn start() -> ApiServer {
        ApiServer::start_with(&["--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1"])
    }

    pub fn start_with(flags: &[&str]) -> ApiServer {
        ApiServer::start_in(tempfile::tempdir().expect("a directory"), flags)
    }

    /// With what lies in `dir/data` already.
    pub fn start_in(dir: tempfile::TempDir, flags: &[&str]) -> ApiServer {
        let mut command = Command::new(binary());
        command.args(["apiserver", "--port", "0"]).args(flags);
        command.arg("--data-dir").arg(dir.path().join("data"));
        let (child, line) = start(&mut command, "The API server listens at ");
        let url = line.trim_end_matches(". Next:").to_string();
        let server = ApiServer { dir, url, child };
        for (file, field) in [
            ("client.crt", "users[0].user.client-certificate-data"),
            ("client.key", "users[0].user.client-key-data"),
            ("ca.crt", "clusters[0].cluster.certificate-authority-data"),
        ] {
            let path = format!("jsonpath={{.{field}}}");
            let text = server.kubectl(&["config", "view", "--raw", "-o", &path]);
            let decoded = with_input(Command::new("base64").arg("-d"), &text).stdout;
            std::fs::write(server.dir.path().join(file), decoded).expect("written");
        }
        server
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("data/admin.kubeconfig")
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("asked").is_none()
    }

    /// Runs kubectl with `stdin`; answers what it said, whatever became of it.
    pub fn try_kubectl(&self, arguments: &[&str], stdin: &str) -> Output {
        let mut command = Command::new("kubectl");
        command.args(arguments).env("KUBECONFIG", self.kubeconfig()).env("HOME", self.dir.path());
        with_input(&mut command, stdin)
    }

    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.try_kubectl(arguments, "");
        assert!(output.status.success(), "kubectl {} failed:\n{}", arguments.join(" "), both(&output));
        String::from_utf8_lossy(&output.stdout).trim_end().to_string()
    }

    /// One request by curl, with the admin's certificate unless `anonymous`: the answer's headers and body.
    pub fn curl(&self, method: &str, path: &str, headers: &[&str], anonymous: bool, body: &str) -> (String, String) {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "120", "--path-as-is", "-D", "-", "-X", method, "--cacert"]);
        command.arg(self.dir.path().join("ca.crt"));
        if !anonymous {
            command.arg("--cert").arg(self.dir.path().join("client.crt"));
            command.arg("--key").arg(self.dir.path().join("client.key"));
        }
        for header in headers {
            command.args(["-H", header]);
        }
        if !body.is_empty() {
            command.args(["--data-binary", "@-"]);
        }
        let output = with_input(command.arg(format!("{}{path}", self.url)), body);
        assert!(output.status.success(), "{method} {path}: {}", both(&output));
        let text = String::from_utf8_lossy(&output.stdout).replace("\r\n", "\n");
        // A server that takes its time to read the body is asked to go on first.
        let text = text.strip_prefix("HTTP/1.1 100 Continue\n\n").unwrap_or(&text);
        let (headers, body) = text.split_once("\n\n").expect("headers end");
        (headers.to_string(), body.to_string())
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        stop(&mut self.child);
    }
}

/// Starts a process and waits for the line of its output that begins with `mark`; answers the rest of that line.
pub fn start(command: &mut Command, mark: &str) -> (Child, String) {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the binary runs");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    while let Some(Ok(line)) = lines.next() {
        if let Some(rest) = line.strip_prefix(mark) {
            return (child, rest.to_string());
        }
    }
    let _ = child.wait();
    panic!("{command:?} ended without saying {mark:?}");
}

/// Ends a process as a person would, unless it has ended, and waits for it.
pub fn stop(child: &mut Child) {
    if !matches!(child.try_wait(), Ok(None)) {
        return;
    }
    let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    let _ = child.wait();
}
