//! `cargo xtask upstream`: upstream's kube-apiserver as the judge of ours.
//!
//! Builds it, and the etcd of its time, from the modules that `tests/conformance/go.mod` names, into `target/upstream`; runs
//! the tests of `apiserver` that ask it. What it says is right: `UPDATE_EXPECT=1` writes it into the recorded requests.

use std::ffi::OsString;

use anyhow::{Context, Result, bail};

const BUILT: &str = "target/upstream";
const HELP: &str = "\
Usage: cargo xtask upstream [FILE...]
       cargo xtask upstream --random N
       cargo xtask upstream --sequences N
       cargo xtask upstream --sweep

  FILE   of crates/apiserver/src/tests/requests, such as writes.txt: only its requests; without one, all of them, and
         one object of each kind through both servers on one etcd
  N      random requests to both servers; what they answer otherwise is told. --random: that many valid objects of all
         kinds, a random member or two changed. --sequences: that many objects, each written by several managers in
         random ways, apply above all. KNARR_SEED=... repeats a run
  --sweep
         forty-four requests about an object of every kind to both servers: wrong names, versions, uids and options
";

pub fn run(files: &[String]) -> Result<()> {
    let (random, files) = match files {
        [flag, count] if flag == "--random" || flag == "--sequences" => {
            let count: u64 = count.parse().with_context(|| format!("{flag} takes a number"))?;
            (Some((flag.trim_start_matches('-'), count)), &[][..])
        }
        [flag] if flag == "--sweep" => (Some(("sweep", 1)), &[][..]),
        _ => (None, files),
    };
    if let Some(flag) = files.iter().find(|file| file.starts_with('-')) {
        print!("{HELP}");
        return if matches!(flag.as_str(), "-h" | "--help") { Ok(()) } else { bail!("no flag {flag:?}") };
    }
    super::conformance::go(
        BUILT,
        &["build", "-ldflags", super::conformance::RELEASE],
        "kube-apiserver",
        "k8s.io/kubernetes/cmd/kube-apiserver",
    )?;
    super::conformance::go(BUILT, &["build", "-ldflags", "-s -w"], "etcd", "go.etcd.io/etcd/server/v3")?;
    let built = std::fs::canonicalize(BUILT)?;
    let mut path = OsString::from(&built);
    path.push(":");
    path.push(super::tools::path()?);
    let test = match (random, files) {
        (Some(("random", _)), _) => "random_objects",
        (Some(("sweep", _)), _) => "every_kind_is_swept",
        (Some(_), _) => "random_sequences",
        (None, []) => "upstream",
        (None, _) => "requests::upstream",
    };
    let mut command =
        super::cargo_command(&["test", "-p", "apiserver", "--lib", test, "--", "--ignored", "--nocapture"]);
    command
        .env("PATH", path)
        .env("KNARR_UPSTREAM", built.join("kube-apiserver"))
        .env("KNARR_REQUESTS", files.join(","))
        .envs(random.map(|(what, count)| (format!("KNARR_{}", what.to_uppercase()), count.to_string())));
    super::run(&mut command)
}
