//! The container runtime: one containerd of our own per cluster, from the host's package.
//!
//! Writes its configuration into the data directory, starts it in its own process group, starts it again when it dies,
//! and adopts one that a killed Knarr left running, so that containers outlive us. Invariant: never touches another
//! containerd of the machine: root, state and socket are the cluster's own.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sys::process::Process;
use tokio_util::sync::CancellationToken;

use crate::layout::Layout;

/// The sandbox image, made by us: see [`super::pause`].
pub const SANDBOX_IMAGE: &str = "knarr.local/pause:1";

const START_LIMIT: Duration = Duration::from_secs(30);
const RESTART_DELAY_MAX: Duration = Duration::from_secs(10);
/// A log larger than this is begun anew at the next start.
const LOG_MAX_BYTES: u64 = 16 << 20;

/// Where Debian and the upstream packages put CNI plugins.
const CNI_BIN_DIRS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

pub struct Containerd {
    layout: Layout,
    running: Running,
}

/// A process that may or may not be our child.
struct Running {
    process: Process,
    /// Kept so that a child of ours is reaped.
    child: Option<tokio::process::Child>,
}

impl Running {
    fn watch(pid: i32, child: Option<tokio::process::Child>) -> Result<Self> {
        Ok(Running { process: Process::open(pid).context("containerd ended at once")?, child })
    }

    /// Returns when the process has ended.
    async fn ended(&mut self) {
        self.process.ended().await;
        if let Some(child) = &mut self.child {
            let _ = child.wait().await;
        }
    }
}

impl Containerd {
    /// Takes over a running containerd of this cluster, or starts one; returns when it answers.
    pub async fn start(layout: &Layout) -> Result<Self> {
        let running = match adopt(layout) {
            Some(running) => running,
            None => {
                write_config(layout)?;
                spawn(layout)?
            }
        };
        let mut containerd = Containerd { layout: layout.clone(), running };
        containerd.answering().await?;
        Ok(containerd)
    }

    async fn answering(&mut self) -> Result<()> {
        let socket = self.layout.containerd_socket();
        let answers = async {
            while tokio::net::UnixStream::connect(&socket).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let log = log_file(&self.layout);
        tokio::select! {
            _ = answers => Ok(()),
            _ = self.running.ended() => bail!("containerd ended at once: {} says why", log.display()),
            _ = tokio::time::sleep(START_LIMIT) => {
                bail!("containerd does not answer after {} s: see {}", START_LIMIT.as_secs(), log.display())
            }
        }
    }

    /// Keeps containerd running until `shutdown`; leaves it running then, since the pods need it.
    pub async fn supervise(mut self, shutdown: CancellationToken) {
        let mut delay = Duration::from_millis(100);
        loop {
            tokio::select! {
                _ = shutdown.cancelled() => return,
                _ = self.running.ended() => {}
            }
            tracing::warn!("containerd ended; starting it again");
            loop {
                tokio::select! {
                    _ = shutdown.cancelled() => return,
                    _ = tokio::time::sleep(delay) => {}
                }
                match Self::start(&self.layout).await {
                    Ok(started) => {
                        self = started;
                        delay = Duration::from_millis(100);
                        break;
                    }
                    Err(error) => {
                        tracing::error!("cannot start containerd: {error:#}");
                        delay = (delay * 2).min(RESTART_DELAY_MAX);
                    }
                }
            }
        }
    }

    /// Ends containerd; its containers, if any are left, go on.
    pub async fn stop(mut self) -> Result<()> {
        self.running.process.terminate().context("cannot stop containerd")?;
        if tokio::time::timeout(Duration::from_secs(10), self.running.ended()).await.is_err() {
            self.running.process.kill().context("cannot kill containerd")?;
            self.running.ended().await;
        }
        let _ = fs::remove_file(pid_file(&self.layout));
        Ok(())
    }
}

fn pid_file(layout: &Layout) -> PathBuf {
    layout.run_dir().join("containerd.pid")
}

fn config_file(layout: &Layout) -> PathBuf {
    layout.containerd_dir().join("config.toml")
}

fn log_file(layout: &Layout) -> PathBuf {
    layout.data_dir.join("logs").join("containerd.log")
}

/// The process of the PID file, when it is a containerd with this cluster's configuration.
fn adopt(layout: &Layout) -> Option<Running> {
    let pid: i32 = fs::read_to_string(pid_file(layout)).ok()?.trim().parse().ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let config = config_file(layout);
    let ours = command.split(|b| *b == 0).any(|argument| argument == config.as_os_str().as_encoded_bytes());
    if ours { Running::watch(pid, None).ok() } else { None }
}

fn spawn(layout: &Layout) -> Result<Running> {
    let log = log_file(layout);
    fs::create_dir_all(layout.data_dir.join("logs"))?;
    if fs::metadata(&log).is_ok_and(|m| m.len() > LOG_MAX_BYTES) {
        fs::rename(&log, log.with_extension("log.1"))?;
    }
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&log)?;
    let mut command = std::process::Command::new("containerd");
    command.arg("--config").arg(config_file(layout));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // Its own process group: a Ctrl-C at our terminal is not for it.
    command.process_group(0);
    let child = tokio::process::Command::from(command)
        .kill_on_drop(false)
        .spawn()
        .context("cannot run containerd: install it (`apt-get install containerd`)")?;
    let pid = child.id().context("containerd ended at once")? as i32;
    pki::files::write_private(&pid_file(layout), &pid.to_string())?;
    Running::watch(pid, Some(child))
}

fn write_config(layout: &Layout) -> Result<()> {
    let dir = layout.containerd_dir();
    fs::create_dir_all(&dir)?;
    fs::create_dir_all(layout.cni_conf_dir())?;
    let cni_bin = CNI_BIN_DIRS
        .iter()
        .find(|dir| PathBuf::from(dir).join("bridge").exists())
        .context("no CNI plugins found: install them (`apt-get install containernetworking-plugins`)")?;
    let host = Host { restrict_oom: !may_lower_oom_score(), apparmor: has_apparmor() };
    // Never half a file: a containerd that reads an empty one takes the machine's default socket.
    let fresh = dir.join("config.toml.new");
    fs::write(&fresh, render_config(layout, cni_bin, &host))?;
    fs::rename(fresh, config_file(layout))?;
    Ok(())
}

/// What of the configuration depends on the machine.
struct Host {
    restrict_oom: bool,
    apparmor: bool,
}

/// Whether this process has CAP_SYS_RESOURCE (bit 24), which a negative `oom_score_adj` needs.
fn may_lower_oom_score() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|bits| bits & (1 << 24) != 0)
}

fn has_apparmor() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
        && PathBuf::from("/sbin/apparmor_parser").exists()
}

fn render_config(layout: &Layout, cni_bin: &str, host: &Host) -> String {
    let quote = |path: PathBuf| serde_json::Value::from(path.display().to_string()).to_string();
    format!(
        r#"# Written by knarr at every start.
version = 2
root = {root}
state = {state}
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]

[grpc]
  address = {socket}

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{SANDBOX_IMAGE}"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  restrict_oom_score_adj = {restrict_oom}
  disable_apparmor = {no_apparmor}
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true

[plugins."io.containerd.grpc.v1.cri".containerd]
  default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{cni_bin}"
  conf_dir = {cni_conf}

[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = {registries}
"#,
        root = quote(layout.containerd_dir().join("root")),
        state = quote(layout.run_dir().join("containerd")),
        socket = quote(layout.containerd_socket()),
        cni_conf = quote(layout.cni_conf_dir()),
        registries = quote(layout.containerd_dir().join("certs.d")),
        restrict_oom = host.restrict_oom,
        no_apparmor = !host.apparmor,
    )
}
