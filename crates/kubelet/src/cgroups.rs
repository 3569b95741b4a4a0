//! The cgroups pods live in: `ROOT/kubepods[/burstable|/besteffort]/podUID`, on cgroup v1, v2 and hybrids of them.
//!
//! Writes below its own root only, creates what is missing, removes a pod's when it is gone. Invariant: a cgroup that is
//! not below `ROOT/kubepods` is never written, moved or removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use k8s_openapi::api::core::v1::Pod;

use crate::resources::{self, PodLimits};
use crate::spec::{self, Qos};

/// Where the kernel's cgroup file systems are.
const MOUNT: &str = "/sys/fs/cgroup";

/// The cgroups of one kubelet.
#[derive(Debug, Clone)]
pub struct Cgroups {
    mount: PathBuf,
    /// `/ROOT/kubepods`.
    base: String,
    v2: bool,
    /// What burstable pods request together, as last written.
    burstable_milli: Arc<AtomicI64>,
}

impl Cgroups {
    /// Cgroups below `root` (`/` or `/name`).
    pub fn new(root: &str) -> Cgroups {
        Cgroups::at(PathBuf::from(MOUNT), root)
    }

    fn at(mount: PathBuf, root: &str) -> Cgroups {
        let root = root.trim_end_matches('/');
        let base = format!("{}{root}/kubepods", if root.is_empty() || root.starts_with('/') { "" } else { "/" });
        let v2 = mount.join("cgroup.controllers").exists();
        Cgroups { mount, base, v2, burstable_milli: Arc::new(AtomicI64::new(-1)) }
    }

    /// The machine has cgroup v2 only.
    pub fn is_v2(&self) -> bool {
        self.v2
    }

    /// Swap can be kept from a cgroup: v2, and a kernel that counts it. Asked after [`Cgroups::ensure_base`].
    pub fn can_limit_swap(&self) -> bool {
        self.v2 && self.mount.join(&self.base[1..]).join("memory.swap.max").exists()
    }

    /// What CRI is told as a pod's `cgroup_parent`.
    pub fn pod_parent(&self, pod: &Pod) -> String {
        let class = match spec::qos(pod) {
            Qos::Guaranteed => "",
            Qos::Burstable => "/burstable",
            Qos::BestEffort => "/besteffort",
        };
        format!("{}{class}/pod{}", self.base, spec::uid(pod))
    }

    /// Makes the parents of all pods and tells the kernel how classes share CPU: best effort gets what is left over.
    pub fn ensure_base(&self, cpu_milli: i64, memory_bytes: i64) -> io::Result<()> {
        let node = PodLimits { cpu_shares: resources::shares(cpu_milli), cpu_quota_us: 0, memory_bytes };
        self.apply(&self.base, &node)?;
        for file in ["cpu.weight", "memory.max", "pids.max"].into_iter().filter(|_| self.v2) {
            let path = self.mount.join(&self.base[1..]).join(file);
            if !path.exists() {
                // so it is inside a container whose own processes are in its topmost cgroup
                tracing::warn!(
                    "no {}: what pods may use of it is not limited; see {}/cgroup.subtree_control",
                    path.display(),
                    self.mount.display()
                );
            }
        }
        self.set_burstable(0)?;
        let least = PodLimits { cpu_shares: resources::MIN_SHARES, ..PodLimits::default() };
        self.apply(&format!("{}/besteffort", self.base), &least)
    }

    /// Gives the class of burstable pods the CPU shares of what they request together.
    pub fn set_burstable(&self, milli: i64) -> io::Result<()> {
        if self.burstable_milli.swap(milli, Ordering::Relaxed) == milli {
            return Ok(());
        }
        let limits = PodLimits { cpu_shares: resources::shares(milli), ..PodLimits::default() };
        self.apply(&format!("{}/burstable", self.base), &limits)
    }

    /// Makes a pod's cgroup and sets its limits. Idempotent.
    pub fn ensure_pod(&self, pod: &Pod) -> io::Result<()> {
        self.apply(&self.pod_parent(pod), &resources::for_pod(pod))
    }

    /// Removes a pod's cgroup wherever its class put it. Fails with what the kernel says while processes are in it.
    pub fn remove_pod(&self, uid: &str) -> io::Result<()> {
        if uid.is_empty() || uid.contains('/') {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("\"{uid}\" is no pod uid")));
        }
        for class in ["", "/burstable", "/besteffort"] {
            self.remove(&format!("{}{class}/pod{uid}", self.base))?;
        }
        Ok(())
    }

    /// The uids of the pods that have a cgroup.
    pub fn pods(&self) -> Vec<String> {
        let mut uids = Vec::new();
        for tree in self.trees() {
            for class in ["", "burstable", "besteffort"] {
                let dir = tree.join(&self.base[1..]).join(class);
                let entries = fs::read_dir(dir).into_iter().flatten().flatten();
                let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
                uids.extend(names.filter_map(|name| name.strip_prefix("pod").map(str::to_string)));
            }
        }
        uids.sort();
        uids.dedup();
        uids
    }

    /// Removes the parents too, after the last pod: for a cluster that is taken down. The root goes if it is empty.
    pub fn remove_base(&self) -> io::Result<()> {
        self.remove(&self.base)?;
        let root = self.base.trim_end_matches("/kubepods");
        if !root.is_empty() {
            for tree in self.trees() {
                // a root that others use too stays: only an empty cgroup can be removed
                let _ = fs::remove_dir(tree.join(&root[1..]));
            }
        }
        Ok(())
    }

    /// Every hierarchy in which runtimes make cgroups.
    fn trees(&self) -> Vec<PathBuf> {
        if self.v2 {
            return vec![self.mount.clone()];
        }
        let entries = fs::read_dir(&self.mount).into_iter().flatten().flatten();
        // links such as `cpu -> cpu,cpuacct` name a hierarchy twice
        entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
    }

    fn apply(&self, cgroup: &str, limits: &PodLimits) -> io::Result<()> {
        if self.v2 { self.apply_v2(cgroup, limits) } else { self.apply_v1(cgroup, limits) }
    }

    fn apply_v1(&self, cgroup: &str, limits: &PodLimits) -> io::Result<()> {
        let name = &cgroup[1..];
        let cpu = self.mount.join("cpu");
        if cpu.exists() {
            let dir = cpu.join(name);
            fs::create_dir_all(&dir)?;
            write(&dir.join("cpu.shares"), limits.cpu_shares.max(resources::MIN_SHARES))?;
            // a kernel without CFS bandwidth control has no such file
            if dir.join("cpu.cfs_quota_us").exists() {
                write(&dir.join("cpu.cfs_period_us"), resources::CPU_PERIOD_US)?;
                write(&dir.join("cpu.cfs_quota_us"), if limits.cpu_quota_us > 0 { limits.cpu_quota_us } else { -1 })?;
            }
        }
        let memory = self.mount.join("memory");
        if memory.exists() {
            let dir = memory.join(name);
            fs::create_dir_all(&dir)?;
            let limit = if limits.memory_bytes > 0 { limits.memory_bytes } else { -1 };
            write(&dir.join("memory.limit_in_bytes"), limit)?;
        }
        let pids = self.mount.join("pids");
        if pids.exists() {
            fs::create_dir_all(pids.join(name))?;
        }
        Ok(())
    }

    fn apply_v2(&self, cgroup: &str, limits: &PodLimits) -> io::Result<()> {
        let mut dir = self.mount.clone();
        for part in cgroup[1..].split('/') {
            // a controller is in a child only if the parent hands it on
            for controller in ["cpu", "memory", "pids", "cpuset", "io", "hugetlb"] {
                let handed = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
                if let Err(error) = handed {
                    tracing::debug!(dir = %dir.display(), controller, %error, "controller not handed on");
                }
            }
            dir.push(part);
            fs::create_dir_all(&dir)?;
        }
        if dir.join("cpu.weight").exists() {
            write(&dir.join("cpu.weight"), resources::weight(limits.cpu_shares))?;
            let quota = if limits.cpu_quota_us > 0 { limits.cpu_quota_us.to_string() } else { "max".to_string() };
            fs::write(dir.join("cpu.max"), format!("{quota} {}", resources::CPU_PERIOD_US))?;
        }
        if dir.join("memory.max").exists() {
            let limit = if limits.memory_bytes > 0 { limits.memory_bytes.to_string() } else { "max".to_string() };
            fs::write(dir.join("memory.max"), limit)?;
        }
        Ok(())
    }

    fn remove(&self, cgroup: &str) -> io::Result<()> {
        let mut result = Ok(());
        for tree in self.trees() {
            let dir = tree.join(&cgroup[1..]);
            if dir.exists()
                && let Err(error) = remove_tree(&dir)
            {
                result = Err(error);
            }
        }
        result
    }
}

/// Removes a cgroup and those in it, deepest first. Only directories are removed: the files are the kernel's.
fn remove_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn write(path: &Path, value: i64) -> io::Result<()> {
    fs::write(path, value.to_string())
        .map_err(|error| io::Error::new(error.kind(), format!("write {value} to {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_have_a_place_by_class() {
        let cgroups = Cgroups::at(PathBuf::from("/nowhere"), "/knarr-1/");
        let pod: Pod = serde_json::from_value(json!({"metadata": {"uid": "u1"}, "spec": {"containers": []},
            "status": {"qosClass": "Burstable"}}))
        .expect("pod");
        assert_eq!(cgroups.pod_parent(&pod), "/knarr-1/kubepods/burstable/podu1");
        assert!(cgroups.remove_pod("../x").is_err());
        assert_eq!(Cgroups::at(PathBuf::from("/nowhere"), "/").base, "/kubepods");
    }

    #[test]
    fn version_one_writes_limits_and_removes() {
        let dir = tempfile::tempdir().expect("temp dir");
        for controller in ["cpu", "memory", "pids"] {
            fs::create_dir(dir.path().join(controller)).expect("mkdir");
        }
        let cgroups = Cgroups::at(dir.path().to_path_buf(), "/k");
        let limits = PodLimits { cpu_shares: 512, cpu_quota_us: 50_000, memory_bytes: 1 << 20 };
        cgroups.apply("/k/kubepods/podu", &limits).expect("apply");
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).expect("file");
        assert_eq!(read("cpu/k/kubepods/podu/cpu.shares"), "512");
        assert_eq!(read("memory/k/kubepods/podu/memory.limit_in_bytes"), "1048576");
        assert_eq!(cgroups.pods(), ["u"]);
    }

    #[test]
    fn version_two_hands_controllers_down_and_writes_limits() {
        let dir = tempfile::tempdir().expect("temp dir");
        fs::write(dir.path().join("cgroup.controllers"), "cpu memory").expect("write");
        let pod = dir.path().join("k/kubepods/podu");
        fs::create_dir_all(&pod).expect("mkdir");
        for file in ["cpu.weight", "cpu.max", "memory.max"] {
            fs::write(pod.join(file), "").expect("write");
        }
        let cgroups = Cgroups::at(dir.path().to_path_buf(), "/k");
        assert!(cgroups.is_v2() && !cgroups.can_limit_swap());
        let limits = PodLimits { cpu_shares: 512, cpu_quota_us: 50_000, memory_bytes: 0 };
        cgroups.apply("/k/kubepods/podu", &limits).expect("apply");
        let read = |path: &str| fs::read_to_string(pod.join(path)).expect("file");
        assert_eq!([read("cpu.weight"), read("cpu.max"), read("memory.max")], ["20", "50000 100000", "max"]);
        assert!(pod.with_file_name("cgroup.subtree_control").exists() && !pod.join("cgroup.subtree_control").exists());
        assert_eq!(cgroups.pods(), ["u"]);
    }
}
