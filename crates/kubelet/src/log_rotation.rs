//! Keeping container logs small: moves a log that has grown too large aside, asks the runtime for a new one, compresses
//! older ones and removes the oldest.
//!
//! Reads and writes `N.log*` beside each other. Invariant: at most `log_max_files` files a container, and the current file
//! is always `N.log`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::agent::Agent;
use crate::observed::State;

/// Rotates every log that needs it.
pub async fn run(agent: &Arc<Agent>) {
    for cell in agent.registry.cells() {
        let observed = cell.observed();
        for instance in observed.instances.iter().filter(|instance| instance.state == State::Running) {
            let size = fs::metadata(&instance.log_path).map_or(0, |meta| meta.len());
            if size <= agent.config.log_max_bytes {
                continue;
            }
            if let Err(error) = rotate(agent, &instance.id, &instance.log_path).await {
                tracing::warn!(log = %instance.log_path.display(), %error, "log not rotated");
            }
        }
    }
}

async fn rotate(agent: &Agent, id: &str, log: &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let keep = agent.config.log_max_files.max(2) as usize;
    let log_of = log.to_path_buf();
    tokio::task::spawn_blocking(move || make_room(&log_of, keep)).await??;
    let stamp = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    let aside = with_suffix(log, &stamp);
    fs::rename(log, &aside)?;
    if let Err(error) = agent.cri.container_reopen_log(id).await {
        // back again, or the container would write where nobody looks
        fs::rename(&aside, log)?;
        return Err(error.into());
    }
    Ok(())
}

/// Removes the oldest rotated logs and compresses the rest but the newest, so that one more fits.
fn make_room(log: &Path, keep: usize) -> io::Result<()> {
    let mut rotated = rotated(log)?;
    // the current file and the one it becomes count too
    while rotated.len() > keep.saturating_sub(2) {
        fs::remove_file(rotated.remove(0))?;
    }
    for path in &rotated {
        if path.extension().is_none_or(|extension| extension != "gz") {
            compress(path)?;
        }
    }
    Ok(())
}

/// Rotated logs, oldest first; leftovers of an interrupted compression are removed.
fn rotated(log: &Path) -> io::Result<Vec<PathBuf>> {
    let dir = log.parent().unwrap_or(Path::new("."));
    let prefix = format!("{}.", log.file_name().and_then(|name| name.to_str()).unwrap_or_default());
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with(&prefix) {
            continue;
        }
        if name.ends_with(".tmp") {
            fs::remove_file(entry.path())?;
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn compress(path: &Path) -> io::Result<()> {
    let (tmp, done) = (with_suffix(path, "tmp"), with_suffix(path, "gz"));
    let mut input = fs::File::open(path)?;
    let mut output = flate2::write::GzEncoder::new(fs::File::create(&tmp)?, flate2::Compression::default());
    io::copy(&mut input, &mut output)?;
    output.finish()?;
    fs::rename(&tmp, &done)?;
    fs::remove_file(path)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_so_many() {
        let dir = tempfile::tempdir().expect("temp dir");
        let log = dir.path().join("0.log");
        for name in ["0.log", "0.log.1", "0.log.2.gz", "0.log.3", "0.log.4", "0.log.3.tmp", "1.log"] {
            fs::write(dir.path().join(name), name).expect("write");
        }
        make_room(&log, 4).expect("room");
        let mut names: Vec<String> = fs::read_dir(dir.path())
            .expect("dir")
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(names, ["0.log", "0.log.3.gz", "0.log.4.gz", "1.log"]);
    }
}
