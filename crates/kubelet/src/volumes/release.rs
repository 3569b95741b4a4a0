//! Letting go of volumes while their pods are down: for a cluster that is stopped and may come up again.
//!
//! Unmounts everything below `DATA_DIR/pods` and removes what setting up again makes anew. Invariant: an emptyDir on disk
//! keeps its content, since its pod stays on the node; nothing outside `DATA_DIR/pods` is touched.

use std::fs;
use std::io;
use std::path::Path;

use super::tear_down;

/// Where emptyDirs lie below a pod's `volumes`.
const EMPTY_DIR: &str = "kubernetes.io~empty-dir";

/// Unmounts the volumes of all pods and tidies up their directories. Their containers must be gone.
pub fn release_all(data_dir: &Path) -> io::Result<()> {
    let pods = data_dir.join("pods");
    // The mount table shows real paths.
    let pods = match pods.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    sys::mount::unmount_below(&pods)?;
    for pod in directories(&pods)? {
        release(&pod)?;
    }
    Ok(())
}

/// Nothing is mounted below any more: secrets and tokens, which were in memory, are gone already.
fn release(pod: &Path) -> io::Result<()> {
    let volumes = pod.join("volumes");
    if !volumes.join(EMPTY_DIR).exists() {
        return tear_down(pod);
    }
    tear_down(&pod.join("volume-subpaths"))?;
    for plugin in directories(&volumes)?.into_iter().filter(|plugin| !plugin.ends_with(EMPTY_DIR)) {
        tear_down(&plugin)?;
    }
    Ok(())
}

fn directories(of: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(of)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::testing::TempDir;
    use super::*;

    #[test]
    fn memory_goes_and_disk_stays() {
        if !fs::metadata("/proc/self").is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0) {
            eprintln!("SKIPPED memory_goes_and_disk_stays: mounting needs root");
            return;
        }
        let dir = TempDir::new("release");
        let volume = |pod: &str, plugin: &str| {
            let path = dir.join("pods").join(pod).join("volumes").join(plugin).join("v");
            fs::create_dir_all(&path).unwrap();
            path
        };
        let disk = volume("a", EMPTY_DIR);
        fs::write(disk.join("kept"), "").unwrap();
        let secret = volume("a", "kubernetes.io~secret");
        let token = volume("b", "kubernetes.io~projected");
        let outside = dir.join("other");
        fs::create_dir(&outside).unwrap();
        for target in [&secret, &token, &outside] {
            sys::mount::tmpfs(target, 0, 0o755).unwrap();
        }
        release_all(&dir.join("pods/..")).unwrap();
        release_all(&dir.join("")).unwrap();
        let still = sys::mount::is_mount_point(&outside).unwrap();
        sys::mount::unmount_below(&outside).unwrap();
        assert!(still, "a mount elsewhere stays");
        assert!(disk.join("kept").exists());
        assert!(!secret.parent().unwrap().exists() && !dir.join("pods/b").exists());
        release_all(&dir.join("nothing")).unwrap();
    }
}
