//! A directory for one test, removed at its end.

use std::path::{Path, PathBuf};

/// Mounting needs root: a test that mounts fails with that word without.
pub fn needs_root() {
    assert!(rustix::process::geteuid().is_root(), "this test mounts: run it as root");
}

pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("knarr-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl std::ops::Deref for TempDir {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = sys::mount::unmount_below(&self.0);
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
