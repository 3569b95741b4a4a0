//! How full a file system is. Reads statvfs of a path.

use std::io;
use std::path::Path;

/// Sizes of the file system that holds a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskUsage {
    pub capacity_bytes: u64,
    /// What unprivileged users may still take.
    pub available_bytes: u64,
    pub used_bytes: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

/// Asks the file system that holds `path`.
pub fn usage(path: &Path) -> io::Result<DiskUsage> {
    let stat = rustix::fs::statvfs(path).map_err(|error| {
        let error = io::Error::from(error);
        io::Error::new(error.kind(), format!("statvfs {}: {error}", path.display()))
    })?;
    let unit = if stat.f_frsize > 0 { stat.f_frsize } else { stat.f_bsize };
    Ok(DiskUsage {
        capacity_bytes: stat.f_blocks.saturating_mul(unit),
        available_bytes: stat.f_bavail.saturating_mul(unit),
        used_bytes: stat.f_blocks.saturating_sub(stat.f_bfree).saturating_mul(unit),
        inodes: stat.f_files,
        inodes_free: stat.f_ffree,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_has_a_size() {
        let usage = usage(Path::new("/")).unwrap();
        assert!(usage.capacity_bytes >= usage.used_bytes && usage.capacity_bytes > 0, "{usage:?}");
        assert!(super::usage(Path::new("/no/such/place")).is_err());
    }
}
