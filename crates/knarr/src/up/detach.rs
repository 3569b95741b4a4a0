//! `knarr up --detach`: starts `knarr up` as a process of its own, shows its progress, and returns once it is ready.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::layout::Layout;
use crate::progress::READY_MARK;

/// A log larger than this is begun anew.
const LOG_MAX_BYTES: u64 = 64 << 20;
/// How much of the log's end an error shows.
const TAIL_BYTES: u64 = 2048;

/// Runs this very command again without `--detach`; answers when it is ready, or with why it ended.
pub fn run(layout: &Layout, arguments: impl Iterator<Item = std::ffi::OsString>) -> Result<()> {
    let path = layout.log_file();
    fs::create_dir_all(layout.data_dir.join("logs"))?;
    if fs::metadata(&path).is_ok_and(|m| m.len() > LOG_MAX_BYTES) {
        fs::rename(&path, path.with_extension("log.1"))?;
    }
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
    let began_at = log.metadata()?.len();
    let mut child = Command::new(std::env::current_exe().context("cannot find the knarr binary")?)
        .args(arguments.filter(|argument| argument != "--detach" && argument != "-d"))
        .env("KNARR_DETACHED", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .process_group(0) // a Ctrl-C at our terminal is not for it
        .spawn()
        .context("cannot start Knarr in the background")?;
    let output = child.stdout.take().context("the background process has no output")?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        if line == READY_MARK {
            return Ok(());
        }
        println!("{line}");
    }
    let status = child.wait()?;
    let mut tail = String::new();
    let mut log = fs::File::open(&path)?;
    let end = log.metadata()?.len();
    log.seek(SeekFrom::Start(began_at.max(end.saturating_sub(TAIL_BYTES))))?;
    log.read_to_string(&mut tail).unwrap_or_default();
    bail!("the cluster did not come up ({status}); the end of {}:\n{}", path.display(), tail.trim_end())
}
