//! The file that audit events go to, a line each: begun anew when it is full, old ones removed.
//!
//! Writes: the file, of mode 0600, and beside it `NAME-TIME.EXT` of those that were full. Invariant: a line is written
//! whole, and before its request is answered.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

/// Where events go. Source: the flags `--audit-log-*` of kube-apiserver.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `-` is the standard output.
    pub path: PathBuf,
    pub max_size_mib: u64,
    /// How many old files are kept; 0 keeps all.
    pub max_backups: usize,
    /// How long old files are kept; 0 keeps them for ever.
    pub max_age_days: u64,
}

pub struct Log {
    settings: Settings,
    to: Mutex<Sink>,
}

enum Sink {
    Stdout,
    File { file: File, len_bytes: u64 },
}

impl Log {
    pub fn open(settings: Settings) -> io::Result<Log> {
        let to = match settings.path.as_os_str() == "-" {
            true => Sink::Stdout,
            false => open(&settings.path)?,
        };
        Ok(Log { settings, to: Mutex::new(to) })
    }

    pub fn write(&self, line: &[u8]) -> io::Result<()> {
        let mut to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        if let Sink::File { len_bytes, .. } = &*to
            && *len_bytes + line.len() as u64 > self.settings.max_size_mib << 20
            && *len_bytes > 0
        {
            *to = self.begin_anew()?;
        }
        match &mut *to {
            Sink::Stdout => io::stdout().lock().write_all(line),
            Sink::File { file, len_bytes } => {
                file.write_all(line)?;
                *len_bytes += line.len() as u64;
                Ok(())
            }
        }
    }

    fn begin_anew(&self) -> io::Result<Sink> {
        let path = &self.settings.path;
        let mut time = Timestamp::now();
        let backup = loop {
            let name = self.backup_name(&time.strftime("%Y-%m-%dT%H-%M-%S.%3f").to_string());
            let backup = path.with_file_name(name);
            if !backup.exists() {
                break backup;
            }
            time += Duration::from_millis(1);
        };
        fs::rename(path, backup)?;
        let sink = open(path)?;
        if let Err(error) = self.remove_old() {
            tracing::warn!("old audit logs beside {} were not removed: {error}", path.display());
        }
        Ok(sink)
    }

    fn backup_name(&self, time: &str) -> String {
        let part = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let (stem, extension) = (part(self.settings.path.file_stem()), part(self.settings.path.extension()));
        format!("{stem}-{time}{}{extension}", if extension.is_empty() { "" } else { "." })
    }

    fn remove_old(&self) -> io::Result<()> {
        let dir = self.settings.path.parent().unwrap_or(Path::new("."));
        let (before, after) =
            self.backup_name("\0").split_once('\0').map(|(a, b)| (a.to_string(), b.to_string())).unwrap_or_default();
        let mut old = Vec::new();
        for entry in fs::read_dir(dir)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let time = name.strip_prefix(&before).and_then(|rest| rest.strip_suffix(&after));
            if time.is_some_and(|t| t.len() == 23 && t.starts_with(|c: char| c.is_ascii_digit())) {
                old.push((name, entry));
            }
        }
        old.sort_by(|(a, _), (b, _)| b.cmp(a));
        let (keep, days) = (self.settings.max_backups, self.settings.max_age_days);
        let oldest = SystemTime::now().checked_sub(Duration::from_secs(days * 86400));
        for (i, (_, entry)) in old.iter().enumerate() {
            let is_old = days > 0
                && oldest.is_some_and(|oldest| entry.metadata().and_then(|m| m.modified()).is_ok_and(|t| t < oldest));
            if is_old || (keep > 0 && i >= keep) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<Sink> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let len_bytes = file.metadata()?.len();
    Ok(Sink::File { file, len_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_begun_anew_and_old_ones_go() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("audit.log");
        let settings = Settings { path: path.clone(), max_size_mib: 1, max_backups: 2, max_age_days: 0 };
        fs::write(dir.path().join("audit-mine.log"), "not ours").expect("written");
        let log = Log::open(settings).expect("opened");
        let line = [&[b'x'; 700 << 10][..], b"\n"].concat();
        for _ in 0..5 {
            log.write(&line).expect("written");
        }
        let mut names: Vec<String> =
            fs::read_dir(dir.path()).expect("read").flatten().map(|e| e.file_name().to_string_lossy().into()).collect();
        names.sort();
        assert_eq!(names.len(), 4, "{names:?}");
        assert!(names.contains(&"audit.log".to_string()) && names.contains(&"audit-mine.log".to_string()));
        assert_eq!(fs::metadata(&path).expect("there").len() as usize, line.len());
    }
}
