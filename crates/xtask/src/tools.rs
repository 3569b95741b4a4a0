//! Tools of the tests that Debian does not package, or not new enough: Go, and with it a kubectl; the official clients
//! for Python and JavaScript, with a Node.
//!
//! Reads the Go module proxy, PyPI and npm's registry. Writes `target/tools` and `tests/clients/js/node_modules`.
//! Invariant: what is downloaded has the version and, but for PyPI, the checksum written here or in a lock file, or is
//! not used; a Go or kubectl that the machine has is taken as it is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

use crate::{packages, run};

const GO: &str = "1.26.8";
/// Of the toolchain modules at the proxy, by Rust's name of the architecture: Go's name and SHA-256.
const GO_ARCHIVES: [(&str, &str, &str); 2] = [
    ("x86_64", "amd64", "30c2b1bf7dcc88d3eb0a1364e47ddd9128edb3110a30e8a0ef61cd5856b31de7"),
    ("aarch64", "arm64", "02b36b6787b3ac767668f630e2998df45a3b1f9ffee08d1bf3ef6487cd658d99"),
];
/// The Go programs of the tests say so in their go.mod.
const GO_MINOR: u32 = 26;

/// Makes sure of Go and kubectl, once; answers the PATH on which the tests find them.
pub fn path() -> Result<OsString> {
    static PATH: OnceLock<OsString> = OnceLock::new();
    if let Some(path) = PATH.get() {
        return Ok(path.clone());
    }
    let path = find_path()?;
    Ok(PATH.get_or_init(|| path).clone())
}

fn find_path() -> Result<OsString> {
    let tools = std::env::current_dir()?.join("target/tools");
    let mut path: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    let mut go = PathBuf::from("go");
    if !has_go() {
        go = tools.join(format!("go{GO}/bin/go"));
        path.insert(0, go.with_file_name(""));
        if !go.exists() {
            download_go(&tools)?;
        }
    }
    if Command::new("kubectl").args(["version", "--client"]).output().is_err() {
        let bin = tools.join("bin");
        if !bin.join("kubectl").exists() {
            build_kubectl(&go, &bin.join("kubectl"))?;
        }
        path.insert(0, bin);
    }
    once("tests/clients/python/requirements.txt", &tools.join("python/requirements.txt"), || {
        packages::install(&["python3-venv"])?;
        let python = tools.join("python");
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&python))?;
        let mut pip = Command::new(python.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]);
        run(pip.arg("tests/clients/python/requirements.txt"))
    })?;
    once("tests/clients/js/package-lock.json", &tools.join("package-lock.json"), || {
        if Command::new("npm").arg("--version").output().is_err() {
            packages::install(&["npm"])?;
        }
        run(Command::new("npm").args(["ci", "--silent", "--no-audit", "--no-fund"]).current_dir("tests/clients/js"))
    })?;
    Ok(std::env::join_paths(path)?)
}

/// Installs what a file lists, unless that was done when the file was as it is now.
fn once(list: &str, done: &Path, install: impl FnOnce() -> Result<()>) -> Result<()> {
    let wanted = std::fs::read(list).with_context(|| format!("cannot read {list}"))?;
    if std::fs::read(done).is_ok_and(|last| last == wanted) {
        return Ok(());
    }
    install()?;
    std::fs::write(done, wanted).with_context(|| format!("cannot write {}", done.display()))
}

fn has_go() -> bool {
    let Ok(output) = Command::new("go").args(["env", "GOVERSION"]).output() else { return false };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let minor = text.trim().strip_prefix("go1.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    minor.is_some_and(|minor| minor >= GO_MINOR)
}

fn download_go(tools: &Path) -> Result<()> {
    packages::install(&["curl", "ca-certificates", "unzip"])?;
    let machine = std::env::consts::ARCH;
    let Some((_, arch, sha256)) = GO_ARCHIVES.iter().find(|(name, ..)| *name == machine) else {
        bail!("the tests need Go 1.{GO_MINOR} or later: install it (no archive is known for {machine})");
    };
    std::fs::create_dir_all(tools).with_context(|| format!("cannot make {}", tools.display()))?;
    let module = format!("toolchain@v0.0.1-go{GO}.linux-{arch}");
    let (archive, unpacked) = (tools.join("go.zip"), tools.join("golang.org").join(&module));
    let url = format!("https://proxy.golang.org/golang.org/toolchain/@v/v0.0.1-go{GO}.linux-{arch}.zip");
    run(Command::new("curl").args(["-fsSL", "--retry", "3", "-o"]).arg(&archive).arg(&url))?;
    let output = Command::new("sha256sum").arg(&archive).output().context("cannot run sha256sum")?;
    if !String::from_utf8_lossy(&output.stdout).starts_with(sha256) {
        bail!("{url} is not what was expected: its SHA-256 is not {sha256}");
    }
    run(Command::new("unzip").args(["-q", "-o"]).arg(&archive).arg("-d").arg(tools))?;
    // Module archives carry no modes.
    run(Command::new("chmod").args(["-R", "+x"]).arg(unpacked.join("bin")).arg(unpacked.join("pkg/tool")))?;
    // Last, so that half an unpacked one is never taken for a whole.
    std::fs::rename(&unpacked, tools.join(format!("go{GO}"))).context("cannot move Go to its place")?;
    std::fs::remove_file(&archive).context("cannot remove the archive of Go")
}

/// Upstream's kubectl, from its published module.
fn build_kubectl(go: &Path, to: &Path) -> Result<()> {
    let flags = format!("-s -w -X k8s.io/component-base/version.gitVersion={}", KUBECTL);
    let mut command = Command::new(go);
    command.args(["build", "-trimpath", "-ldflags", &flags, "-o"]).arg(to).arg(".");
    run(command.current_dir("tests/clients/kubectl").env("GOWORK", "off").env("GOTOOLCHAIN", "local"))
}

/// As tests/clients/kubectl/go.mod has it.
const KUBECTL: &str = "v1.37.2";
