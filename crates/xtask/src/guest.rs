//! `cargo xtask guest`: Knarr on a machine of its own, a Debian guest with systemd and cgroup v2, in QEMU.
//!
//! Makes a disk from Debian's packages once per release (kept in target/guest), boots it with a second disk that carries
//! knarr, kubectl, an image and `tools/guest`, and shows what `check.sh` finds there. Invariant: the first disk is never
//! written after it was made, and no guest outlives its time limit.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::packages;

const HELP: &str = "\
Usage: cargo xtask guest [--release bookworm|trixie] [--kvm]

Boots Debian with systemd and cgroup v2 in QEMU, runs a cluster with pods of each class in it, and checks their cgroups,
out-of-memory kills, statistics and what is left afterwards. Needs root. Without --kvm the processor is emulated: that
works everywhere and takes a core some six minutes; the first run also makes the disk.
";

/// What makes and boots the guest.
const HOST: &[&str] = &["qemu-system-x86", "mmdebstrap", "e2fsprogs", "umoci", "busybox-static"];
/// What the guest has beside a node's packages.
const INSIDE: &[&str] = &["systemd-sysv", "udev", "kmod", "procps", "mount", "curl", "linux-image-cloud-amd64"];
/// What the pods of `tools/guest` run.
const APPLETS: &[&str] = &["sh", "cat", "dd", "sleep", "tail", "test", "touch"];
const FILES: &str = "tools/guest";
const DISK_MIB: u32 = 3000;
const MEMORY_MIB: u32 = 2048;
/// A guest that hangs ends by itself.
const LIMIT_S: u32 = 3600;

pub fn run(flags: &[String]) -> Result<()> {
    let (mut release, mut kvm) = ("bookworm", false);
    let mut flags = flags.iter().map(String::as_str);
    while let Some(flag) = flags.next() {
        match flag {
            "--release" => release = flags.next().context("--release needs a name, such as trixie")?,
            "--kvm" => kvm = true,
            "-h" | "--help" => {
                print!("{HELP}");
                return Ok(());
            }
            other => bail!("no flag {other:?}\n{HELP}"),
        }
    }
    packages::install(HOST)?;
    crate::cargo(&["build", "--package", "knarr"], None)?;
    let target = PathBuf::from(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()));
    let dir = target.join("guest").join(release);
    fs::create_dir_all(&dir)?;
    make_disk(&dir, release)?;
    let payload = make_payload(&dir, &target.join("debug/knarr"))?;
    let verdict = boot(&dir, &payload, kvm);
    fs::remove_file(&payload)?;
    verdict
}

/// The first disk, its kernel and initial file system, unless they are there from the same recipe.
fn make_disk(dir: &Path, release: &str) -> Result<()> {
    let wanted: Vec<&str> = INSIDE.iter().chain(packages::RUN).copied().collect();
    let service = Path::new(FILES).join("guest.service");
    let (stamp, root) = (dir.join("recipe"), dir.join("root"));
    let mut make = Command::new("mmdebstrap");
    make.args(["--mode=root", "--variant=essential", "--aptopt=APT::Install-Recommends \"false\""]);
    make.arg("--dpkgopt=path-exclude=/usr/share/{doc,man,locale}/*").arg(format!("--include={}", wanted.join(",")));
    make.arg(format!("--customize-hook=copy-in {} /etc/systemd/system", service.display()));
    // The node's containerd is Knarr's own, and nobody logs in.
    make.arg(
        "--customize-hook=chroot \"$1\" systemctl mask containerd.service serial-getty@ttyS0.service apt-daily.timer",
    );
    make.args([
        "--customize-hook=chroot \"$1\" systemctl enable guest.service",
        "--customize-hook=echo guest >\"$1/etc/hostname\"",
    ]);
    make.arg(release).arg(&root);
    let recipe = format!("{make:?}\n{DISK_MIB}\n{}", fs::read_to_string(&service)?);
    if fs::read_to_string(&stamp).is_ok_and(|made| made == recipe) {
        return Ok(());
    }
    let _ = fs::remove_file(&stamp);
    // What an earlier, interrupted run left.
    remove_root(&root)?;
    crate::run(&mut make)?;
    for file in ["vmlinuz", "initrd.img"] {
        fs::copy(root.join(file), dir.join(file)).with_context(|| format!("the guest's packages bring no /{file}"))?;
    }
    let disk = dir.join("disk.ext4");
    let _ = fs::remove_file(&disk);
    crate::run(
        Command::new("mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(&root).arg(&disk).arg(format!("{DISK_MIB}M")),
    )?;
    remove_root(&root)?;
    fs::write(&stamp, recipe)?;
    Ok(())
}

/// Never beyond a mount: the host's /dev may be bound below it.
fn remove_root(root: &Path) -> Result<()> {
    crate::run(Command::new("rm").args(["-rf", "--one-file-system"]).arg(root))
}

/// The second disk: a tar, read as such by the guest.
fn make_payload(dir: &Path, knarr: &Path) -> Result<PathBuf> {
    let files = dir.join("payload");
    let _ = fs::remove_dir_all(&files);
    fs::create_dir_all(&files)?;
    for entry in fs::read_dir(FILES)? {
        let path = entry?.path();
        fs::copy(&path, files.join(path.file_name().context("a file has a name")?))?;
    }
    crate::run(Command::new("strip").arg("-o").arg(files.join("knarr")).arg(knarr))?;
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let kubectl = std::env::split_paths(&paths).map(|dir| dir.join("kubectl")).find(|path| path.is_file());
    fs::copy(kubectl.context("the guest is driven by a real kubectl: install one")?, files.join("kubectl"))?;
    let bin = dir.join("image/bin");
    let layout = dir.join("layout");
    for old in [&dir.join("image"), &layout] {
        let _ = fs::remove_dir_all(old);
    }
    fs::create_dir_all(&bin)?;
    fs::copy("/bin/busybox", bin.join("busybox"))?;
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", bin.join(applet))?;
    }
    let tag = format!("{}:1", layout.display());
    crate::run(Command::new("umoci").args(["init", "--layout"]).arg(&layout))?;
    crate::run(Command::new("umoci").args(["new", "--image", &tag]))?;
    crate::run(Command::new("umoci").args(["insert", "--image", &tag]).arg(dir.join("image")).arg("/"))?;
    crate::run(Command::new("umoci").args(["config", "--image", &tag, "--config.env", "PATH=/bin"]))?;
    crate::run(Command::new("tar").arg("-cf").arg(files.join("busybox.tar")).arg("-C").arg(&layout).arg("."))?;
    let payload = dir.join("payload.tar");
    crate::run(Command::new("tar").arg("-cf").arg(&payload).arg("-C").arg(&files).arg("."))?;
    fs::remove_dir_all(&files)?;
    Ok(payload)
}

/// Runs the guest until it turns itself off; its verdict is its last word.
fn boot(dir: &Path, payload: &Path, kvm: bool) -> Result<()> {
    // Emulation keeps a core busy for minutes: others come first.
    let mut guest = Command::new("timeout");
    guest.args(["--foreground", &LIMIT_S.to_string(), "nice", "-n", "15", "qemu-system-x86_64"]);
    // Emulated, the guest's clock counts its instructions: on a busy host it sees a slow world, but no time runs out.
    let machine = if kvm { "-accel kvm -cpu host" } else { "-accel tcg -icount shift=0 -cpu max" };
    guest.args(machine.split(' '));
    guest.args(["-smp", "1", "-m", &MEMORY_MIB.to_string(), "-nodefaults", "-no-reboot", "-display", "none"]);
    guest.args([
        "-serial", "stdio", "-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net,romfile=",
    ]);
    guest.arg("-kernel").arg(dir.join("vmlinuz")).arg("-initrd").arg(dir.join("initrd.img"));
    guest.args(["-append", "console=ttyS0 root=/dev/vda rw quiet mitigations=off systemd.show_status=0 net.ifnames=0"]);
    guest.arg("-drive").arg(format!("file={},if=virtio,format=raw,snapshot=on", dir.join("disk.ext4").display()));
    guest.arg("-drive").arg(format!("file={},if=virtio,format=raw,readonly=on", payload.display()));
    eprintln!("+ {guest:?}");
    let mut guest = guest.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot run the guest")?;
    let mut verdict = None;
    for line in BufReader::new(guest.stdout.take().context("the guest has no console")?).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).trim_end().to_string();
        println!("{line}");
        if let Some((_, words)) = line.split_once("verdict: ") {
            verdict = Some(words.to_string());
        }
    }
    guest.wait()?;
    let verdict = verdict.with_context(|| format!("the guest gave no verdict within {LIMIT_S} s"))?;
    ensure!(verdict == "all checks passed", "in the guest, {verdict}");
    Ok(())
}
