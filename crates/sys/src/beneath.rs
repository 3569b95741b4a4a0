//! Opening and making paths inside a directory that somebody hostile may be changing at the same time.
//!
//! Everything goes through openat2 with RESOLVE_BENEATH: no `..`, symbolic link or magic link leads out of the root, however
//! the tree changes meanwhile. Links that stay inside are followed.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// The kernel answers EAGAIN when a rename raced with the walk; it is asked again this often.
const ATTEMPTS: usize = 64;

/// Opens the directory `path` itself, following links: it is the trusted root of what follows.
pub fn open_root(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens whatever is at `relative` below `root` for naming only (`O_PATH`).
pub fn open(root: &OwnedFd, relative: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut attempts = 0;
    loop {
        match rustix::fs::openat2(root, relative, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) if attempts < ATTEMPTS => attempts += 1,
            other => return Ok(other?),
        }
    }
}

/// Opens the directory `relative` below `root`, making the missing ones with exactly `mode`. Fails with `InvalidInput`
/// when `relative` holds anything but plain names.
pub fn make_dirs(root: &OwnedFd, relative: &Path, mode: u32) -> io::Result<OwnedFd> {
    let mut current = open(root, Path::new("."))?;
    let mut walked = std::path::PathBuf::new();
    for component in relative.components() {
        let name = match component {
            Component::Normal(name) => name,
            Component::CurDir => continue,
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("{} leads out of its directory", relative.display()),
                ));
            }
        };
        walked.push(name);
        current = match open(root, &walked) {
            Ok(next) => next,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match rustix::fs::mkdirat(&current, name, Mode::from_raw_mode(mode)) {
                    // The mode is set again because mkdir takes the umask away from it.
                    Ok(()) => {
                        rustix::fs::chmodat(&current, name, Mode::from_raw_mode(mode), rustix::fs::AtFlags::empty())?
                    }
                    Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                open(root, &walked)?
            }
            Err(error) => return Err(error),
        };
    }
    Ok(current)
}

/// Device and inode of an open file, to tell whether two names mean the same thing.
pub fn identity(file: &OwnedFd) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(file)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// True when the open file is a directory.
pub fn is_dir(file: &OwnedFd) -> io::Result<bool> {
    Ok(rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode).is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(std::path::PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("knarr-beneath-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn links_out_are_refused_and_links_inside_followed() {
        let dir = Dir::new("links");
        std::fs::create_dir(dir.0.join("real")).unwrap();
        std::fs::write(dir.0.join("real/file"), "x").unwrap();
        std::os::unix::fs::symlink("real", dir.0.join("inside")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.0.join("absolute")).unwrap();
        std::os::unix::fs::symlink("../..", dir.0.join("up")).unwrap();
        let root = open_root(&dir.0).unwrap();
        let table = [
            ("real/file", true),
            ("inside/file", true),
            ("absolute/passwd", false),
            ("up", false),
            ("../x", false),
            ("/etc", false),
        ];
        for (path, opens) in table {
            assert_eq!(open(&root, Path::new(path)).is_ok(), opens, "{path}");
        }
        assert!(make_dirs(&root, Path::new("absolute/made"), 0o755).is_err());
        assert!(make_dirs(&root, Path::new("a/../../b"), 0o755).is_err());
    }

    #[test]
    fn missing_directories_are_made_with_the_mode_asked_for() {
        use std::os::unix::fs::PermissionsExt;
        let dir = Dir::new("make");
        let root = open_root(&dir.0).unwrap();
        let made = make_dirs(&root, Path::new("a/./b"), 0o777).unwrap();
        assert!(is_dir(&made).unwrap());
        assert_eq!(std::fs::metadata(dir.0.join("a/b")).unwrap().permissions().mode() & 0o7777, 0o777);
        assert_eq!(identity(&made).unwrap(), identity(&open(&root, Path::new("a/b")).unwrap()).unwrap());
    }
}
