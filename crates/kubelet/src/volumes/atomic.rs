//! Writes the files of a volume so that a reader sees all of the old or all of the new ones.
//!
//! Layout, which programs rely on: real files in `..TIME/`, the link `..data` to it, and one link per first path element
//! (`name -> ..data/name`). Swapping `..data` by rename is the moment of change. Invariant: at every moment each visible
//! name leads to a whole file, and after a crash the next write cleans up.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use super::payload::{File, Payload};

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";
/// What fsGroup adds to files of a volume that is read-only to containers.
const GROUP_READ: u32 = 0o440;
/// What fsGroup adds to its directories: reading, searching and handing the group on.
const GROUP_DIRECTORY: u32 = 0o2550;

/// Makes `directory`, which exists, hold exactly `payload`. Returns whether anything changed.
pub fn write(directory: &Path, payload: &Payload, group: Option<u32>) -> io::Result<bool> {
    for path in payload.keys() {
        validate(path)?;
    }
    if let Some(group) = group {
        own_directory(directory, group)?;
    }
    let old = fs::read_link(directory.join(DATA)).ok().map(|link| directory.join(link));
    if let Some(old) = &old
        && same(old, payload)?
    {
        publish_names(directory, payload)?;
        return Ok(false);
    }
    let name = format!("..{}", jiff::Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S.%9f"));
    let fresh = directory.join(&name);
    fs::create_dir(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    let written = payload.iter().try_for_each(|(path, file)| write_file(&fresh, path, file, group));
    let swapped = written.and_then(|()| {
        if let Some(group) = group {
            own_directory(&fresh, group)?;
        }
        let staged = directory.join(DATA_NEW);
        let _ = fs::remove_file(&staged);
        symlink(&name, &staged)?;
        fs::rename(&staged, directory.join(DATA))
    });
    if let Err(error) = swapped {
        let _ = fs::remove_dir_all(&fresh);
        return Err(error);
    }
    publish_names(directory, payload)?;
    remove_left_overs(directory, &name)?;
    Ok(true)
}

fn validate(path: &str) -> io::Result<()> {
    let error = |text: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path: {text}: {path}")));
    if path.is_empty() {
        return error("must not be empty");
    }
    if path.len() > 4096 {
        return error("must be less than or equal to 4096 characters");
    }
    let mut components = Path::new(path).components();
    if !components.clone().all(|component| matches!(component, Component::Normal(_))) {
        return error("must be relative and must not contain '..'");
    }
    if components.next().is_some_and(|first| first.as_os_str().as_encoded_bytes().starts_with(b"..")) {
        return error("must not start with '..'");
    }
    Ok(())
}

fn write_file(root: &Path, path: &str, file: &File, group: Option<u32>) -> io::Result<()> {
    let target = root.join(path);
    let mut directory = root.to_owned();
    for component in Path::new(path).parent().into_iter().flat_map(Path::components) {
        directory.push(component);
        if !directory.is_dir() {
            fs::create_dir(&directory)?;
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))?;
            group.map_or(Ok(()), |group| own_directory(&directory, group))?;
        }
    }
    let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&target)?;
    out.write_all(&file.data)?;
    if file.user.is_some() || group.is_some() {
        chown(&target, file.user, group)?;
    }
    // After chown, which would take set-id bits away.
    out.set_permissions(fs::Permissions::from_mode(file_mode(file, group)))
}

fn file_mode(file: &File, group: Option<u32>) -> u32 {
    file.mode | if group.is_some() { GROUP_READ } else { 0 }
}

fn own_directory(directory: &Path, group: u32) -> io::Result<()> {
    chown(directory, None, Some(group))?;
    let mode = fs::metadata(directory)?.permissions().mode() & 0o7777;
    fs::set_permissions(directory, fs::Permissions::from_mode(mode | GROUP_DIRECTORY))
}

// What is there already, by content and mode.
fn same(root: &Path, payload: &Payload) -> io::Result<bool> {
    let mut found = BTreeSet::new();
    if !root.is_dir() || !list_files(root, Path::new(""), &mut found)? || found.len() != payload.len() {
        return Ok(false);
    }
    for (path, file) in payload {
        let target = root.join(path);
        // Names may be spelled with `//` or `./`: the file system knows better than a comparison of texts.
        match fs::metadata(&target) {
            Ok(metadata)
                if metadata.len() == file.data.len() as u64
                    && metadata.permissions().mode() & 0o777 & !GROUP_READ == file.mode & 0o777 & !GROUP_READ => {}
            _ => return Ok(false),
        }
        if fs::read(&target)? != file.data {
            return Ok(false);
        }
    }
    Ok(true)
}

fn list_files(root: &Path, below: &Path, found: &mut BTreeSet<PathBuf>) -> io::Result<bool> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            list_files(root, &path, found)?;
        } else {
            found.insert(path);
        }
    }
    Ok(true)
}

// Links for names that are new, none for names that are gone.
fn publish_names(directory: &Path, payload: &Payload) -> io::Result<()> {
    let first = |path: &String| Path::new(path).components().next().map(|component| component.as_os_str().to_owned());
    let wanted: BTreeSet<OsString> = payload.keys().filter_map(first).collect();
    for name in &wanted {
        let link = directory.join(name);
        let target = Path::new(DATA).join(name);
        match fs::read_link(&link) {
            Ok(now) if now == target => {}
            Ok(_) => {
                fs::remove_file(&link)?;
                symlink(&target, &link)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => symlink(&target, &link)?,
            Err(error) => return Err(error),
        }
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if !name.as_encoded_bytes().starts_with(b"..") && !wanted.contains(&name) && entry.file_type()?.is_symlink() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn remove_left_overs(directory: &Path, current: &str) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b"..") && name != current && entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::testing::TempDir;
    use super::*;

    fn payload(files: &[(&str, &str, u32)]) -> Payload {
        let file = |data: &str, mode| File { data: data.as_bytes().to_vec(), mode, user: None };
        files.iter().map(|(path, data, mode)| ((*path).to_owned(), file(data, *mode))).collect()
    }

    // Every visible name with mode and content, and how many hidden directories there are.
    fn show(directory: &Path) -> String {
        let mut lines = Vec::new();
        let mut hidden = 0;
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        for name in names {
            let path = directory.join(&name);
            if name.starts_with("..") {
                hidden += usize::from(!path.is_symlink());
                continue;
            }
            let link = fs::read_link(&path).unwrap();
            let mut found = BTreeSet::new();
            if path.is_dir() {
                list_files(&path, Path::new(""), &mut found).unwrap();
            } else {
                found.insert(PathBuf::new());
            }
            for file in found {
                let full = if file.as_os_str().is_empty() { path.clone() } else { path.join(&file) };
                let mode = fs::metadata(&full).unwrap().permissions().mode() & 0o7777;
                let data = fs::read_to_string(&full).unwrap();
                lines.push(format!("{name} -> {} [{}] {mode:o} {data:?}\n", link.display(), file.display()));
            }
        }
        format!("{}{hidden} hidden\n", lines.concat())
    }

    #[test]
    fn writes_replaces_and_cleans_up() {
        let dir = TempDir::new("atomic");
        assert!(write(&dir, &payload(&[("a", "1", 0o644), ("d/b", "2", 0o400), ("d/e/c", "3", 0o600)]), None).unwrap());
        expect![[r#"
            a -> ..data/a [] 644 "1"
            d -> ..data/d [b] 400 "2"
            d -> ..data/d [e/c] 600 "3"
            1 hidden
        "#]]
        .assert_eq(&show(&dir));
        assert!(
            !write(&dir, &payload(&[("a", "1", 0o644), ("d/b", "2", 0o400), ("d/e/c", "3", 0o600)]), None).unwrap()
        );
        assert!(write(&dir, &payload(&[("a", "9", 0o644), ("n", "new", 0o640)]), None).unwrap());
        fs::create_dir(dir.join("..2020_left_over")).unwrap();
        assert!(write(&dir, &payload(&[("a", "9", 0o600), ("n", "new", 0o640)]), None).unwrap());
        expect![[r#"
            a -> ..data/a [] 600 "9"
            n -> ..data/n [] 640 "new"
            1 hidden
        "#]]
        .assert_eq(&show(&dir));
        assert!(write(&dir, &Payload::new(), None).unwrap());
        assert!(!write(&dir, &Payload::new(), None).unwrap());
        assert_eq!(show(&dir), "1 hidden\n");
    }

    #[test]
    fn a_reader_always_finds_a_whole_file() {
        let dir = TempDir::new("atomic-reader");
        let text = |round: usize| format!("{round}").repeat(1000);
        write(&dir, &payload(&[("f", &text(0), 0o644)]), None).unwrap();
        let path = dir.join("f");
        let reader = std::thread::spawn(move || {
            for _ in 0..2000 {
                // Between the link and the file the old directory may go: then the reader looks again, as with upstream.
                let data = match fs::read(&path) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                    data => data.unwrap(),
                };
                assert!(data.iter().all(|byte| *byte == data[0]) && data.len() == 1000);
            }
        });
        for round in 0..200 {
            write(&dir, &payload(&[("f", &text(round % 10), 0o644)]), None).unwrap();
        }
        reader.join().unwrap();
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        let dir = TempDir::new("atomic-paths");
        for path in ["", "/abs", "a/../../b", "..data", "../x", "..x/y", &"x".repeat(5000)] {
            let error = write(&dir, &payload(&[(path, "", 0o644)]), None).unwrap_err();
            assert!(error.to_string().starts_with("invalid path: "), "{path}: {error}");
        }
        assert!(write(&dir, &payload(&[("a/..b", "", 0o644)]), None).unwrap());
    }

    #[test]
    fn the_group_gets_to_read() {
        use std::os::unix::fs::MetadataExt;
        let dir = TempDir::new("atomic-group");
        let group = fs::metadata(&*dir).unwrap().gid();
        write(&dir, &payload(&[("d/f", "x", 0o600)]), Some(group)).unwrap();
        let mode = |path: &str| fs::metadata(dir.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("d/f"), mode("d"), mode("..data")), (0o640, 0o2755, 0o2755));
    }
}
