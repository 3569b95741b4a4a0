//! emptyDir volumes: a directory of the pod's own, on disk or in memory.
//!
//! Writes below the pod's directory. Invariant: what a container wrote stays until the pod goes; setting up again, also
//! after the kubelet was restarted, changes nothing.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod};
use meta::quantity::Quantity;

use crate::pods::Allocatable;

/// Permission bits and group that fsGroup gives to a directory containers may write to.
const GROUP_DIRECTORY: u32 = 0o2770;

/// What to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// In memory, with at most so many bytes (0: the kernel's default).
    pub tmpfs_bytes: Option<u64>,
    pub mode: u32,
    pub group: Option<u32>,
    /// Mounts below must be seen by others: the directory has to be a shared mount itself.
    pub propagates: bool,
}

/// Pure: what an emptyDir of this pod is to be.
pub fn plan(pod: &Pod, volume: &str, source: &EmptyDirVolumeSource, allocatable: &Allocatable) -> Result<Plan, String> {
    let spec = pod.spec.as_ref();
    let group =
        spec.and_then(|spec| spec.security_context.as_ref()?.fs_group).and_then(|group| u32::try_from(group).ok());
    let in_memory = match source.medium.as_deref().unwrap_or_default() {
        "" => false,
        "Memory" => true,
        medium if medium.starts_with("HugePages") => {
            return Err(format!("emptyDir medium {medium} is not supported yet; use Memory instead"));
        }
        medium => return Err(format!("unknown storage medium \"{medium}\"")),
    };
    let mounts = spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    let propagates = mounts.flat_map(|container| container.volume_mounts.iter().flatten()).any(|mount| {
        mount.name == volume && matches!(mount.mount_propagation.as_deref(), Some("Bidirectional" | "HostToContainer"))
    });
    let tmpfs_bytes = in_memory.then(|| size(pod, source, allocatable)).transpose()?;
    // A tmpfs comes with the sticky bit, a directory without.
    let mode = source.mode.map_or(if in_memory { 0o1777 } else { 0o777 }, |mode| mode as u32);
    Ok(Plan { tmpfs_bytes, mode, group, propagates })
}

// The smallest of the node's memory, the pod's memory limit and sizeLimit.
fn size(pod: &Pod, source: &EmptyDirVolumeSource, allocatable: &Allocatable) -> Result<u64, String> {
    let bytes = |text: &str| {
        Quantity::parse(text)
            .map(|amount| amount.value().max(0) as u64)
            .map_err(|_| format!("{text} is not a quantity"))
    };
    let mut size = allocatable.get("memory").map_or(Ok(0), |amount| bytes(&amount.0))?;
    let (mut running, mut peak) = (0u64, 0u64);
    let spec = pod.spec.as_ref();
    let limit = |container: &k8s_openapi::api::core::v1::Container| {
        let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
        limits.and_then(|limits| limits.get("memory")).map_or(Ok(0), |amount| bytes(&amount.0))
    };
    for container in spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten()) {
        let own = limit(container)?;
        if container.restart_policy.as_deref() == Some("Always") {
            running += own;
        }
        peak = peak.max(own);
    }
    for container in spec.into_iter().flat_map(|spec| &spec.containers) {
        running += limit(container)?;
    }
    for bound in [running.max(peak), source.size_limit.as_ref().map_or(Ok(0), |amount| bytes(&amount.0))?] {
        if bound > 0 && (size == 0 || bound < size) {
            size = bound;
        }
    }
    Ok(size)
}

/// Makes the directory. `ready` is a file that remembers that it was made.
pub fn set_up(directory: &Path, ready: &Path, plan: &Plan) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mounted = sys::mount::is_mount_point(directory)?;
    match plan.tmpfs_bytes {
        Some(bytes) if !mounted => sys::mount::tmpfs(directory, bytes, plan.mode)?,
        None if ready.exists() => return share(directory, plan, mounted),
        Some(_) => return Ok(()),
        None => fs::set_permissions(directory, fs::Permissions::from_mode(plan.mode))?,
    }
    share(directory, plan, mounted)?;
    if let Some(group) = plan.group {
        chown(directory, None, Some(group))?;
        let mode = fs::metadata(directory)?.permissions().mode() & 0o7777;
        fs::set_permissions(directory, fs::Permissions::from_mode(mode | GROUP_DIRECTORY))?;
    }
    if let Some(parent) = ready.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(ready, "")
}

fn share(directory: &Path, plan: &Plan, mounted: bool) -> io::Result<()> {
    if !plan.propagates || sys::mount::mount_of(directory)?.is_some_and(|mount| mount.shared) {
        return Ok(());
    }
    if !mounted && plan.tmpfs_bytes.is_none() {
        sys::mount::bind_recursive(directory, directory)?;
    }
    sys::mount::make_shared(directory)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
    use serde_json::json;

    use super::*;

    fn planned(spec: serde_json::Value, source: serde_json::Value) -> Result<Plan, String> {
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
        let allocatable: Allocatable = Arc::new(BTreeMap::from([("memory".to_owned(), ApiQuantity("1Gi".into()))]));
        plan(&pod, "v", &serde_json::from_value(source).unwrap(), &allocatable)
    }

    #[test]
    fn plans() {
        let limited = json!({"containers": [{"name": "a", "resources": {"limits": {"memory": "1Mi"}}}, {"name": "b", "resources": {"limits": {"memory": "2Mi"}}}]});
        let plain = json!({"containers": [{"name": "a"}]});
        let sharing = json!({
            "securityContext": {"fsGroup": 12},
            "containers": [{"name": "a", "volumeMounts": [{"name": "v", "mountPath": "/v", "mountPropagation": "Bidirectional"}]}],
        });
        let disk = Plan { tmpfs_bytes: None, mode: 0o777, group: None, propagates: false };
        let memory = |bytes| Plan { tmpfs_bytes: Some(bytes), mode: 0o1777, ..disk.clone() };
        let table = [
            (&plain, json!({}), Ok(disk.clone())),
            (&plain, json!({"mode": 0o750}), Ok(Plan { mode: 0o750, ..disk.clone() })),
            (&plain, json!({"medium": "Memory"}), Ok(memory(1 << 30))),
            (&plain, json!({"medium": "Memory", "sizeLimit": "64Ki"}), Ok(memory(64 << 10))),
            (&limited, json!({"medium": "Memory"}), Ok(memory(3 << 20))),
            (&limited, json!({"medium": "Memory", "sizeLimit": "1Gi"}), Ok(memory(3 << 20))),
            (&sharing, json!({}), Ok(Plan { group: Some(12), propagates: true, ..disk.clone() })),
            (&plain, json!({"medium": "Disk"}), Err("unknown storage medium \"Disk\"".to_owned())),
        ];
        for (spec, source, expected) in table {
            assert_eq!(planned(spec.clone(), source.clone()), expected, "{source}");
        }
    }

    #[test]
    fn on_disk_nothing_is_lost_by_a_second_set_up() {
        let dir = TempDirs::new("empty-dir");
        let plan = Plan { tmpfs_bytes: None, mode: 0o777, group: None, propagates: false };
        set_up(&dir.volume, &dir.ready, &plan).unwrap();
        fs::write(dir.volume.join("kept"), "x").unwrap();
        fs::set_permissions(&dir.volume, fs::Permissions::from_mode(0o700)).unwrap();
        set_up(&dir.volume, &dir.ready, &plan).unwrap();
        assert_eq!(fs::metadata(&dir.volume).unwrap().permissions().mode() & 0o7777, 0o700);
        assert!(dir.volume.join("kept").exists());
    }

    struct TempDirs {
        _root: super::super::testing::TempDir,
        volume: std::path::PathBuf,
        ready: std::path::PathBuf,
    }

    impl TempDirs {
        fn new(name: &str) -> Self {
            let root = super::super::testing::TempDir::new(name);
            Self { volume: root.join("volume"), ready: root.join("plugin/ready"), _root: root }
        }
    }

    #[test]
    fn in_memory_needs_root() {
        super::super::testing::needs_root();
        let dir = TempDirs::new("empty-dir-memory");
        let plan = Plan { tmpfs_bytes: Some(1 << 20), mode: 0o1777, group: Some(7), propagates: true };
        set_up(&dir.volume, &dir.ready, &plan).unwrap();
        fs::write(dir.volume.join("kept"), "x").unwrap();
        set_up(&dir.volume, &dir.ready, &plan).unwrap();
        assert!(dir.volume.join("kept").exists());
        assert_eq!(fs::metadata(&dir.volume).unwrap().permissions().mode() & 0o7777, 0o3777);
        let mount = sys::mount::mount_of(&dir.volume).unwrap().unwrap();
        assert_eq!((mount.fs_type.as_str(), mount.shared), ("tmpfs", true));
        assert_eq!(fs::write(dir.volume.join("big"), vec![0; 2 << 20]).unwrap_err().kind(), io::ErrorKind::StorageFull);
        sys::mount::unmount_below(&dir.volume).unwrap();
        assert!(!dir.volume.join("kept").exists());
    }
}
