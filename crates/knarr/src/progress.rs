//! What the terminal shows while a cluster comes up: which part, and how long it took.
//!
//! Written to standard output, one line a part. A reader that went away (a detaching parent) is no reason to stop, so
//! failures to write are ignored.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

pub struct Progress {
    began: Instant,
    colour: bool,
}

/// The line a detached child ends its progress with, for its parent.
pub const READY_MARK: &str = "\u{4}ready";

impl Progress {
    pub fn begin() -> Self {
        Progress { began: Instant::now(), colour: std::io::stdout().is_terminal() }
    }

    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub fn line(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{text}");
        let _ = out.flush();
    }

    /// A part is up; `detail` says where it is found.
    pub fn done(&self, part: &str, detail: &str, took: Duration) {
        let (green, plain) = if self.colour { ("\x1b[32m", "\x1b[0m") } else { ("", "") };
        let seconds = took.as_secs_f64();
        let line = format!("  {green}✓{plain} {part:<22} {seconds:>6.2} s  {detail}");
        self.line(line.trim_end());
    }
}
