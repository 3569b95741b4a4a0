//! `cargo xtask bench`: runs the real binary and prints its numbers, as a table and as JSON.
//!
//! Reads: the `knarr` binary. Writes: the JSON file, and directories below `--dir` that it removes again.
//! Invariant: asserts no time, only that what was measured also happened; ends every process that it started.

#[path = "../../store/tests/support/etcd.rs"]
mod etcd;
mod http;
mod load;
mod process;
mod report;
mod rows;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::report::Report;

/// Prints Knarr's numbers: a table here, JSON in a file. Without ROWS, all of them.
#[derive(Parser)]
#[command(
    name = "bench",
    after_help = "Examples:
  cargo xtask bench                      everything, about five minutes
  cargo xtask bench --quick              everything, short runs
  cargo xtask bench create list watch    only these rows
  cargo xtask bench list memory --pods 100000
  cargo xtask bench create custom --etcd on etcd instead of the embedded store
  cargo xtask bench create list --upstream target/upstream/kube-apiserver"
)]
pub struct Settings {
    /// What to measure
    #[arg(value_name = "ROWS", value_parser = clap::builder::PossibleValuesParser::new(rows::NAMES))]
    rows: Vec<String>,
    /// Short runs and small numbers: to see that it works, not to compare
    #[arg(long)]
    pub quick: bool,
    /// Pods that are listed, and held in memory; with --quick a tenth
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pods: u64,
    /// Watchers that updates are delivered to
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub watchers: u64,
    /// Give each API server an etcd of its own (Debian's etcd-server) instead of the embedded store
    #[arg(long)]
    pub etcd: bool,
    /// Measure this kube-apiserver, on an etcd of its own, in the place of `knarr apiserver`: Go builds it from the module
    /// k8s.io/kubernetes/cmd/kube-apiserver
    #[arg(long, value_name = "FILE")]
    pub upstream: Option<PathBuf>,
    /// The binary to measure
    #[arg(long, default_value = "target/release/knarr", value_name = "FILE")]
    pub knarr: PathBuf,
    /// Where the JSON goes
    #[arg(long, default_value = "target/bench.json", value_name = "FILE")]
    json: PathBuf,
    /// Where clusters and stores are made and removed again; durable writes are as fast as its disk
    #[arg(long, default_value = "target", value_name = "DIR")]
    pub dir: PathBuf,
}

impl Settings {
    /// `full`, or `quick` with --quick.
    pub fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    pub fn pods(&self) -> u64 {
        self.pick(self.pods, self.pods / 10)
    }
}

// One thread: the load shares the machine with what it measures.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let mut settings = Settings::parse();
    let binary = &settings.knarr;
    settings.knarr = binary
        .canonicalize()
        .with_context(|| format!("no {}: `cargo xtask bench` builds it, --knarr names another", binary.display()))?;
    if let Some(file) = &mut settings.upstream {
        let found = file.canonicalize();
        *file = found
            .with_context(|| format!("no {}: build k8s.io/kubernetes/cmd/kube-apiserver with Go", file.display()))?;
    }
    settings.dir = settings.dir.canonicalize().with_context(|| format!("no directory {}", settings.dir.display()))?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut report = Report::begin(&settings.knarr, settings.quick);
    let interrupted = tokio::select! {
        // Dropping the future ends whatever it had started.
        _ = measure(&settings, &mut report) => false,
        _ = interrupt.recv() => true,
        _ = terminate.recv() => true,
    };
    print!("{}", report.table());
    if interrupted {
        bail!("interrupted");
    }
    let path = &settings.json;
    std::fs::write(path, report.json()).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("JSON: {}", path.display());
    report.outcome()
}

async fn measure(settings: &Settings, report: &mut Report) {
    for row in rows::NAMES {
        if !settings.rows.is_empty() && !settings.rows.iter().any(|chosen| chosen == row) {
            continue;
        }
        eprintln!("bench: {row} ...");
        report.enter(row);
        if let Err(error) = rows::run(row, settings, report).await {
            eprintln!("bench: {row} failed: {error:#}");
            report.failed(&format!("{error:#}"));
        }
    }
}
