//! A cluster of its own for a test: brought up with the real binary, driven with the real kubectl, gone at the end.
//!
//! `KNARR_BIN` names another binary (a release build, say). Everything lies in one temporary directory; dropping the
//! cluster runs `knarr down` and removes it, also when the test fails.

#![allow(dead_code)] // each test uses its part of this

use std::fs::File;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Safety nets, for machines that are slow; what is awaited comes much sooner.
pub const SOON: Duration = Duration::from_secs(90);
pub const LATER: Duration = Duration::from_secs(180);

pub fn binary() -> PathBuf {
    std::env::var_os("KNARR_BIN").map_or_else(|| env!("CARGO_BIN_EXE_knarr").into(), PathBuf::from)
}

pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace")
}

/// Clusters share the machine's two cores badly: one test at a time, also between test binaries.
pub struct Turn(#[allow(dead_code)] File);

impl Turn {
    pub fn take() -> Turn {
        let path = std::env::temp_dir().join("knarr-e2e.lock");
        let file = File::options().create(true).truncate(false).write(true).open(path).expect("the lock file");
        file.lock().expect("locked");
        Turn(file)
    }
}

pub struct Cluster {
    pub dir: PathBuf,
    // Kept to the end, and let go of last.
    _turn: Option<Turn>,
}

impl Cluster {
    /// A new cluster in a new directory; returns when it is ready.
    pub fn up(name: &str) -> Cluster {
        let turn = Turn::take();
        let mut cluster = Cluster::beside(name);
        cluster._turn = Some(turn);
        cluster
    }

    /// A cluster for a test that has its turn already.
    pub fn beside(name: &str) -> Cluster {
        assert!(is_root(), "the end-to-end tests need root: they run containers and change the network");
        let dir = Cluster::dir_for(name);
        std::fs::create_dir_all(&dir).expect("the test's directory");
        let cluster = Cluster { dir, _turn: None };
        cluster.start();
        cluster
    }

    /// Where the cluster of this name will lie, for a test that prepares something there.
    pub fn dir_for(name: &str) -> PathBuf {
        PathBuf::from(format!("/var/tmp/knarr-e2e-{name}-{}", std::process::id()))
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir().join("admin.kubeconfig")
    }

    /// `knarr up --detach`.
    pub fn start(&self) {
        let output = self.knarr(&["up", "--detach", "--api-port", "0", "--kubelet-port", "0"]);
        assert!(output.status.success(), "knarr up failed:\n{}", both(&output));
        println!("{}", String::from_utf8_lossy(&output.stdout));
    }

    pub fn knarr(&self, arguments: &[&str]) -> Output {
        Command::new(binary())
            .args(arguments)
            .arg("--data-dir")
            .arg(self.data_dir())
            .stdin(Stdio::null())
            .output()
            .expect("knarr runs")
    }

    /// What the cluster's bridge, nft table, cgroup and run directory are named after.
    pub fn id(&self) -> String {
        let config = std::fs::read_to_string(self.data_dir().join("containerd/config.toml")).expect("its containerd");
        let id = config.split("/run/knarr/").nth(1).and_then(|rest| rest.split('/').next()).expect("the run directory");
        id.to_string()
    }

    /// What is left of a cluster that was stopped: processes, mounts, and what it put into the kernel.
    pub fn leftovers(&self) -> Vec<String> {
        let (id, data_dir) = (self.id(), self.data_dir().display().to_string());
        let mut left =
            processes(&data_dir).into_iter().map(|(pid, line)| format!("process {pid}: {line}")).collect::<Vec<_>>();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
        let ours = |line: &&str| {
            [&format!(" {data_dir}/"), &format!(" /run/knarr/{id}/")].iter().any(|p| line.contains(p.as_str()))
        };
        left.extend(
            mounts.lines().filter(ours).filter(|line| !line.contains("/store ")).map(|line| format!("mount: {line}")),
        );
        let tables = Command::new("nft").args(["list", "tables"]).output().expect("nft runs");
        let tables = String::from_utf8_lossy(&tables.stdout).into_owned();
        left.extend(tables.lines().filter(|line| line.contains(&id)).map(|line| format!("nft: {line}")));
        let mut dirs =
            vec![format!("/sys/class/net/knr{id}"), format!("/run/knarr/{id}"), format!("/sys/fs/cgroup/knarr-{id}")];
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            dirs.push(format!("{}/knarr-{id}", hierarchy.path().display()));
        }
        left.extend(dirs.into_iter().filter(|dir| Path::new(dir).exists()));
        left
    }

    /// The process that runs the cluster.
    pub fn pid(&self) -> i32 {
        let text = std::fs::read_to_string(self.data_dir().join("knarr.lock")).expect("the lock file");
        text.trim().parse().expect("a process ID")
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.args(arguments).env("KUBECONFIG", self.kubeconfig()).env("HOME", &self.dir).stdin(Stdio::null());
        command
    }

    /// Runs kubectl; answers what it said, whatever became of it.
    pub fn try_kubectl(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("kubectl runs")
    }

    /// Runs kubectl, which has to succeed; answers its standard output.
    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.try_kubectl(arguments);
        assert!(output.status.success(), "kubectl {} failed:\n{}", arguments.join(" "), both(&output));
        String::from_utf8_lossy(&output.stdout).trim_end().to_string()
    }

    /// Runs kubectl, which has to fail; answers what it said on standard error.
    #[track_caller]
    pub fn kubectl_fails(&self, arguments: &[&str]) -> String {
        let output = self.try_kubectl(arguments);
        assert!(!output.status.success(), "kubectl {} should fail:\n{}", arguments.join(" "), both(&output));
        String::from_utf8_lossy(&output.stderr).trim_end().to_string()
    }

    /// Applies a manifest given as text.
    #[track_caller]
    pub fn apply(&self, manifest: &str) {
        let output = with_input(&mut self.command(&["apply", "-f", "-"]), manifest);
        assert!(output.status.success(), "{}", both(&output));
    }

    /// `knarr down`, which has to leave nothing behind.
    #[track_caller]
    pub fn down(&self) {
        let output = self.knarr(&["down"]);
        assert!(output.status.success(), "knarr down failed: {}", both(&output));
        assert_eq!(self.leftovers(), Vec::<String>::new());
    }

    /// Knarr dies as of `kill -9`.
    pub fn kill_knarr(&self) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-9", &pid]).status().expect("kill runs").success());
        until("the process is gone", SOON, || !Path::new("/proc").join(&pid).exists());
    }

    pub fn get(&self, what: &[&str], jsonpath: &str) -> String {
        let output = format!("jsonpath={jsonpath}");
        let mut arguments = vec!["get"];
        arguments.extend(what);
        arguments.extend(["-o", &output]);
        self.kubectl(&arguments)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // What a person would look at first.
            for arguments in [&["get", "pods", "-A", "-o", "wide"][..], &["get", "events", "-A"]] {
                eprintln!("--- kubectl {}\n{}", arguments.join(" "), both(&self.try_kubectl(arguments)));
            }
            let log = std::fs::read_to_string(self.data_dir().join("logs/knarr.log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("--- the end of knarr's log");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
        let down = self.knarr(&["down"]);
        if !down.status.success() {
            eprintln!("knarr down failed: {}", both(&down));
            if !std::thread::panicking() {
                panic!("knarr down failed");
            }
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Runs a command with an input; answers what it said, whatever became of it.
pub fn with_input(command: &mut Command, stdin: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command runs");
    // One that refuses its input is judged by what it says.
    let _ = child.stdin.take().expect("a pipe").write_all(stdin.as_bytes());
    child.wait_with_output().expect("the command ends")
}

/// A command that goes on while a test reads what it says, a line at a time; it ends with this.
pub struct Talk(Child, Lines<BufReader<ChildStdout>>);

impl Talk {
    pub fn start(command: &mut Command) -> Talk {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the command runs");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Talk(child, lines)
    }

    #[track_caller]
    pub fn line(&mut self) -> String {
        self.1.next().expect("a further line").expect("read")
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a step is called, and the step.
pub type Step<W> = (&'static str, fn(&W));

/// Takes the steps of a walk, and says how long each took.
pub fn take_steps<W>(walk: &W, steps: &[Step<W>]) {
    for (name, step) in steps {
        let began = Instant::now();
        println!("=== {name}");
        step(walk);
        println!("    {:.1} s", began.elapsed().as_secs_f64());
    }
}

/// As [`eventually`], for what has no answer but yes.
#[track_caller]
pub fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    eventually(what, limit, || holds().then_some(()))
}

pub fn both(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Processes whose command line has `text` in it.
pub fn processes(text: &str) -> Vec<(i32, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(text) {
            found.push((pid, line));
        }
    }
    found
}

pub fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|s| s.contains("\nUid:\t0\t0\t"))
}

/// Asks until the answer is `Some`; the state of a cluster seen from outside can only be polled.
#[track_caller]
pub fn eventually<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < limit, "not within {} s: {what}", limit.as_secs());
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

/// The body of an HTTP answer, where there is one with code 200.
pub fn http_get(url: &str) -> Option<String> {
    let output = Command::new("curl").args(["-fsS", "--max-time", "20", url]).output().expect("curl runs");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
