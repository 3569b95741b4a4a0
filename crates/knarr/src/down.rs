//! `knarr down`: stops Knarr, its pods and its containerd, and takes away what the cluster put into the kernel.
//!
//! Everything is found by the cluster's ID, so nothing of another cluster is touched. What is gone already is no error:
//! running it twice is fine.

mod remains;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sys::process::Process;

use self::remains::Remains;
use crate::flags::Down;
use crate::layout::Layout;
use crate::lock::Lock;
use crate::progress::Progress;
use crate::up::containerd::Containerd;
use crate::{host, up};

/// Knarr leaves its pods alone when it ends, so it has little to do.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// How long containerd is asked again when it fails to stop a pod.
const PODS_LIMIT: Duration = Duration::from_secs(60);

/// How long containerd may take, with no pod left, to clear away what it was making.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// Between two looks at what is left.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

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
        stop_pods(&layout).await?;
        progress.done("pods", "stopped", began.elapsed());
        let began = Instant::now();
        containerd.stop().await?;
        progress.done("containerd", "stopped", began.elapsed());
    }
    clean_kernel(&layout).await;
    progress.line("Stopped. Objects stay in the data directory; `knarr up` finds them again.");
    Ok(())
}

/// Stops the pods until nothing of them is left. Once is not enough when Knarr was stopped while containerd made a sandbox:
/// that one is listed late or never, and containerd clears it away by itself only as long as it runs.
async fn stop_pods(layout: &Layout) -> Result<()> {
    let config = up::kubelet_paths(layout, &host::node_name());
    let began = Instant::now();
    let mut stopped_at = None;
    // Between two steps of making a sandbox nothing may be there to see, so it has to be gone twice.
    let mut clean_looks = 0;
    while clean_looks < 2 {
        if let Err(error) = kubelet::stop_all_pods(&config).await {
            if began.elapsed() > PODS_LIMIT {
                return Err(error).context("cannot stop the pods");
            }
            tracing::warn!("cannot stop the pods: {error}; trying again");
            tokio::time::sleep(LOOK_AGAIN).await;
            continue;
        }
        let stopped_at = *stopped_at.get_or_insert_with(Instant::now);
        let remains = Remains::find(layout)?;
        if remains.is_empty() {
            clean_looks += 1;
        } else if stopped_at.elapsed() > SETTLE_LIMIT {
            tracing::warn!("containerd leaves {remains} after {} s; removing them", SETTLE_LIMIT.as_secs());
            remains.clear().await.context("cannot remove what containerd left")?;
            // The cgroups, which had processes in them until now.
            return kubelet::stop_all_pods(&config).await.context("cannot stop the pods");
        } else {
            clean_looks = 0;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
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
    if std::path::Path::new("/sys/class/net").join(&bridge).exists()
        && let Err(error) = delete_link(&bridge).await
    {
        tracing::warn!("{error:#}");
    }
    for dir in remains::cgroups(layout) {
        tracing::warn!("the cgroup {} has processes left in it; not removed", dir.display());
    }
    // A mount that is left there is a container's root: removing below it would reach into the container.
    let run_dir = layout.run_dir();
    match sys::mount::mounts_below(&run_dir) {
        Ok(mounts) if mounts.is_empty() => drop(std::fs::remove_dir_all(run_dir)),
        _ => tracing::warn!("{} has mounts left in it; not removed", run_dir.display()),
    }
}

async fn delete_link(name: &str) -> Result<()> {
    let output = tokio::process::Command::new("ip").args(["link", "delete", name]).output().await;
    let output = output.with_context(|| format!("cannot run ip to remove the interface {name}"))?;
    if !output.status.success() {
        bail!("cannot remove the interface {name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
