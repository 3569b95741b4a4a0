//! hostPath volumes: checks or makes what `type` asks for. Reads and, for the `OrCreate` types, writes the host's file system.

use std::fs;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Makes sure that `path` is what `kind` says. Error texts are upstream's.
pub fn set_up(path: &Path, kind: &str) -> Result<(), String> {
    let metadata = fs::metadata(path);
    let shown = path.display();
    let failed = |what: &str| Err(format!("hostPath type check failed: {shown} is not {what}"));
    let is = |check: fn(&fs::FileType) -> bool| metadata.as_ref().is_ok_and(|metadata| check(&metadata.file_type()));
    match kind {
        "" => Ok(()),
        "DirectoryOrCreate" if metadata.is_err() => {
            make_directory(path).map_err(|error| format!("mkdir {shown}: {error}"))
        }
        "FileOrCreate" if metadata.is_err() => make_file(path).map_err(|error| format!("open {shown}: {error}")),
        "DirectoryOrCreate" | "Directory" if is(fs::FileType::is_dir) => Ok(()),
        "FileOrCreate" | "File" if is(fs::FileType::is_file) => Ok(()),
        "Socket" if is(|file| file.is_socket()) => Ok(()),
        "CharDevice" if is(|file| file.is_char_device()) => Ok(()),
        "BlockDevice" if is(|file| file.is_block_device()) => Ok(()),
        "DirectoryOrCreate" | "Directory" => failed("a directory"),
        "FileOrCreate" | "File" => failed("a file"),
        "Socket" => failed("a socket file"),
        "CharDevice" => failed("a character device"),
        "BlockDevice" => failed("a block device"),
        other => Err(format!("{other} is an invalid volume type")),
    }
}

fn make_directory(path: &Path) -> std::io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

fn make_file(path: &Path) -> std::io::Result<()> {
    fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path).map(drop)
}

#[cfg(test)]
mod tests {
    use super::super::testing::TempDir;
    use super::*;

    #[test]
    fn every_type() {
        let dir = TempDir::new("host-path");
        fs::write(dir.join("file"), "").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.join("sock")).unwrap();
        let fail = |path: &str, what: &str| Err(format!("hostPath type check failed: {path} is not {what}"));
        let at = |name: &str| dir.join(name).display().to_string();
        let table = [
            (at("none"), "", Ok(())),
            (at("."), "Directory", Ok(())),
            (at("none"), "Directory", fail(&at("none"), "a directory")),
            (at("file"), "Directory", fail(&at("file"), "a directory")),
            (at("file"), "File", Ok(())),
            (at("."), "File", fail(&at("."), "a file")),
            (at("sock"), "Socket", Ok(())),
            (at("file"), "Socket", fail(&at("file"), "a socket file")),
            ("/dev/null".to_owned(), "CharDevice", Ok(())),
            ("/dev/null".to_owned(), "BlockDevice", fail("/dev/null", "a block device")),
            (at("made/deep"), "DirectoryOrCreate", Ok(())),
            (at("made/deep"), "DirectoryOrCreate", Ok(())),
            (at("made/deep/new"), "FileOrCreate", Ok(())),
            (at("made/deep/new"), "FileOrCreate", Ok(())),
            (at("made/deep/new"), "DirectoryOrCreate", fail(&at("made/deep/new"), "a directory")),
        ];
        for (path, kind, expected) in table {
            assert_eq!(set_up(Path::new(&path), kind), expected, "{path} {kind}");
        }
        assert!(dir.join("made/deep/new").is_file());
    }
}
