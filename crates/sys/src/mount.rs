//! Mounts: tmpfs, bind mounts, propagation, and the list of what is mounted.
//!
//! Reads /proc/self/mountinfo, changes the mount table of this process's mount namespace. Every call names the target it
//! failed on. Needs CAP_SYS_ADMIN.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

/// One line of mountinfo, as far as anybody here needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPoint {
    pub path: PathBuf,
    /// File-system type, such as `tmpfs`.
    pub fs_type: String,
    /// True when mounts made below are seen by peers (`shared:N`).
    pub shared: bool,
}

/// Set once the kernel turned `noswap` down: it would log a line each time it is asked.
static SWAPS: AtomicBool = AtomicBool::new(false);

/// Mounts a tmpfs. `size_bytes` 0 leaves the kernel's default of half the memory. Asks for no swapping, and goes without
/// where the kernel (before 6.3) does not know it.
pub fn tmpfs(target: &Path, size_bytes: u64, mode: u32) -> io::Result<()> {
    let mut options = format!("mode={mode:o}");
    if size_bytes > 0 {
        options.push_str(&format!(",size={size_bytes}"));
    }
    let attempt = |options: &str| {
        let data = CString::new(options).expect("mount options have no NUL");
        rustix::mount::mount("tmpfs", target, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(data.as_c_str()))
    };
    if !SWAPS.load(Ordering::Relaxed) && attempt(&format!("{options},noswap")).is_ok() {
        return Ok(());
    }
    attempt(&options)
        .map(|()| SWAPS.store(true, Ordering::Relaxed))
        .map_err(|error| named("mount tmpfs on", target, error))
}

/// Binds `source`, with what is mounted below it, at `target`.
pub fn bind_recursive(source: &Path, target: &Path) -> io::Result<()> {
    rustix::mount::mount_bind_recursive(source, target).map_err(|error| named("bind mount on", target, error))
}

/// Binds an open file or directory (`O_PATH` is enough) at `target`, so that no path is walked again in between.
pub fn bind_fd(source: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    let source = format!("/proc/self/fd/{}", source.as_raw_fd());
    rustix::mount::mount_bind(source.as_str(), target).map_err(|error| named("bind mount on", target, error))
}

/// Makes mounts below `target` propagate to its peers and back.
pub fn make_shared(target: &Path) -> io::Result<()> {
    let flags = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    rustix::mount::mount_change(target, flags).map_err(|error| named("make shared", target, error))
}

/// Unmounts the topmost mount at `target`; one that is busy is detached and goes when its last user does.
pub fn unmount(target: &Path) -> io::Result<()> {
    match rustix::mount::unmount(target, UnmountFlags::NOFOLLOW) {
        Err(rustix::io::Errno::BUSY) => rustix::mount::unmount(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH),
        other => other,
    }
    .map_err(|error| named("unmount", target, error))
}

/// Unmounts everything at or below `root`, innermost first. Returns how many mounts went.
pub fn unmount_below(root: &Path) -> io::Result<usize> {
    let mut mounts = mounts_below(root)?;
    let count = mounts.len();
    while let Some(mount) = mounts.pop() {
        unmount(&mount.path)?;
    }
    Ok(count)
}

/// What is mounted at or below `root`, in the order in which it was mounted.
pub fn mounts_below(root: &Path) -> io::Result<Vec<MountPoint>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?)
        .into_iter()
        .filter(|mount| mount.path.starts_with(root))
        .collect())
}

/// The mount that `path` lives on: the last one mounted among those with the longest prefix.
pub fn mount_of(path: &Path) -> io::Result<Option<MountPoint>> {
    let mounts = parse(&std::fs::read("/proc/self/mountinfo")?);
    Ok(mounts
        .into_iter()
        .filter(|mount| path.starts_with(&mount.path))
        .max_by_key(|mount| mount.path.as_os_str().len()))
}

/// True when something is mounted exactly at `path`.
pub fn is_mount_point(path: &Path) -> io::Result<bool> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?).iter().any(|mount| mount.path == path))
}

fn named(what: &str, target: &Path, error: rustix::io::Errno) -> io::Error {
    let error = io::Error::from(error);
    io::Error::new(error.kind(), format!("{what} {}: {error}", target.display()))
}

fn parse(text: &[u8]) -> Vec<MountPoint> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

// 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
fn parse_line(line: &[u8]) -> Option<MountPoint> {
    let mut fields = line.split(|byte| *byte == b' ');
    let path = unescape(fields.nth(4)?);
    fields.next()?;
    let mut shared = false;
    for tag in fields.by_ref() {
        if tag == b"-" {
            break;
        }
        shared |= tag.starts_with(b"shared:");
    }
    let fs_type = String::from_utf8_lossy(fields.next()?).into_owned();
    Some(MountPoint { path: PathBuf::from(path), fs_type, shared })
}

// The kernel writes space, tab, newline and backslash as \ooo.
fn unescape(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| tail.get(..3)).flatten();
        let code =
            octal.and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|text| u8::from_str_radix(text, 8).ok());
        match code {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines_are_read() {
        let text = b"22 1 0:20 / / rw - ext4 /dev/root rw\n\
            36 22 98:0 /a /with\\040space rw,noatime shared:7 master:1 - tmpfs tmpfs rw,size=4k\n\
            37 36 0:9 / /back\\134slash ro - proc proc rw\nbroken line\n";
        let point =
            |path: &str, fs_type: &str, shared| MountPoint { path: path.into(), fs_type: fs_type.into(), shared };
        assert_eq!(
            parse(text),
            vec![point("/", "ext4", false), point("/with space", "tmpfs", true), point("/back\\slash", "proc", false)]
        );
    }

    #[test]
    fn our_own_root_is_a_mount_point() {
        assert!(is_mount_point(Path::new("/")).unwrap());
        assert!(mount_of(Path::new("/proc/self")).unwrap().is_some_and(|mount| mount.fs_type == "proc"));
    }
}
