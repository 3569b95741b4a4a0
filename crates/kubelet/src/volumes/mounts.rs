//! From a container's `volumeMounts` to the mounts the runtime is asked for, subPaths included.
//!
//! A subPath is opened without ever leaving the volume, then bound to a place of its own below
//! `pods/UID/volume-subpaths/VOLUME/CONTAINER/INDEX`, so that the runtime mounts exactly what was checked, whatever a
//! container does to the volume meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use cri::v1::{Mount, MountPropagation};
use k8s_openapi::api::core::v1::{Container, VolumeMount};

use super::VolumeError;
use crate::env::expand;

/// A volume that is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    pub path: PathBuf,
    /// Containers never write to it, whatever the mount says.
    pub read_only: bool,
    /// Made by the kubelet, so it may be relabelled.
    pub managed: bool,
}

/// The pod's volumes, set up.
#[derive(Debug, Clone)]
pub struct MountedVolumes {
    pub(super) volumes: BTreeMap<String, Ready>,
    pub(super) subpaths: PathBuf,
}

impl MountedVolumes {
    /// The mounts of one container. `env` is its environment, for subPathExpr.
    pub async fn mounts_for(&self, container: &Container, env: &[(String, String)]) -> Result<Vec<Mount>, VolumeError> {
        let (this, container, env) = (self.clone(), container.clone(), env.to_vec());
        let work = move || {
            let mounts = container.volume_mounts.iter().flatten().enumerate();
            mounts.map(|(index, mount)| this.mount(&container, index, mount, &env)).collect()
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| VolumeError::new("", error.to_string()))?
    }

    /// Where a volume of the pod is, for instance to look at its size.
    pub fn path(&self, volume: &str) -> Option<&Path> {
        self.volumes.get(volume).map(|ready| ready.path.as_path())
    }

    fn mount(
        &self,
        container: &Container,
        index: usize,
        mount: &VolumeMount,
        env: &[(String, String)],
    ) -> Result<Mount, VolumeError> {
        let fail = |message: String| VolumeError::new(&mount.name, message);
        let missing =
            || fail(format!("cannot find volume \"{}\" to mount into container \"{}\"", mount.name, container.name));
        let ready = self.volumes.get(&mount.name).ok_or_else(missing)?;
        let sub_path = sub_path(mount, env).map_err(fail)?;
        let host_path = match sub_path {
            None => ready.path.clone(),
            Some(sub_path) => {
                let target = self.subpaths.join(&mount.name).join(&container.name).join(index.to_string());
                bind_sub_path(&ready.path, Path::new(&sub_path), &target).map_err(|error| {
                    tracing::warn!(volume = mount.name, sub_path, %error, "subPath");
                    fail(format!(
                        "failed to prepare subPath for volumeMount \"{}\" of container \"{}\"",
                        mount.name, container.name
                    ))
                })?;
                target
            }
        };
        let read_only = mount.read_only == Some(true) || ready.read_only;
        let propagation = match mount.mount_propagation.as_deref() {
            Some("Bidirectional") => MountPropagation::PropagationBidirectional,
            Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
            _ => MountPropagation::PropagationPrivate,
        };
        Ok(Mount {
            container_path: Path::new("/").join(&mount.mount_path).display().to_string(),
            host_path: host_path.display().to_string(),
            readonly: read_only,
            selinux_relabel: ready.managed && selinux_enabled(),
            propagation: propagation.into(),
            recursive_read_only: read_only && mount.recursive_read_only.as_deref() == Some("Enabled"),
            ..Mount::default()
        })
    }
}

// Pure: the path below the volume, None for all of it.
fn sub_path(mount: &VolumeMount, env: &[(String, String)]) -> Result<Option<String>, String> {
    let text = match mount.sub_path_expr.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => {
            expand::expand_strict(text, |name| env.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()))?
        }
        None => mount.sub_path.clone().unwrap_or_default(),
    };
    if text.is_empty() {
        return Ok(None);
    }
    if text.starts_with('/') {
        return Err(format!("error SubPath `{text}` must not be an absolute path"));
    }
    if Path::new(&text).components().any(|component| component == Component::ParentDir) {
        return Err(format!("unable to provision SubPath `{text}`: must not contain '..'"));
    }
    Ok(Some(text))
}

fn bind_sub_path(volume: &Path, sub_path: &Path, target: &Path) -> io::Result<()> {
    let root = sys::beneath::open_root(volume).or_else(|error| {
        // A hostPath that nobody made yet, as the runtime would make it.
        if error.kind() == io::ErrorKind::NotFound {
            fs::create_dir_all(volume).and_then(|()| sys::beneath::open_root(volume))
        } else {
            Err(error)
        }
    })?;
    let source = match sys::beneath::open(&root, sub_path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mode = fs::metadata(volume)?.permissions().mode() & 0o7777;
            sys::beneath::make_dirs(&root, sub_path, mode)?
        }
        other => other?,
    };
    if sys::mount::is_mount_point(target)? {
        let there = sys::beneath::open(
            &sys::beneath::open_root(parent(target)?)?,
            Path::new(target.file_name().unwrap_or_default()),
        );
        // Another file has the name by now, for instance because a ConfigMap changed: the new instance gets the new one.
        if there.is_ok_and(|there| matches!((sys::beneath::identity(&there), sys::beneath::identity(&source)), (Ok(a), Ok(b)) if a == b)) {
            return Ok(());
        }
        sys::mount::unmount(target)?;
    }
    fs::create_dir_all(parent(target)?)?;
    let is_dir = sys::beneath::is_dir(&source)?;
    match fs::symlink_metadata(target) {
        Ok(old) if old.is_dir() && !is_dir => fs::remove_dir(target)?,
        Ok(old) if !old.is_dir() && is_dir => fs::remove_file(target)?,
        _ => {}
    }
    if is_dir {
        fs::create_dir_all(target)?;
    } else if !target.exists() {
        fs::write(target, "")?;
    }
    sys::mount::bind_fd(source.as_fd(), target)
}

fn parent(path: &Path) -> io::Result<&Path> {
    path.parent().ok_or_else(|| io::Error::other("a mount target has a parent"))
}

fn selinux_enabled() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{TempDir, needs_root};
    use super::*;

    fn volumes(root: &Path) -> MountedVolumes {
        let ready = |name: &str, read_only| Ready { path: root.join(name), read_only, managed: true };
        let volumes = [("data", false), ("config", true)]
            .into_iter()
            .map(|(name, read_only)| (name.to_owned(), ready(name, read_only)));
        MountedVolumes { volumes: volumes.collect(), subpaths: root.join("subpaths") }
    }

    fn container(mounts: serde_json::Value) -> Container {
        serde_json::from_value(json!({"name": "c", "volumeMounts": mounts})).unwrap()
    }

    #[tokio::test]
    async fn plain_mounts() {
        let mounted = volumes(Path::new("/vol"));
        let mounts = json!([
            {"name": "data", "mountPath": "/data", "mountPropagation": "Bidirectional"},
            {"name": "config", "mountPath": "etc/config"},
            {"name": "data", "mountPath": "/ro", "readOnly": true, "recursiveReadOnly": "Enabled", "mountPropagation": "HostToContainer"},
        ]);
        let found = mounted.mounts_for(&container(mounts), &[]).await.unwrap();
        let wanted = [
            ("/vol/data", "/data", false, false, 2),
            ("/vol/config", "/etc/config", true, false, 0),
            ("/vol/data", "/ro", true, true, 1),
        ];
        assert_eq!(found.len(), wanted.len());
        for (m, wanted) in found.iter().zip(wanted) {
            let seen = (&*m.host_path, &*m.container_path, m.readonly, m.recursive_read_only, m.propagation);
            assert_eq!(seen, wanted);
        }
    }

    #[test]
    fn wrong_mounts_are_named() {
        let mounted = volumes(Path::new("/vol"));
        let env = [("UP".to_owned(), "..".to_owned())];
        let runtime = tokio::runtime::Runtime::new().unwrap();
        golden::check!("mounts.txt", |mount| {
            let container = container(json!([serde_json::from_str::<serde_json::Value>(mount).unwrap()]));
            runtime.block_on(mounted.mounts_for(&container, &env)).unwrap_err().to_string()
        });
    }

    #[test]
    fn sub_paths_are_bound_and_cannot_leave_the_volume() {
        needs_root();
        let dir = TempDir::new("subpath");
        let volume = dir.join("data");
        fs::create_dir(&volume).unwrap();
        fs::write(volume.join("file"), "one").unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("escape")).unwrap();
        let target = dir.join("subpaths/data/c/0");
        bind_sub_path(&volume, Path::new("file"), &target).unwrap();
        bind_sub_path(&volume, Path::new("file"), &target).unwrap();
        assert_eq!(sys::mount::mounts_below(&target).unwrap().len(), 1);
        fs::rename(volume.join("file"), volume.join("old")).unwrap();
        fs::write(volume.join("file"), "two").unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "one");
        bind_sub_path(&volume, Path::new("file"), &target).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "two");
        let made = dir.join("subpaths/data/c/1");
        bind_sub_path(&volume, Path::new("new/deep"), &made).unwrap();
        fs::write(made.join("x"), "").unwrap();
        assert!(volume.join("new/deep/x").exists());
        for path in ["escape", "escape/passwd", "escape/new"] {
            assert!(bind_sub_path(&volume, Path::new(path), &dir.join("subpaths/data/c/2")).is_err(), "{path}");
        }
        assert!(!Path::new("/etc/new").exists());
    }
}
