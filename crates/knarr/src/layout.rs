//! Where a cluster keeps its things: everything follows from the data directory.
//!
//! Durable state lies in the data directory; sockets and what need not outlive a reboot lie in `/run/knarr/ID`, because
//! the path of a socket may have 107 bytes at most. Names that all processes of a machine share (bridge, nft table,
//! cgroup) carry the cluster's ID, so that several clusters run side by side.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// Paths and names of one cluster on this machine.
#[derive(Clone, Debug)]
pub struct Layout {
    pub data_dir: PathBuf,
    /// Eight hexadecimal digits, from the data directory's path.
    pub id: String,
}

impl Layout {
    /// Makes the data directory where it is missing.
    pub fn create(data_dir: &Path) -> Result<Self> {
        let make = |dir: &Path| {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .with_context(|| format!("cannot create {}: choose another place with --data-dir", dir.display()))
        };
        make(data_dir)?;
        let layout = Self::open(data_dir)?;
        make(&layout.run_dir())?;
        Ok(layout)
    }

    /// The layout of a data directory that exists.
    pub fn open(data_dir: &Path) -> Result<Self> {
        let data_dir = data_dir
            .canonicalize()
            .with_context(|| format!("no cluster in {}: `knarr up` makes one", data_dir.display()))?;
        let digest = Sha256::digest(data_dir.as_os_str().as_encoded_bytes());
        let id = digest[..4].iter().map(|b| format!("{b:02x}")).collect();
        Ok(Layout { data_dir, id })
    }

    pub fn run_dir(&self) -> PathBuf {
        Path::new(RUN_ROOT).join(&self.id)
    }

    pub fn containerd_socket(&self) -> PathBuf {
        self.run_dir().join("containerd.sock")
    }

    /// The pods' bridge; names of interfaces have 15 bytes at most.
    pub fn bridge(&self) -> String {
        format!("knr{}", self.id)
    }

    pub fn nft_table(&self) -> String {
        format!("knarr_{}", self.id)
    }

    /// The cgroup below which all pods run.
    pub fn cgroup_root(&self) -> String {
        format!("/knarr-{}", self.id)
    }
}

/// What lies where in the data directory.
macro_rules! in_data_dir {
    ($($(#[$doc:meta])* $name:ident: $path:literal,)*) => {
        impl Layout {
            $($(#[$doc])* pub fn $name(&self) -> PathBuf { self.data_dir.join($path) })*
        }
    };
}

in_data_dir! {
    pki_dir: "pki",
    store_dir: "store",
    kubelet_dir: "kubelet",
    pod_logs_dir: "logs/pods",
    admin_kubeconfig: "admin.kubeconfig",
    /// What a detached Knarr logs.
    log_file: "logs/knarr.log",
    /// Locked by the running Knarr, holding its process ID.
    lock_file: "knarr.lock",
    settings_file: "settings.json",
    containerd_dir: "containerd",
    cni_conf_dir: "cni/net.d",
    cni_state_dir: "cni/ipam",
}

/// The parent of all clusters' run directories.
pub const RUN_ROOT: &str = "/run/knarr";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_their_limits_and_differ_between_clusters() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let open = |name: &str| {
            fs::create_dir(dir.path().join(name)).expect("directory");
            Layout::open(&dir.path().join(name)).expect("layout")
        };
        let (a, b) = (open("a"), open("b"));
        assert_ne!(a.id, b.id);
        assert!(a.bridge().len() <= 15);
        assert!(a.containerd_socket().as_os_str().len() <= 100);
        let missing = Layout::open(&dir.path().join("none")).expect_err("no such directory");
        assert!(missing.to_string().contains("`knarr up` makes one"));
    }
}
