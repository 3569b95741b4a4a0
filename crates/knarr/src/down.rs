//! `knarr down`: stops Knarr, its pods and its containerd, and takes away what the cluster put into the kernel.
//!
//! Everything is found by the cluster's ID, so nothing of another cluster is touched. What is gone already is no error:
//! running it twice is fine.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sys::process::Process;

use crate::flags::Down;
use crate::layout::Layout;
use crate::lock::Lock;
use crate::progress::Progress;
use crate::up::containerd::Containerd;
use crate::{host, up};

/// Knarr leaves its pods alone when it ends, so it has little to do.
const STOP_LIMIT: Duration = Duration::from_secs(20);

pub async fn run(flags: &Down) -> Result<()> {
    host::require_root("knarr down")?;
    let layout = Layout::open(&flags.data_dir)?;
    let progress = Progress::begin();
    if let Some(pid) = Lock::holder(&layout.lock_file())? {
        let began = Instant::now();
        stop_process(pid).await?;
        progress.done("knarr", &format!("process {pid} stopped"), began.elapsed());
    }
    // Held until the end, so that no `knarr up` begins meanwhile.
    let _lock = Lock::take(&layout.lock_file())?;

    // Without its run directory there was no `up` since the last `down` or reboot, so nothing runs.
    if layout.containerd_dir().exists() && layout.run_dir().exists() {
        let began = Instant::now();
        // One that runs is taken over, also one that does not answer yet; one that was killed is started again, since its
        // containers run on without it.
        let containerd = Containerd::start(&layout).await?;
        let config = up::kubelet_paths(&layout, &host::node_name());
        kubelet::stop_all_pods(&config).await.context("cannot stop the pods")?;
        progress.done("pods", "stopped", began.elapsed());
        let began = Instant::now();
        containerd.stop().await?;
        progress.done("containerd", "stopped", began.elapsed());
    }
    clean_kernel(&layout).await;
    progress.line("Stopped. Objects stay in the data directory; `knarr up` finds them again.");
    Ok(())
}

async fn stop_process(pid: i32) -> Result<()> {
    let process = Process::open(pid).context("cannot watch Knarr's process")?;
    process.terminate().context("cannot stop Knarr")?;
    if tokio::time::timeout(STOP_LIMIT, process.ended()).await.is_err() {
        tracing::warn!("Knarr does not end by itself; killing it");
        process.kill().context("cannot kill Knarr")?;
        if tokio::time::timeout(STOP_LIMIT, process.ended()).await.is_err() {
            bail!("process {pid} does not end");
        }
    }
    Ok(())
}

/// Rules, bridge, cgroup. Each may be absent, and what cannot be removed is told, not fatal.
async fn clean_kernel(layout: &Layout) {
    if let Err(error) = proxy::cleanup(&layout.nft_table()).await {
        tracing::warn!("cannot remove the nftables table {}: {error}", layout.nft_table());
    }
    let bridge = layout.bridge();
    if std::path::Path::new("/sys/class/net").join(&bridge).exists() {
        let deleted = tokio::process::Command::new("ip").args(["link", "delete", &bridge]).output().await;
        match deleted {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                tracing::warn!("cannot remove the bridge {bridge}: {}", String::from_utf8_lossy(&output.stderr).trim())
            }
            Err(error) => tracing::warn!("cannot run ip to remove the bridge {bridge}: {error}"),
        }
    }
    // A mount that is left there is a container's root: removing below it would reach into the container.
    let run_dir = layout.run_dir();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if mounts.contains(&format!(" {}/", run_dir.display())) {
        tracing::warn!("{} has mounts left in it; not removed", run_dir.display());
    } else {
        let _ = std::fs::remove_dir_all(run_dir);
    }
}
