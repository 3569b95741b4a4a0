//! Debian packages that Knarr or its tests need, installed where they are missing.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// What a node needs to run.
pub const RUN: &[&str] =
    &["containerd", "runc", "containernetworking-plugins", "nftables", "iptables", "conntrack", "iproute2"];

/// What the tests need beside that: images, a registry, clients.
pub const TEST: &[&str] = &[
    "umoci", "skopeo", "docker-registry", "busybox-static", "curl", "socat", "python3-minimal", "procps", "mount",
    "etcd-server",
];

/// Installs those of `packages` that are missing. Needs root and apt only when something is missing.
pub fn install(packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("+ apt-get install {}", missing.join(" "));
    apt(&["update", "-qq"])?;
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(&missing);
    apt(&arguments).with_context(|| {
        format!("install these yourself, by the names your distribution has for them: {}", missing.join(" "))
    })
}

fn installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}

fn apt(arguments: &[&str]) -> Result<()> {
    let status = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        // A service that a package starts by itself would run beside ours for nothing.
        .env("RUNLEVEL", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("cannot run apt-get")?;
    if !status.success() {
        bail!("apt-get {} failed: run it as root", arguments.join(" "));
    }
    Ok(())
}
