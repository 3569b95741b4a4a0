//! The processes that are measured: a cluster (`knarr up`), an API server alone, and what they use of the machine.
//!
//! Each has a directory of its own. Invariant: dropping one ends its processes and removes its directory, however the
//! benchmark ends; only a cluster that cannot be stopped keeps its directory, and is told.

use std::fs::{self, File};
use std::net::{IpAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::Settings;
use crate::etcd::EtcdServers;
use crate::http::Api;

const START_LIMIT: Duration = Duration::from_secs(120);
const DOWN_LIMIT: Duration = Duration::from_secs(120);
const UP: &[&str] = &["up", "--detach", "--api-port", "0", "--kubelet-port", "0"];
const SERVER: &[&str] = &["apiserver", "--port", "0", "--bind-address", "127.0.0.1"];

fn spawn(binary: &Path, arguments: &[impl AsRef<std::ffi::OsStr>], dir: &Path) -> Result<Child> {
    run(Command::new(binary).args(arguments).arg("--data-dir").arg(dir.join("data")), dir)
}

/// Runs in a process group of its own, so that a Ctrl-C at the terminal leaves ending it to us.
fn run(command: &mut Command, dir: &Path) -> Result<Child> {
    let log = File::options().create(true).append(true).open(dir.join("log"))?;
    command.env_remove("KUBECONFIG").process_group(0);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("cannot run {}", command.get_program().display()))
}

/// Upstream's API server on this etcd, with certificates that it finds, and the admin's kubeconfig, in the directory.
fn upstream(binary: &Path, etcd: &EtcdServers, dir: &Path) -> Result<Child> {
    let (host, data) = (IpAddr::from([127, 0, 0, 1]), dir.join("data"));
    let port = TcpListener::bind((host, 0))?.local_addr()?.port();
    let authority = pki::Authority::generate("bench")?;
    let server = authority.issue(&pki::CertificateRequest::server("kube-apiserver", &[], &[host]))?;
    let admin = authority.issue(&pki::CertificateRequest::client("admin", Some("system:masters")))?;
    let (ca, address) = (authority.certificate_pem(), format!("https://127.0.0.1:{port}"));
    let key = authority.key_pem();
    let kubeconfig = pki::kubeconfig::render("upstream", &address, ca, "admin", &admin);
    for (name, text) in [
        ("ca.crt", ca),
        ("ca.key", &key),
        ("server.crt", &server.certificate_pem),
        ("server.key", &server.key_pem),
        ("admin.kubeconfig", &kubeconfig),
    ] {
        pki::files::write_private(&data.join(name), text)?;
    }
    let mut command = Command::new(binary);
    command.current_dir(&data).args(etcd.flags()).args(["--bind-address", "127.0.0.1", "--authorization-mode", "RBAC"]);
    command.args(["--secure-port", &port.to_string(), "--service-cluster-ip-range", "10.96.0.0/16"]);
    command
        .args(["--client-ca-file", "ca.crt", "--tls-cert-file", "server.crt", "--tls-private-key-file", "server.key"]);
    command.args(["--service-account-key-file", "ca.crt", "--service-account-signing-key-file", "ca.key"]);
    command.args(["--service-account-issuer", "https://bench", "--endpoint-reconciler-type", "none"]);
    let child = run(&mut command, dir)?;
    fs::write(data.join("knarr.lock"), child.id().to_string())?;
    Ok(child)
}

fn arguments(whole_cluster: bool, etcd: Option<&EtcdServers>) -> Vec<String> {
    let flags = etcd.map(EtcdServers::flags).unwrap_or_default();
    let command = if whole_cluster { UP } else { SERVER };
    command.iter().map(|argument| argument.to_string()).chain(flags).collect()
}

#[allow(clippy::disallowed_methods)] // only where a process is ended, and nothing else goes on meanwhile
fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// Waits for a child's end, and kills it when it takes longer than `limit`.
fn ended(child: &mut Child, limit: Duration) -> ExitStatus {
    let began = Instant::now();
    while began.elapsed() < limit {
        if let Ok(Some(status)) = child.try_wait() {
            return status;
        }
        pause(5);
    }
    let _ = child.kill();
    child.wait().unwrap_or_default()
}

/// Takes away mounts that are left below a directory of ours: what is removed must not lead elsewhere.
fn unmount_below(dir: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let points =
        mounts.lines().filter_map(|line| line.split(' ').nth(4)).filter(|point| Path::new(point).starts_with(dir));
    // The latest first: it may lie in, or over, an earlier one.
    for point in points.collect::<Vec<_>>().into_iter().rev() {
        eprintln!("bench: `knarr down` left a mount: {point}");
        unmount(point, UnmountFlags::empty()).with_context(|| format!("cannot unmount {point}"))?;
    }
    Ok(())
}

/// A cluster or an API server, with a directory of its own.
pub struct Knarr {
    binary: PathBuf,
    /// Measured in its place where an API server alone is.
    upstream: Option<PathBuf>,
    dir: TempDir,
    /// Where the server keeps its objects, if not in its directory.
    etcd: Option<EtcdServers>,
    /// The API server itself, or the `knarr up --detach` that returns when the cluster is ready.
    child: Child,
    whole_cluster: bool,
    running: bool,
    pub began: Instant,
}

impl Knarr {
    /// Begins `knarr up --detach`; all state is new.
    pub fn begin_cluster(settings: &Settings) -> Result<Self> {
        Self::begin(settings, true)
    }

    /// A whole cluster that is ready.
    pub async fn cluster(settings: &Settings) -> Result<(Self, Api)> {
        let mut cluster = Self::begin_cluster(settings)?;
        cluster.ready().await?;
        let api = cluster.api().await?;
        Ok((cluster, api))
    }

    /// `knarr apiserver` alone that answers.
    pub async fn server(settings: &Settings) -> Result<(Self, Api)> {
        let mut server = Self::begin(settings, false)?;
        let api = server.api().await?;
        Ok((server, api))
    }

    fn begin(settings: &Settings, whole_cluster: bool) -> Result<Self> {
        let made = tempfile::Builder::new().prefix("bench-").tempdir_in(&settings.dir);
        let dir = made.with_context(|| format!("cannot make a directory in {}", settings.dir.display()))?;
        fs::create_dir(dir.path().join("data"))?;
        let etcd = settings.etcd || settings.upstream.is_some();
        let etcd = (etcd && !whole_cluster).then(|| EtcdServers::start(1));
        let (binary, upstream, began) = (settings.knarr.clone(), settings.upstream.clone(), Instant::now());
        let child = Self::spawn(&binary, upstream.as_deref(), whole_cluster, etcd.as_ref(), dir.path())?;
        Ok(Knarr { binary, upstream, dir, etcd, child, whole_cluster, running: true, began })
    }

    fn spawn(
        binary: &Path,
        other: Option<&Path>,
        whole_cluster: bool,
        etcd: Option<&EtcdServers>,
        dir: &Path,
    ) -> Result<Child> {
        match (other, etcd) {
            (Some(other), Some(etcd)) => upstream(other, etcd, dir),
            _ => spawn(binary, &arguments(whole_cluster, etcd), dir),
        }
    }

    /// Stops an API server and starts it again on the same state; how long it took until it answered.
    pub async fn restart_server(&mut self) -> Result<(Api, Duration)> {
        self.end()?;
        // The old one names the port of before.
        fs::remove_file(self.data().join("admin.kubeconfig"))?;
        let began = Instant::now();
        let (other, etcd) = (self.upstream.as_deref(), self.etcd.as_ref());
        self.child = Self::spawn(&self.binary, other, false, etcd, self.dir.path())?;
        Ok((self.api().await?, began.elapsed()))
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Whether `knarr up --detach` has returned; an error when it, or the server, has failed.
    fn returned(&mut self) -> Result<bool> {
        match self.child.try_wait()? {
            None => Ok(false),
            Some(status) if self.whole_cluster && status.success() => Ok(true),
            Some(status) => bail!("knarr ended: {status}\n{}", self.log()),
        }
    }

    /// Returns when the cluster is, as `knarr up` has it, ready.
    pub async fn ready(&mut self) -> Result<()> {
        while !self.returned()? {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// The API, as soon as it answers.
    pub async fn api(&mut self) -> Result<Api> {
        let (began, kubeconfig) = (Instant::now(), self.data().join("admin.kubeconfig"));
        loop {
            self.returned()?;
            let last = match Api::from_kubeconfig(&kubeconfig) {
                Ok(api) => match api.get("/api/v1/namespaces/default").await {
                    Ok(_) => return Ok(api),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if began.elapsed() > START_LIMIT {
                return Err(last.context(format!("the API does not answer after {} s", START_LIMIT.as_secs())));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The process of Knarr itself.
    pub fn pid(&self) -> Result<i32> {
        let text = fs::read_to_string(self.data().join("knarr.lock")).context("no lock file")?;
        text.trim().parse().context("the lock file names no process")
    }

    /// The processes of its container runtime: containerd, known by its configuration's path, and the shims, known by
    /// containerd's socket.
    pub fn runtime(&self) -> Vec<i32> {
        let config = self.data().join("containerd/config.toml");
        let text = fs::read_to_string(&config).unwrap_or_default();
        let address = text.lines().find_map(|line| line.trim().strip_prefix("address = ")).unwrap_or_default();
        let marks = [config.display().to_string(), address.trim_matches('"').to_string()];
        let ours = |pid: &i32| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command);
            let mut arguments = command.split('\0');
            let program = arguments.next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
            program.starts_with("containerd") && arguments.any(|a| !a.is_empty() && marks.iter().any(|mark| a == mark))
        };
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(ours).collect()
    }

    fn log(&self) -> String {
        let text = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// Ends its processes: the server by SIGTERM, a cluster by `knarr down`.
    fn end(&mut self) -> Result<()> {
        if !self.whole_cluster {
            let pid = Pid::from_raw(self.child.id() as i32).context("no process")?;
            if self.child.try_wait()?.is_none() {
                kill_process(pid, Signal::TERM)?;
            }
            ended(&mut self.child, Duration::from_secs(20));
            return Ok(());
        }
        if self.child.try_wait()?.is_none() {
            // Interrupted: the background process must hold the lock before `down` can find it.
            let began = Instant::now();
            while self.pid().is_err() && began.elapsed() < Duration::from_secs(2) {
                pause(5);
            }
            ended(&mut self.child, Duration::ZERO);
        }
        // A second time, since a start that was cut off may have left a containerd that does not answer yet.
        let down = || Ok::<_, anyhow::Error>(ended(&mut spawn(&self.binary, &["down"], self.dir.path())?, DOWN_LIMIT));
        if !down()?.success() {
            pause(2000);
            if !down()?.success() {
                bail!("`knarr down` failed:\n{}", self.log());
            }
        }
        unmount_below(&self.data())
    }

    /// Ends it and removes its directory.
    pub fn stop(mut self) -> Result<()> {
        self.running = false;
        let result = self.end();
        self.dir.disable_cleanup(result.is_err());
        result.with_context(|| format!("what is left is in {}", self.dir.path().display()))
    }
}

impl Drop for Knarr {
    fn drop(&mut self) {
        if self.running
            && let Err(error) = self.end()
        {
            self.dir.disable_cleanup(true);
            eprintln!("bench: {error:#}\nbench: end it with `knarr down --data-dir {}`", self.data().display());
        }
    }
}

/// What processes use together.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    pub rss_mib: f64,
    /// Like RSS, but a page that several processes share counts once in all.
    pub pss_mib: f64,
    /// Of the processes themselves, since their start.
    pub cpu_s: f64,
    /// Of children that have ended, such as nft and runc.
    pub children_cpu_s: f64,
}

pub fn usage(pids: &[i32]) -> Usage {
    let mut all = Usage::default();
    for pid in pids {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let mib = |key: &str| {
            let line = rollup.lines().find(|line| line.starts_with(key)).unwrap_or_default();
            line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
        };
        all.rss_mib += mib("Rss:");
        all.pss_mib += mib("Pss:");
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let [user, system, children_user, children_system] = ticks(&stat);
        all.cpu_s += (user + system) / TICKS_PER_SECOND;
        all.children_cpu_s += (children_user + children_system) / TICKS_PER_SECOND;
    }
    all
}

/// USER_HZ, the same on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// utime, stime, cutime and cstime of `/proc/PID/stat`; the program's name before them may hold spaces.
fn ticks(stat: &str) -> [f64; 4] {
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    [11, 12, 13, 14].map(|i| fields.get(i).and_then(|field| field.parse().ok()).unwrap_or(0.0))
}

/// CPU use since it was made: of a server and of us, who make its load.
pub struct Cpu {
    server: i32,
    began: Instant,
    before: [f64; 2],
}

impl Cpu {
    pub fn of(server: &Knarr) -> Result<Self> {
        let server = server.pid()?;
        Ok(Cpu { server, began: Instant::now(), before: Self::now(server) })
    }

    fn now(server: i32) -> [f64; 2] {
        [server, std::process::id() as i32].map(|pid| usage(&[pid]).cpu_s)
    }

    pub fn note(&self) -> String {
        let (now, seconds) = (Self::now(self.server), self.began.elapsed().as_secs_f64());
        let [server, load] = [0, 1].map(|i| (now[i] - self.before[i]) / seconds);
        format!("server {server:.2}, load {load:.2} cores")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_of_a_process_with_an_odd_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 100 0 0 0 11 12 13 14 20 0 1 0 5 1 1";
        assert_eq!(ticks(stat), [11.0, 12.0, 13.0, 14.0]);
        assert_eq!(ticks(""), [0.0; 4]);
    }

    #[test]
    fn this_process_uses_something() {
        let own = usage(&[std::process::id() as i32]);
        assert!(own.rss_mib > 0.1 && own.rss_mib >= own.pss_mib, "{} {}", own.rss_mib, own.pss_mib);
        assert_eq!(usage(&[]).rss_mib, 0.0);
    }
}
