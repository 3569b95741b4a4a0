//! Runs `nft` and `conntrack`: applies a text of rules as one transaction, asks whether a table is there, forgets stale flows.
//! Reads and writes the kernel's nftables and connection tracking of one network namespace.
//! Invariant: a text is applied whole or not at all; a run that hangs is killed after a while.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// A full ruleset of ten thousand services takes a few seconds; more than this means that something hangs.
const RUN_MAX: Duration = Duration::from_secs(60);
/// How much of a refused text an error quotes, in lines.
const QUOTED_LINES_MAX: usize = 6;

#[derive(Debug, thiserror::Error)]
pub enum NftError {
    #[error("cannot run {program}: {source}; install the package that has it ({package})")]
    Start { program: String, package: &'static str, source: std::io::Error },
    #[error("{program} did not finish within {} s; it was killed", RUN_MAX.as_secs())]
    Hung { program: String },
    #[error("{program} refused: {message}")]
    Refused { program: String, message: String },
}

/// Where to apply rules: this process's network namespace, or another one.
#[derive(Clone, Debug, Default)]
pub struct Nft {
    namespace: Option<PathBuf>,
}

impl Nft {
    /// The network namespace of this process.
    pub fn new() -> Self {
        Self::default()
    }

    /// A namespace by its file, such as `/run/netns/node-a`. Needs `nsenter`.
    pub fn in_namespace(path: &Path) -> Self {
        Self { namespace: Some(path.to_owned()) }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = match &self.namespace {
            None => Command::new(program),
            Some(path) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", path.display())).arg("--").arg(program);
                command
            }
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    async fn run(&self, program: &str, package: &'static str, args: &[&str], input: &str) -> Result<Output, NftError> {
        let start = |source| NftError::Start { program: program.to_owned(), package, source };
        let mut child = self.command(program).args(args).spawn().map_err(start)?;
        let stdin = child.stdin.take();
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A program that stops reading says why on stderr and by its exit code.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
        };
        let both = async { tokio::join!(feed, child.wait_with_output()).1 };
        match tokio::time::timeout(RUN_MAX, both).await {
            Ok(output) => output.map_err(start),
            Err(_) => Err(NftError::Hung { program: program.to_owned() }),
        }
    }

    /// Applies a text of nft commands as one transaction.
    pub async fn apply(&self, text: &str) -> Result<(), NftError> {
        if text.is_empty() {
            return Ok(());
        }
        let output = self.run("nft", "nftables", &["-f", "-"], text).await?;
        if output.status.success() {
            return Ok(());
        }
        Err(NftError::Refused { program: "nft".to_owned(), message: explain(&output.stderr) })
    }

    /// Whether a chain is there; false when the table is gone too.
    pub async fn has_chain(&self, family: &str, table: &str, chain: &str) -> Result<bool, NftError> {
        let output = self.run("nft", "nftables", &["list", "chain", family, table, chain], "").await?;
        Ok(output.status.success())
    }

    /// Removes a table with all in it; no error if there is none.
    pub async fn delete_table(&self, family: &str, table: &str) -> Result<(), NftError> {
        // Adding first makes the deletion succeed whether or not the table was there.
        self.apply(&format!("add table {family} {table}\ndelete table {family} {table}\n")).await
    }

    /// Deletes tracked flows that match, as `conntrack -D ARGS`. Returns whether the tool was there and ran.
    pub async fn forget_flows(&self, args: &[&str]) -> Result<bool, NftError> {
        let all: Vec<&str> = std::iter::once("-D").chain(args.iter().copied()).collect();
        let output = match self.run("conntrack", "conntrack", &all, "").await {
            Err(NftError::Start { .. }) => return Ok(false),
            other => other?,
        };
        let said = String::from_utf8_lossy(&output.stderr);
        // It fails when nothing matched, and that is fine.
        if output.status.success() || said.contains("0 flow entries") {
            return Ok(true);
        }
        if output.status.code() == Some(127) {
            return Ok(false); // nsenter did not find it
        }
        Err(NftError::Refused { program: "conntrack".to_owned(), message: explain(&output.stderr) })
    }
}

fn explain(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let mut lines: Vec<_> = text.lines().take(QUOTED_LINES_MAX).collect();
    if lines.is_empty() {
        lines.push("it gave no reason");
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_complaints_are_cut() {
        assert_eq!(explain(b""), "it gave no reason");
        assert_eq!(explain(b"a\nb\n"), "a\nb");
        assert_eq!(explain("x\n".repeat(50).as_bytes()).lines().count(), QUOTED_LINES_MAX);
    }
}
