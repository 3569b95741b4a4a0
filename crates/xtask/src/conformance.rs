//! `cargo xtask conformance`: upstream's own end-to-end tests against a cluster of ours.
//!
//! Builds `tests/conformance` (a Go module) into `target/conformance`, brings up a fresh cluster unless a kubeconfig is
//! given, has ginkgo run the chosen tests, and writes `docs/conformance.md`. No test is changed or treated apart.

mod images;
mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

const MODULE: &str = "tests/conformance";
const REPORT: &str = "docs/conformance.md";
const BUILT: &str = "target/conformance";
/// What a release's build says of itself. Without it the API server warns of versions that are to be deprecated later,
/// and the tests take it for one that is older than all Kubernetes.
pub const RELEASE: &str = "-s -w -X k8s.io/component-base/version.gitVersion=v1.37.1 \
    -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37";
/// How long ginkgo may take for the whole run.
const LIMIT_HOURS: u32 = 12;

const HELP: &str = "\
Usage: cargo xtask conformance [FLAGS]

  --focus RE          only tests whose name this regular expression (Go's) matches
  --skip RE           no test whose name this matches
  --class A,B         only tests of these classes of tests/conformance/tests.tsv: a1 a2 a3 b c d
  --failed            only tests that docs/conformance.md shows as failed
  --parallel N        so many at once (default 4); serial tests run alone, at the end
  --kubeconfig FILE   test this cluster; docs/conformance.md stays as it is
  --build-images      make the images that the tests run (of upstream's module and Debian's packages), for a machine
                      that cannot reach registry.k8s.io; not with --kubeconfig
  KNARR_BIN=FILE      test this binary instead of a release build
";

#[derive(Debug, Default, PartialEq)]
struct Options {
    focus: Option<String>,
    skip: Option<String>,
    classes: Vec<String>,
    failed: bool,
    parallel: usize,
    kubeconfig: Option<PathBuf>,
    build_images: bool,
}

/// The flags; nothing for a call for help.
fn parse(flags: &[String]) -> Result<Option<Options>> {
    let mut options = Options { parallel: 4, ..Options::default() };
    let mut flags = flags.iter();
    while let Some(flag) = flags.next() {
        let (name, inline) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_string())),
            None => (flag.as_str(), None),
        };
        let mut value = || {
            inline.clone().or_else(|| flags.next().cloned()).with_context(|| format!("{name} needs a value after it"))
        };
        match name {
            "--focus" => options.focus = Some(value()?),
            "--skip" => options.skip = Some(value()?),
            "--class" => options.classes = value()?.split(',').map(str::to_string).collect(),
            "--failed" => options.failed = true,
            "--parallel" => options.parallel = value()?.parse().context("--parallel needs a number")?,
            "--kubeconfig" => options.kubeconfig = Some(value()?.into()),
            "--build-images" => options.build_images = true,
            "--help" | "-h" => return Ok(None),
            _ => bail!("no flag {name:?}\n{HELP}"),
        }
    }
    if options.build_images && options.kubeconfig.is_some() {
        bail!("--build-images is for a cluster made here: of another one the runtime's socket is not known");
    }
    Ok(Some(options))
}

pub fn run(flags: &[String]) -> Result<()> {
    let Some(options) = parse(flags)? else {
        print!("{HELP}");
        return Ok(());
    };
    let tests = report::tests(&fs::read_to_string(Path::new(MODULE).join("tests.tsv"))?)?;
    let before = report::rows(&fs::read_to_string(REPORT).unwrap_or_default());
    let skip: Vec<&str> = tests
        .iter()
        .filter(|test| !options.classes.is_empty() && !options.classes.contains(&test.class))
        .chain(tests.iter().filter(|test| options.failed && before.get(&test.name).is_none_or(|row| !row.failed())))
        .map(|test| test.name.as_str())
        .collect();
    if skip.len() == tests.len() {
        bail!("no test is left: the classes are a1, a2, a3, b, c and d");
    }
    build()?;
    let images = if options.build_images { Some(images::build()?) } else { None };
    let cluster = if options.kubeconfig.is_none() { Some(Cluster::up()?) } else { None };
    let kubeconfig = options.kubeconfig.clone().or(cluster.as_ref().map(Cluster::kubeconfig)).unwrap_or_default();
    if let (Some(images), Some(cluster)) = (&images, &cluster) {
        images::import(images, &cluster.containerd()?)?;
    }
    let results = Path::new(BUILT).join("results.tsv");
    let _ = fs::remove_file(&results);
    let clean = ginkgo(&options, &skip, &kubeconfig, &fs::canonicalize(BUILT)?.join("results.tsv"))?;
    let ran = report::results(&fs::read_to_string(&results).unwrap_or_default())?;
    println!("{}", report::summary(&tests, &ran));
    if options.kubeconfig.is_none() {
        fs::write(REPORT, report::page(&tests, before, &ran))?;
        println!("the table is in {REPORT}");
    }
    println!("the tests' output is in {BUILT}/log.txt, theirs and this run's cluster's");
    drop(cluster);
    if ran.is_empty() {
        bail!("no test ran: look into {BUILT}/log.txt");
    }
    if !clean || ran.values().any(report::Row::failed) {
        bail!("not all of them passed");
    }
    Ok(())
}

/// The test binary and ginkgo's own program, which runs several of it side by side.
fn build() -> Result<()> {
    go(BUILT, &["test", "-c", "-vet=off", "-ldflags", RELEASE], "conformance.test", ".")?;
    go(BUILT, &["build"], "ginkgo", "github.com/onsi/ginkgo/v2/ginkgo")
}

/// Has Go make `folder/name` of a package that the module names.
pub fn go(folder: &str, arguments: &[&str], name: &str, package: &str) -> Result<()> {
    fs::create_dir_all(folder)?;
    let mut go = Command::new("go");
    go.args(arguments).arg("-o").arg(fs::canonicalize(folder)?.join(name)).arg(package).current_dir(MODULE);
    // The module's versions are its own.
    go.env("GOWORK", "off").env("PATH", super::tools::path()?);
    super::run(&mut go).with_context(|| format!("go cannot build {package} in {MODULE}"))
}

/// Runs the tests; whether all was well. Their output goes to the log, one line each to the terminal.
fn ginkgo(options: &Options, skip: &[&str], kubeconfig: &Path, results: &Path) -> Result<bool> {
    let built = fs::canonicalize(BUILT)?;
    let log = fs::File::create(built.join("log.txt"))?;
    let mut command = Command::new(built.join("ginkgo"));
    command
        .arg("run")
        .args([format!("--procs={}", options.parallel), format!("--timeout={LIMIT_HOURS}h")])
        .args(["--no-color", "--label-filter=Conformance", "--silence-skips", "--output-interceptor-mode=none"])
        .args(options.focus.iter().map(|focus| format!("--focus={focus}")))
        .args(options.skip.iter().map(|skip| format!("--skip={skip}")));
    if !skip.is_empty() {
        let names: Vec<String> = skip.iter().map(|name| quoted(name)).collect();
        command.arg(format!("--skip={}", names.join("|")));
    }
    command
        .arg(built.join("conformance.test"))
        .arg("--")
        .arg(format!("--kubeconfig={}", fs::canonicalize(kubeconfig)?.display()))
        .args(["--provider=local", "--disable-log-dump", "--dump-logs-on-failure=false"])
        .env("KNARR_RESULTS", results)
        .env("PATH", super::tools::path()?)
        .current_dir(&built)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    eprintln!("+ ginkgo, its output in {BUILT}/log.txt, each test's end in {BUILT}/results.tsv");
    Ok(command.status().context("cannot run ginkgo")?.success())
}

/// A name as a regular expression that matches it and nothing else.
fn quoted(name: &str) -> String {
    let mut quoted = String::with_capacity(name.len() + 16);
    for c in name.chars() {
        if c.is_ascii_punctuation() {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted
}

/// A cluster of its own, gone at the end.
struct Cluster {
    binary: PathBuf,
    dir: PathBuf,
}

impl Cluster {
    fn up() -> Result<Cluster> {
        super::packages::install(super::packages::RUN)?;
        let binary = match std::env::var_os("KNARR_BIN") {
            Some(path) => path.into(),
            None => {
                super::cargo(&["build", "--release", "--package", "knarr"], None)?;
                PathBuf::from("target/release/knarr")
            }
        };
        let cluster = Cluster { binary, dir: format!("/var/tmp/knarr-conformance-{}", std::process::id()).into() };
        fs::create_dir_all(&cluster.dir)?;
        eprintln!("+ knarr up in {0}; after an interruption: knarr down --data-dir {0}/data", cluster.dir.display());
        cluster.knarr(&["up", "--detach", "--api-port", "0", "--kubelet-port", "0"])?;
        Ok(cluster)
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir.join("data/admin.kubeconfig")
    }

    /// Its runtime's socket, as its configuration names it.
    fn containerd(&self) -> Result<PathBuf> {
        let path = self.dir.join("data/containerd/config.toml");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let address = text.lines().find_map(|line| line.trim().strip_prefix("address = "));
        Ok(address.with_context(|| format!("{} names no address", path.display()))?.trim_matches('"').into())
    }

    fn knarr(&self, arguments: &[&str]) -> Result<()> {
        let status = Command::new(&self.binary)
            .args(arguments)
            .arg("--data-dir")
            .arg(self.dir.join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .with_context(|| format!("cannot run {}", self.binary.display()))?;
        if !status.success() {
            bail!("knarr {} failed; what it said is above", arguments[0]);
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = fs::copy(self.dir.join("data/logs/knarr.log"), Path::new(BUILT).join("knarr.log"));
        match self.knarr(&["down"]) {
            Ok(()) => {
                let _ = fs::remove_dir_all(&self.dir);
            }
            Err(error) => eprintln!("{error:#}; its files are in {}", self.dir.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags() {
        let parsed = |line: &str| parse(&line.split_whitespace().map(str::to_string).collect::<Vec<_>>());
        let all = Options {
            focus: Some("a=b".into()),
            skip: Some("s".into()),
            classes: vec!["a1".into(), "d".into()],
            failed: true,
            parallel: 2,
            kubeconfig: None,
            build_images: true,
        };
        let line = "--focus=a=b --skip s --class a1,d --failed --parallel 2 --build-images";
        assert_eq!(parsed(line).expect("parsed"), Some(all));
        assert_eq!(parsed("").expect("parsed"), Some(Options { parallel: 4, ..Options::default() }));
        assert_eq!(parsed("--focus x --help").expect("parsed"), None);
        for wrong in ["--focus", "--parallel many", "--nothing", "--kubeconfig f --build-images"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(quoted("[sig-apps] a (b) c.d"), r"\[sig\-apps\] a \(b\) c\.d");
    }
}
