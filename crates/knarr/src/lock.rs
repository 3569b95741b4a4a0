//! One running Knarr a data directory.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};

/// Held for as long as the process runs; the kernel lets go of it however the process ends.
pub struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child that another thread is just starting has it open until it runs its program.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

impl Lock {
    pub fn take(path: &Path) -> Result<Self> {
        let mut file = open(path)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            match pid_in(&mut file) {
                Some(pid) => bail!("Knarr runs already here, as process {pid}: stop it with `knarr down`"),
                None => bail!("Knarr runs already here: stop it with `knarr down`"),
            }
        }
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{}", std::process::id())?;
        Ok(Lock(file))
    }

    /// The process that holds the lock, if any does.
    pub fn holder(path: &Path) -> Result<Option<i32>> {
        if !path.exists() {
            return Ok(None);
        }
        let mut file = open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(None),
            Err(_) => Ok(pid_in(&mut file)),
        }
    }
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))
}

fn pid_in(file: &mut File) -> Option<i32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("lock");
        assert_eq!(Lock::holder(&path).expect("read"), None);
        let lock = Lock::take(&path).expect("free");
        assert_eq!(Lock::holder(&path).expect("read"), Some(std::process::id() as i32));
        let refused = Lock::take(&path).err().expect("held").to_string();
        assert!(refused.contains("knarr down"), "{refused}");
        drop(lock);
        assert_eq!(Lock::holder(&path).expect("read"), None);
    }
}
