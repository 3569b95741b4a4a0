//! Reading a container's log file in the CRI format (`TIME STREAM TAGS TEXT`), as `kubectl logs` asks for it.
//!
//! Reads `N.log` and what rotation left of it (`N.log.TIME`, `N.log.TIME.gz`), writes bytes to a channel. `parse` and
//! `Renderer` are pure. Invariant: nothing is held but one chunk and one unfinished line, however long the log is.

mod read;

use jiff::Timestamp;

pub use read::{Request, stream};

/// A line longer than this is cut in two; runtimes write at most 16 KiB.
const MAX_LINE_BYTES: usize = 1 << 20;

/// Which of the container's outputs are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Streams {
    #[default]
    All,
    Stdout,
    Stderr,
}

/// What to show of a log.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only the last lines, as many as this.
    pub tail_lines: Option<u64>,
    /// Nothing older than this.
    pub since: Option<Timestamp>,
    /// Each line starts with its time.
    pub timestamps: bool,
    /// Stop after this many bytes.
    pub limit_bytes: Option<u64>,
    /// Wait for more until the container ends.
    pub follow: bool,
    pub streams: Streams,
}

/// One line of a log file, without its newline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    pub time: Timestamp,
    pub stderr: bool,
    /// The runtime split a long line here: the next one goes on where this ends.
    pub partial: bool,
    pub text: &'a [u8],
}

/// Reads one line; None when it is not in the format.
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let stderr = match parts.next()? {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    let partial = parts.next()?.split(|byte| *byte == b':').next()? == b"P";
    Some(Line { time, stderr, partial, text: parts.next().unwrap_or_default() })
}

/// Turns chunks of a log file into what the user sees.
#[derive(Debug)]
pub struct Renderer {
    options: Options,
    remaining_bytes: u64,
    unfinished: Vec<u8>,
    at_line_start: bool,
}

impl Renderer {
    pub fn new(options: Options) -> Self {
        let remaining_bytes = options.limit_bytes.unwrap_or(u64::MAX);
        Self { options, remaining_bytes, unfinished: Vec::new(), at_line_start: true }
    }

    /// True when `limit_bytes` has been written and nothing more will come.
    pub fn is_full(&self) -> bool {
        self.remaining_bytes == 0
    }

    /// Takes the next bytes of the file, appends what is to be shown to `out`.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        let mut rest = chunk;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            if self.unfinished.is_empty() {
                self.line(&rest[..end], out);
            } else {
                let mut line = std::mem::take(&mut self.unfinished);
                line.extend_from_slice(&rest[..end]);
                self.line(&line, out);
            }
            rest = &rest[end + 1..];
        }
        self.unfinished.extend_from_slice(rest);
        if self.unfinished.len() > MAX_LINE_BYTES {
            self.finish(out);
        }
    }

    /// The file ended: shows a last line that has no newline.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let line = std::mem::take(&mut self.unfinished);
        if !line.is_empty() {
            self.line(&line, out);
        }
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(line) = parse(line) else { return };
        let wanted = match self.options.streams {
            Streams::All => true,
            Streams::Stdout => !line.stderr,
            Streams::Stderr => line.stderr,
        };
        if !wanted || self.options.since.is_some_and(|since| line.time < since) {
            return;
        }
        if self.options.timestamps && self.at_line_start {
            self.emit(format!("{:.9} ", line.time).as_bytes(), out);
        }
        self.emit(line.text, out);
        if !line.partial {
            self.emit(b"\n", out);
        }
        self.at_line_start = !line.partial;
    }

    fn emit(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let count = usize::try_from(self.remaining_bytes).unwrap_or(usize::MAX).min(bytes.len());
        out.extend_from_slice(&bytes[..count]);
        self.remaining_bytes -= count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-11-21T10:00:00.000000001Z stdout F one\n\
        2026-11-21T10:00:01.5Z stderr P tw\n\
        2026-11-21T10:00:01.6Z stderr F o\n\
        garbage\n\
        2026-11-21T10:00:02Z stdout F \n\
        2026-11-21T10:00:03+02:00 stdout F:x early\n\
        2026-11-21T10:00:04Z stdout F last without newline";

    fn render(options: Options, chunk_bytes: usize) -> String {
        let mut renderer = Renderer::new(options);
        let mut out = Vec::new();
        for chunk in LOG.as_bytes().chunks(chunk_bytes) {
            renderer.push(chunk, &mut out);
        }
        renderer.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rendering_does_not_depend_on_chunks() {
        let table: [(Options, &str); 6] = [
            (Options::default(), "one\ntwo\n\nearly\nlast without newline\n"),
            (Options { streams: Streams::Stderr, ..Options::default() }, "two\n"),
            (Options { streams: Streams::Stdout, ..Options::default() }, "one\n\nearly\nlast without newline\n"),
            (
                Options { since: Some("2026-11-21T10:00:02Z".parse().unwrap()), ..Options::default() },
                "\nlast without newline\n",
            ),
            (Options { limit_bytes: Some(6), ..Options::default() }, "one\ntw"),
            (
                Options { timestamps: true, ..Options::default() },
                "2026-11-21T10:00:00.000000001Z one\n2026-11-21T10:00:01.500000000Z two\n2026-11-21T10:00:02.000000000Z \n\
                 2026-11-21T08:00:03.000000000Z early\n2026-11-21T10:00:04.000000000Z last without newline\n",
            ),
        ];
        for (options, expected) in table {
            for chunk_bytes in [1, 7, 64, 4096] {
                assert_eq!(render(options.clone(), chunk_bytes), expected, "{options:?} in chunks of {chunk_bytes}");
            }
        }
    }

    #[test]
    fn lines_not_in_the_format_are_refused() {
        for line in ["", "x", "2026-11-21T10:00:00Z", "2026-11-21T10:00:00Z stdin F x", "yesterday stdout F x"] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn an_endless_line_does_not_grow_without_bound() {
        let mut renderer = Renderer::new(Options::default());
        let mut out = Vec::new();
        for _ in 0..40 {
            renderer.push(&[b'x'; 64 << 10], &mut out);
        }
        assert!(renderer.unfinished.len() <= MAX_LINE_BYTES);
        assert_eq!(out, b"");
    }
}
