//! `cargo xtask fuzz TARGET`: builds a target of `fuzz/` with the coverage that libFuzzer is led by, and runs it. The
//! compiler's flags for that are stable; only the sanitizers, which safe code has no need of, are not.
//!
//! Reads `fuzz/seeds/TARGET.txt` (a seed a line, `\0` in it is a zero byte). Writes `target/fuzz` and what was found to
//! `fuzz/corpus` and `fuzz/artifacts`, where cargo-fuzz has them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{packages, run};

const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing";
const TARGETS: [&str; 5] = ["codec", "patches", "selectors", "cel", "schemas"];

pub fn run_target(arguments: &[String]) -> Result<()> {
    let (target, seconds) = match arguments {
        [target] => (target, "60"),
        [target, flag, seconds] if flag == "--seconds" => (target, seconds.as_str()),
        _ => bail!("usage: cargo xtask fuzz TARGET [--seconds N], with one of {}", TARGETS.join(", ")),
    };
    if !TARGETS.contains(&target.as_str()) {
        bail!("no target {target:?}: there are {}", TARGETS.join(", "));
    }
    if Command::new("c++").arg("--version").output().is_err() {
        packages::install(&["g++"])?;
    }
    let corpus = Path::new("fuzz/corpus").join(target);
    let artifacts = Path::new("fuzz/artifacts").join(target);
    for dir in [&corpus, &artifacts] {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let seeds = std::fs::read_to_string(format!("fuzz/seeds/{target}.txt")).context("no seeds")?;
    for (number, seed) in seeds.lines().enumerate() {
        std::fs::write(corpus.join(format!("seed-{number}")), seed.replace("\\0", "\0")).context("cannot seed")?;
    }
    // Named even where it is this machine's: so build scripts and macros are compiled without the flags.
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "--manifest-path", "fuzz/Cargo.toml", "--target-dir", "target/fuzz"]);
    run(build.args(["--target", &triple, "--bin", target]).env("RUSTFLAGS", FLAGS))?;
    let mut fuzz = Command::new(format!("target/fuzz/{triple}/release/{target}"));
    fuzz.arg(format!("-artifact_prefix={}/", artifacts.display())).arg(format!("-max_total_time={seconds}"));
    run(fuzz.args(["-max_len=16384", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"]).arg(&corpus))
}
