//! What of a cluster's pods is still in the kernel: shims, mounts, ports of the bridge.
//!
//! Reads /proc and /sys, so it also sees sandboxes that containerd is still making, or is still clearing away after a call
//! was cut: such are in no list of the CRI. Invariant: names only what carries this cluster's socket, run directory or
//! bridge.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sys::process::Process;

use crate::layout::Layout;

/// Empty when nothing of the pods is left.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// Process IDs of the shims that serve this cluster's containerd.
    shims: Vec<i32>,
    mounts: Vec<PathBuf>,
    /// Interfaces that are ports of the cluster's bridge.
    ports: Vec<String>,
}

impl Remains {
    pub fn find(layout: &Layout) -> Result<Self> {
        let mounts = sys::mount::mounts_below(&layout.run_dir()).context("cannot read the mounts")?;
        let bridge = Path::new("/sys/class/net").join(layout.bridge()).join("brif");
        Ok(Remains {
            shims: processes(|words| is_shim(words, &layout.containerd_socket())),
            mounts: mounts.into_iter().map(|mount| mount.path).collect(),
            ports: names(&bridge),
        })
    }

    pub fn is_empty(&self) -> bool {
        *self == Remains::default()
    }

    /// Ends the shims with all that runs under them, unmounts, and removes the ports.
    pub async fn clear(self) -> Result<()> {
        let parents = parents();
        for &shim in &self.shims {
            for pid in descendants(shim, &parents).into_iter().chain([shim]) {
                // One that ended meanwhile is what we want.
                let Ok(process) = Process::open(pid) else { continue };
                let _ = process.kill();
                process.ended().await;
            }
        }
        for mount in self.mounts.iter().rev() {
            sys::mount::unmount(mount)?;
        }
        for port in self.ports {
            // Gone already where the pod's network namespace went with its last process.
            if let Err(error) = super::delete_link(&port).await {
                tracing::debug!("{error:#}");
            }
        }
        Ok(())
    }
}

impl fmt::Display for Remains {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Remains { shims, mounts, ports } = self;
        write!(out, "{} containerd shims, {} mounts, {} network interfaces", shims.len(), mounts.len(), ports.len())
    }
}

/// The cluster's cgroup, in the unified hierarchy and in those of version 1.
pub fn cgroups(layout: &Layout) -> Vec<PathBuf> {
    let mount = Path::new("/sys/fs/cgroup");
    let trees = names(mount).into_iter().map(|name| mount.join(name)).chain([mount.to_path_buf()]);
    trees.map(|tree| tree.join(&layout.cgroup_root()[1..])).filter(|dir| dir.is_dir()).collect()
}

/// `containerd-shim-runc-v2 -namespace k8s.io -id ID -address SOCKET`.
fn is_shim(words: &[&[u8]], socket: &Path) -> bool {
    let program = words.first().and_then(|word| word.rsplit(|byte| *byte == b'/').next());
    program.is_some_and(|name| name.starts_with(b"containerd-shim"))
        && words.windows(2).any(|pair| pair == [b"-address".as_slice(), socket.as_os_str().as_encoded_bytes()])
}

/// The processes whose command line `wanted` says yes to.
fn processes(wanted: impl Fn(&[&[u8]]) -> bool) -> Vec<i32> {
    let matches = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        wanted(&line.split(|byte| *byte == 0).collect::<Vec<_>>())
    };
    process_ids().filter(matches).collect()
}

/// Every process with its parent.
fn parents() -> Vec<(i32, i32)> {
    let parent = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything; the state and the parent follow it.
        let parent = stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()?;
        Some((pid, parent))
    };
    process_ids().filter_map(parent).collect()
}

fn descendants(root: i32, parents: &[(i32, i32)]) -> Vec<i32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|(pid, of)| *of == parent && *pid != root).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

fn process_ids() -> impl Iterator<Item = i32> {
    names(Path::new("/proc")).into_iter().filter_map(|name| name.parse().ok())
}

/// The names in a directory; none where there is no such directory.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shim_is_known_by_the_socket_it_serves() {
        let socket = Path::new("/run/knarr/ab12/containerd.sock");
        let line = |text: &'static str| text.split(' ').map(str::as_bytes).collect::<Vec<_>>();
        let shim =
            "/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -id c0ffee -address /run/knarr/ab12/containerd.sock";
        assert!(is_shim(&line(shim), socket));
        assert!(!is_shim(&line(shim), Path::new("/run/containerd/containerd.sock")));
        assert!(!is_shim(&line("ctr -address /run/knarr/ab12/containerd.sock"), socket));
        assert!(!is_shim(&line("containerd-shim-runc-v2"), socket));
    }

    #[test]
    fn descendants_are_found_at_every_depth() {
        let parents = [(1, 0), (5, 1), (6, 5), (7, 6), (8, 1), (9, 5)];
        assert_eq!(descendants(5, &parents), [6, 9, 7]);
        assert_eq!(descendants(8, &parents), Vec::<i32>::new());
    }

    #[test]
    fn this_process_has_a_parent() {
        let us = std::process::id() as i32;
        assert!(parents().contains(&(us, std::os::unix::process::parent_id() as i32)));
    }
}
