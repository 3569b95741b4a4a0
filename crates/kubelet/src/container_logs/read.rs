//! The files behind a container's log: where the tail starts, what rotation left, and following what is still written.
//!
//! Reads files, writes chunks to a bounded channel; a reader that goes away ends everything at its next chunk.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use tokio::sync::mpsc::Sender;

use super::{Options, Renderer};

const CHUNK_BYTES: usize = 64 << 10;
/// How soon a follower sees a new line.
const POLL: Duration = Duration::from_millis(150);

pub struct Request {
    /// The current file, such as `.../web/0.log`.
    pub path: PathBuf,
    pub options: Options,
    /// Whether the container still writes; asked while following, at the end of the file.
    pub running: Box<dyn Fn() -> bool + Send + Sync>,
}

/// Sends the log to `sender` until its end, the limit, or the receiver goes away.
pub async fn stream(request: Request, sender: Sender<Bytes>) -> io::Result<()> {
    let Request { path, options, running } = request;
    let follow = options.follow;
    let mut renderer = Renderer::new(options.clone());
    let open = path.clone();
    let output = sender.clone();
    // History is read by one blocking task; the current file's handle comes back at its end.
    let history = tokio::task::spawn_blocking(move || {
        let mut file = File::open(&open)?;
        read_history(&open, &mut file, &options, &mut renderer, &output)?;
        Ok::<_, io::Error>((file, renderer))
    });
    let (file, mut renderer) = history.await.map_err(io::Error::other)??;
    if follow && !renderer.is_full() && !sender.is_closed() {
        follow_file(&path, file, &mut renderer, &sender, running.as_ref()).await?;
    }
    let mut out = Vec::new();
    renderer.finish(&mut out);
    if !out.is_empty() {
        let _ = sender.send(out.into()).await;
    }
    Ok(())
}

fn read_history(
    path: &Path,
    file: &mut File,
    options: &Options,
    renderer: &mut Renderer,
    sender: &Sender<Bytes>,
) -> io::Result<()> {
    let mut missing_lines = options.tail_lines;
    let start = match missing_lines.as_mut() {
        None => 0,
        Some(wanted) => {
            let (start, found) = tail_start(file, *wanted)?;
            *wanted -= found;
            start
        }
    };
    for mut older in plan_rotated(path, file, options, missing_lines)? {
        let lines = older.skip_lines;
        skip_lines(&mut older.reader()?, lines, renderer, sender)?;
    }
    file.seek(SeekFrom::Start(start))?;
    pump(file, renderer, sender)?;
    Ok(())
}

/// A file that rotation left. It is held open: rotation may compress or remove it at any time.
struct Rotated {
    file: File,
    zipped: bool,
    skip_lines: u64,
}

impl Rotated {
    fn open(path: &Path) -> io::Result<Self> {
        let zipped = path.extension().is_some_and(|extension| extension == "gz");
        Ok(Self { file: File::open(path)?, zipped, skip_lines: 0 })
    }

    /// From the file's start.
    fn reader(&mut self) -> io::Result<Box<dyn Read + '_>> {
        self.file.rewind()?;
        Ok(if self.zipped { Box::new(MultiGzDecoder::new(&self.file)) } else { Box::new(&self.file) })
    }
}

// Oldest first. With a tail, only as many files as the tail needs.
fn plan_rotated(
    path: &Path,
    current: &File,
    options: &Options,
    missing_lines: Option<u64>,
) -> io::Result<Vec<Rotated>> {
    let mut files = loop {
        match open_rotated(path, current, options) {
            // Something was compressed or removed between listing and opening; it is listed under its new name.
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.exists() => {}
            other => break other?,
        }
    };
    let Some(mut missing) = missing_lines else { return Ok(files) };
    let mut kept = Vec::new();
    while let (true, Some(mut file)) = (missing > 0, files.pop()) {
        let lines = count_lines(&mut file.reader()?)?;
        file.skip_lines = lines.saturating_sub(missing);
        missing = missing.saturating_sub(lines);
        kept.push(file);
    }
    kept.reverse();
    Ok(kept)
}

fn open_rotated(path: &Path, current: &File, options: &Options) -> io::Result<Vec<Rotated>> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let prefix = format!("{name}.");
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|file| file.starts_with(&prefix) && !file.ends_with(".tmp")) {
            paths.push(entry.path());
        }
    }
    paths.sort();
    // Compression leaves both for a moment: `0.log.TIME` and `0.log.TIME.gz`, which follows it here.
    paths.dedup_by(|zipped, plain| {
        zipped.with_extension("") == *plain && zipped.extension().is_some_and(|end| end == "gz")
    });
    let own = current.metadata()?.ino();
    let mut files = Vec::new();
    for path in paths {
        let rotated = Rotated::open(&path)?;
        let metadata = rotated.file.metadata()?;
        if metadata.ino() != own && options.since.is_none_or(|since| metadata.mtime() >= since.as_second()) {
            files.push(rotated);
        }
    }
    Ok(files)
}

fn count_lines(reader: &mut dyn Read) -> io::Result<u64> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut lines = 0;
    loop {
        let count = reader.read(&mut buffer)?;
        if count == 0 {
            return Ok(lines);
        }
        lines += buffer[..count].iter().filter(|byte| **byte == b'\n').count() as u64;
    }
}

fn skip_lines(
    reader: &mut dyn Read,
    mut lines: u64,
    renderer: &mut Renderer,
    sender: &Sender<Bytes>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    while lines > 0 {
        let count = reader.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        let mut rest = &buffer[..count];
        while lines > 0 {
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { break };
            rest = &rest[end + 1..];
            lines -= 1;
        }
        if lines == 0 {
            send(renderer, rest, sender);
        }
    }
    pump(reader, renderer, sender)
}

fn pump(reader: &mut dyn Read, renderer: &mut Renderer, sender: &Sender<Bytes>) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    while !renderer.is_full() {
        let count = reader.read(&mut buffer)?;
        if count == 0 || !send(renderer, &buffer[..count], sender) {
            break;
        }
    }
    Ok(())
}

// False when nobody listens any more.
fn send(renderer: &mut Renderer, chunk: &[u8], sender: &Sender<Bytes>) -> bool {
    let mut out = Vec::with_capacity(chunk.len());
    renderer.push(chunk, &mut out);
    out.is_empty() || sender.blocking_send(out.into()).is_ok()
}

/// Where the last `lines` lines of a file start, and how many of them it has.
fn tail_start<F: Read + Seek>(file: &mut F, lines: u64) -> io::Result<(u64, u64)> {
    let end = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok((end, 0));
    }
    let mut found = 0;
    let mut position = end;
    let mut buffer = vec![0; CHUNK_BYTES];
    while position > 0 {
        let count = position.min(CHUNK_BYTES as u64);
        position -= count;
        file.seek(SeekFrom::Start(position))?;
        let chunk = &mut buffer[..count as usize];
        file.read_exact(chunk)?;
        for (at, byte) in chunk.iter().enumerate().rev() {
            let offset = position + at as u64;
            // The newline at the very end finishes the last line, it does not start another.
            if *byte == b'\n' && offset + 1 < end {
                found += 1;
                if found == lines {
                    return Ok((offset + 1, lines));
                }
            }
        }
    }
    Ok((0, if end > 0 { found + 1 } else { 0 }))
}

async fn follow_file(
    path: &Path,
    file: File,
    renderer: &mut Renderer,
    sender: &Sender<Bytes>,
    running: &(dyn Fn() -> bool + Send + Sync),
) -> io::Result<()> {
    let mut file = file;
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        // Asked before the read: what was written before the container ended is then surely read below.
        let last_round = !running();
        let rotated =
            std::fs::metadata(path).ok().zip(file.metadata().ok()).is_some_and(|(now, open)| now.ino() != open.ino());
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            let mut out = Vec::with_capacity(count);
            renderer.push(&buffer[..count], &mut out);
            if (!out.is_empty() && sender.send(out.into()).await.is_err()) || renderer.is_full() {
                return Ok(());
            }
        }
        if rotated {
            file = File::open(path)?;
            continue;
        }
        if last_round {
            return Ok(());
        }
        tokio::select! {
            () = sender.closed() => return Ok(()),
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn line(text: &str) -> String {
        format!("2026-11-21T10:00:00Z stdout F {text}\n")
    }

    async fn all(path: &Path, options: Options) -> String {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(4);
        let request = Request { path: path.to_owned(), options, running: Box::new(|| false) };
        let task = tokio::spawn(stream(request, sender));
        let mut out = Vec::new();
        while let Some(chunk) = receiver.recv().await {
            out.extend_from_slice(&chunk);
        }
        task.await.unwrap().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_tail_starts_where_it_should() {
        let table = [
            ("", 3, (0, 0)),
            ("a\nb\nc\n", 0, (6, 0)),
            ("a\nb\nc\n", 1, (4, 1)),
            ("a\nb\nc", 2, (2, 2)),
            ("a\nb\n", 9, (0, 2)),
            ("\n\n", 1, (1, 1)),
        ];
        for (text, lines, expected) in table {
            assert_eq!(tail_start(&mut io::Cursor::new(text.as_bytes()), lines).unwrap(), expected, "{text:?} {lines}");
        }
        let long = "x\n".repeat(CHUNK_BYTES);
        let found = tail_start(&mut io::Cursor::new(long.as_bytes()), 40_000).unwrap();
        assert_eq!(found, (long.len() as u64 - 80_000, 40_000));
    }

    #[tokio::test]
    async fn rotated_files_come_first_and_feed_the_tail() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut zip = flate2::write::GzEncoder::new(
            File::create(dir.path().join("0.log.20261121-090000.gz")).unwrap(),
            flate2::Compression::fast(),
        );
        zip.write_all((line("a") + &line("b")).as_bytes()).unwrap();
        zip.finish().unwrap();
        std::fs::write(dir.path().join("0.log.20261121-093000"), line("c") + &line("d")).unwrap();
        std::fs::write(&path, line("e")).unwrap();
        std::fs::write(dir.path().join("1.log"), line("other")).unwrap();
        assert_eq!(all(&path, Options::default()).await, "a\nb\nc\nd\ne\n");
        for (lines, expected) in [(0, ""), (1, "e\n"), (2, "d\ne\n"), (4, "b\nc\nd\ne\n"), (9, "a\nb\nc\nd\ne\n")] {
            let found = all(&path, Options { tail_lines: Some(lines), ..Options::default() }).await;
            assert_eq!(found, expected, "tail {lines}");
        }
    }

    #[tokio::test]
    async fn a_log_is_whole_while_rotation_compresses_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let (plain, zipped) = (dir.path().join("0.log.20261121-09"), dir.path().join("0.log.20261121-09.gz"));
        std::fs::write(&path, line("b")).unwrap();
        std::fs::write(&plain, line("a")).unwrap();
        let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        zip.write_all(line("a").as_bytes()).unwrap();
        let (bytes, tmp, done) =
            (zip.finish().unwrap(), dir.path().join("0.log.x.tmp"), Arc::new(AtomicBool::new(false)));
        let ended = done.clone();
        let rotation = std::thread::spawn(move || {
            while !ended.load(Ordering::SeqCst) {
                std::fs::write(&tmp, &bytes).unwrap();
                std::fs::rename(&tmp, &zipped).unwrap();
                std::fs::remove_file(&plain).unwrap();
                std::fs::write(&tmp, line("a")).unwrap();
                std::fs::rename(&tmp, &plain).unwrap();
                std::fs::remove_file(&zipped).unwrap();
            }
        });
        for round in 0..300 {
            assert_eq!(all(&path, Options::default()).await, "a\nb\n", "round {round}");
        }
        done.store(true, Ordering::SeqCst);
        rotation.join().unwrap();
    }

    #[tokio::test]
    async fn following_survives_a_rotation_and_ends_with_the_container() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, line("a")).unwrap();
        let running = Arc::new(AtomicBool::new(true));
        let seen = running.clone();
        let (sender, mut receiver) = tokio::sync::mpsc::channel(4);
        let options = Options { follow: true, ..Options::default() };
        let request = Request { path: path.clone(), options, running: Box::new(move || seen.load(Ordering::SeqCst)) };
        let task = tokio::spawn(stream(request, sender));
        assert_eq!(receiver.recv().await.unwrap(), "a\n");
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(line("b").as_bytes()).unwrap();
        assert_eq!(receiver.recv().await.unwrap(), "b\n");
        std::fs::rename(&path, dir.path().join("0.log.20261121-090000")).unwrap();
        file.write_all(line("c").as_bytes()).unwrap();
        std::fs::write(&path, line("d")).unwrap();
        assert_eq!(receiver.recv().await.unwrap(), "c\n");
        assert_eq!(receiver.recv().await.unwrap(), "d\n");
        running.store(false, Ordering::SeqCst);
        assert_eq!(receiver.recv().await, None);
        task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_reader_that_leaves_ends_the_stream() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, line("a")).unwrap();
        let (sender, mut receiver) = tokio::sync::mpsc::channel(4);
        let options = Options { follow: true, ..Options::default() };
        let task = tokio::spawn(stream(Request { path, options, running: Box::new(|| true) }, sender));
        assert!(receiver.recv().await.is_some());
        drop(receiver);
        task.await.unwrap().unwrap();
    }
}
