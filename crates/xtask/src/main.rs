//! Developer commands: `cargo xtask up`, `test`, `bench`, `guest`, `conformance`, `upstream`, `fuzz`. Few dependencies, so
//! that it is built in a moment.

mod conformance;
mod fuzz;
mod guest;
mod packages;
mod tools;
mod upstream;

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};

const HELP: &str = "\
Usage: cargo xtask COMMAND

  up [FLAGS]      build Knarr (release), install the host packages it needs, and run `knarr up FLAGS`
  test [FILTER]   install what the tests need, then run all of them: format, lints, unit, integration, end to end
  bench [FLAGS]   build Knarr (release) and print its numbers as a table and as JSON (target/bench.json)
  guest [FLAGS]   boot Debian with systemd and cgroup v2 in QEMU and check a cluster in it; slow, not part of test
  conformance [FLAGS]
                  run upstream's conformance tests against a fresh cluster and write docs/conformance.md (--help)
  upstream [FILE...]
                  ask upstream's kube-apiserver what the tests of ours ask, and let both share an etcd (--help)
  fuzz TARGET [--seconds N]
                  throw mutated input at a part of the API server (codec, patches, selectors, cel, schemas)

Examples:
  cargo xtask up --detach
  cargo xtask test
  cargo xtask test guestbook
";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let result = match command.as_str() {
        "up" => up(&rest),
        "test" => test(&rest),
        "bench" => bench(&rest),
        "guest" => guest::run(&rest),
        "conformance" => conformance::run(&rest),
        "upstream" => upstream::run(&rest),
        "fuzz" => fuzz::run_target(&rest),
        "help" | "-h" | "--help" => {
            print!("{HELP}");
            Ok(())
        }
        other => {
            eprint!("{HELP}");
            Err(anyhow::anyhow!("no command {other:?}"))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn up(flags: &[String]) -> Result<()> {
    packages::install(packages::RUN)?;
    cargo(&["build", "--release", "--package", "knarr"], None)?;
    // Takes this process's place: signals and the exit code are knarr's.
    let error = Command::new("target/release/knarr").arg("up").args(flags).exec();
    Err(error).context("cannot run target/release/knarr")
}

fn test(filter: &[String]) -> Result<()> {
    packages::install(packages::RUN)?;
    packages::install(packages::TEST)?;
    let path = tools::path()?;
    if filter.is_empty() {
        cargo(&["fmt", "--all", "--check"], Some(&path))?;
        cargo(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"], Some(&path))?;
    }
    // Everything is run, so that one failure does not hide another.
    let mut arguments = vec!["test", "--workspace", "--no-fail-fast"];
    arguments.extend(filter.iter().map(String::as_str));
    cargo(&arguments, Some(&path))
}

fn bench(flags: &[String]) -> Result<()> {
    packages::install(packages::RUN)?;
    cargo(&["build", "--release", "--package", "knarr", "--package", "bench"], None)?;
    let error = Command::new("target/release/bench").args(flags).exec();
    Err(error).context("cannot run target/release/bench")
}

/// With this PATH, or with ours.
fn cargo(arguments: &[&str], path: Option<&OsStr>) -> Result<()> {
    let began = Instant::now();
    eprintln!("+ cargo {}", arguments.join(" "));
    let mut command = cargo_command(arguments);
    command.envs(path.map(|path| ("PATH", path)));
    let status = command.status().context("cannot run cargo")?;
    if !status.success() {
        bail!("cargo {} failed", arguments.join(" "));
    }
    eprintln!("  took {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}

fn cargo_command(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    command.args(arguments);
    command
}

fn run(command: &mut Command) -> Result<()> {
    let text = format!("{command:?}").replace('"', "");
    eprintln!("+ {text}");
    let status = command.status().with_context(|| format!("cannot run {:?}", command.get_program()))?;
    if !status.success() {
        bail!("{text} failed");
    }
    Ok(())
}
