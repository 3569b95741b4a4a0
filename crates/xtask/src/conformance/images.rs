//! The images that the tests run, made here: for a machine that cannot reach `registry.k8s.io`.
//!
//! Their programs come from upstream's own modules (`tests/conformance/go.mod`), what stands around them from Debian's
//! packages. Writes `target/conformance/images`: one archive of all images, as `docker save` would write it. Invariant:
//! an image carries the name and version that the tests ask for, as they list it; what is not in the table is not made.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::{BUILT, MODULE};
use crate::{packages, run};

const ARCHIVE: &str = "images.tar";
/// What makes them here.
const HOST: &[&str] = &["mmdebstrap", "gcc", "libc6-dev"];
const DEBIAN: &str = "bookworm";
/// What the tests call in a container beside the image's own program.
const INSIDE: &[&str] = &[
    "bash", "bind9-dnsutils", "ca-certificates", "curl", "iproute2", "iptables", "netcat-openbsd", "nginx-light",
    "passwd", "perl", "procps", "socat", "util-linux",
];
/// The user that the tests of supplemental groups expect in agnhost.
const USER: [&str; 3] = [
    "useradd --uid 1000 --no-create-home user-defined-in-image",
    "groupadd --gid 50000 group-defined-in-image",
    "usermod --append --groups group-defined-in-image user-defined-in-image",
];

/// A file of an image: its path there, and where it comes from.
enum Source {
    /// A program of this package, built by Go.
    Go(&'static str),
    /// The same, with the right to become root.
    Setuid(&'static str),
    /// A file of upstream's module.
    Module(&'static str),
    /// A program of this C file of upstream's module.
    C(&'static str),
    Link(&'static str),
    Folder,
}

struct Image {
    /// Without registry and version.
    name: &'static str,
    /// The layers below its own: `root` are Debian's packages.
    below: &'static [&'static str],
    files: &'static [(&'static str, Source)],
    entrypoint: &'static [&'static str],
    command: &'static [&'static str],
    user: &'static str,
}

const PLAIN: Image = Image { name: "", below: &["root"], files: &[], entrypoint: &[], command: &[], user: "" };
const IMAGES: &[Image] = &[
    Image {
        name: "pause",
        below: &[],
        files: &[("pause", Source::C("build/pause/linux/pause.c"))],
        entrypoint: &["/pause"],
        user: "65535:65535",
        ..PLAIN
    },
    // The tests expect a shell that hands on variables whatever their names; Debian's own busybox and dash do not.
    Image { name: "busybox", files: &[("usr/bin/sh", Source::Link("bash"))], command: &["sh"], ..PLAIN },
    Image {
        name: "agnhost",
        files: &[
            ("agnhost", Source::Go("k8s.io/kubernetes/test/images/agnhost")),
            ("agnhost-2", Source::Link("agnhost")),
            ("localhost.crt", Source::Module("test/images/agnhost/porter/localhost.crt")),
            ("localhost.key", Source::Module("test/images/agnhost/porter/localhost.key")),
            ("uploads", Source::Folder),
        ],
        entrypoint: &["/agnhost"],
        command: &["pause"],
        ..PLAIN
    },
    Image {
        name: "nautilus",
        below: &["root", "agnhost"],
        files: &[
            ("nautilus.jpg", Source::Module("test/images/nautilus/html/nautilus.jpg")),
            ("data.json", Source::Module("test/images/nautilus/html/data.json")),
        ],
        entrypoint: &["/agnhost"],
        command: &["test-webserver"],
        ..PLAIN
    },
    Image { name: "nginx", command: &["nginx", "-g", "daemon off;"], ..PLAIN },
    Image { name: "glibc-dns-testing", command: &["bash"], ..PLAIN },
    Image { name: "perl", command: &["perl"], ..PLAIN },
    Image {
        name: "nonewprivs",
        files: &[("usr/local/bin/nnp", Source::Setuid("k8s.io/kubernetes/test/images/nonewprivs"))],
        command: &["nnp"],
        ..PLAIN
    },
    Image { name: "nonroot", command: &["bash"], user: "1234", ..PLAIN },
    Image {
        name: "etcd",
        files: &[("usr/local/bin/etcd", Source::Go("go.etcd.io/etcd/server/v3")), ("tmp", Source::Folder)],
        command: &["/usr/local/bin/etcd"],
        ..PLAIN
    },
    Image {
        name: "sample-apiserver",
        files: &[("sample-apiserver", Source::Go("k8s.io/sample-apiserver"))],
        entrypoint: &["/sample-apiserver"],
        ..PLAIN
    },
];

/// Makes the archive of all images that the tests list and the table knows; answers where it is. What an earlier run
/// made of the same modules is taken by Go's own cache, and the Debian below it as it is.
pub fn build() -> Result<PathBuf> {
    packages::install(HOST)?;
    let dir = Path::new(BUILT).join("images");
    fs::create_dir_all(&dir)?;
    let dir = fs::canonicalize(dir)?;
    let module = output(Command::new("go").args(["list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes"]))?;
    let listed = output(Command::new(fs::canonicalize(BUILT)?.join("conformance.test")).arg("--list-images"))?;
    debian(&dir)?;
    let mut digests = BTreeMap::from([("root", digest(&dir.join("root.tar"))?)]);
    let (mut manifest, mut parts) = (Vec::new(), vec!["manifest.json".to_string(), "root.tar".to_string()]);
    for image in IMAGES {
        let tags = tags(image.name, &listed);
        ensure!(!tags.is_empty(), "the tests list no image {:?} any more: take it out of images.rs", image.name);
        eprintln!("+ image {}", tags.join(", "));
        let own = layer(image, Path::new(module.trim()), &dir)?;
        digests.insert(image.name, digest(&own)?);
        let layers: Vec<&str> = image.below.iter().copied().chain([image.name]).collect();
        let ids: Vec<&String> = layers.iter().map(|name| &digests[name]).collect();
        let layers: Vec<String> = layers.iter().map(|name| format!("{name}.tar")).collect();
        let name = format!("{}.json", image.name);
        fs::write(dir.join(&name), config(image, &ids))?;
        manifest.push(format!("{{\"Config\":{name:?},\"RepoTags\":{tags:?},\"Layers\":{layers:?}}}"));
        parts.extend([name, format!("{}.tar", image.name)]);
    }
    fs::write(dir.join("manifest.json"), format!("[{}]", manifest.join(",")))?;
    run(Command::new("tar").arg("-C").arg(&dir).args(["-cf", ARCHIVE]).args(&parts).current_dir(&dir))?;
    Ok(dir.join(ARCHIVE))
}

/// Gives them to the containerd behind a socket.
pub fn import(archive: &Path, socket: &Path) -> Result<()> {
    let mut ctr = Command::new("ctr");
    ctr.arg("--address").arg(socket).args(["--namespace", "k8s.io", "images", "import"]).arg(archive);
    run(ctr.stdout(Stdio::null())).context("cannot import the images")
}

/// The names that the tests have for it, each with registry and version.
fn tags<'a>(name: &str, listed: &'a str) -> Vec<&'a str> {
    let mut tags: Vec<&str> = listed
        .lines()
        .filter(|line| line.rsplit_once(':').and_then(|(path, _)| path.rsplit('/').next()) == Some(name))
        .collect();
    tags.sort_unstable();
    tags
}

/// Debian's packages as a layer, unless it is there from the same recipe.
fn debian(dir: &Path) -> Result<()> {
    let (layer, stamp) = (dir.join("root.tar"), dir.join("recipe"));
    let mut make = Command::new("mmdebstrap");
    make.args(["--quiet", "--mode=root", "--variant=essential", "--aptopt=APT::Install-Recommends \"false\""]);
    make.arg("--dpkgopt=path-exclude=/usr/share/{doc,man,locale}/*").arg(format!("--include={}", INSIDE.join(",")));
    make.args(USER.map(|command| format!("--customize-hook=chroot \"$1\" {command}")));
    make.arg(DEBIAN).arg(&layer);
    let recipe = format!("{make:?}");
    if fs::read_to_string(&stamp).is_ok_and(|made| made == recipe) {
        return Ok(());
    }
    let _ = fs::remove_file(&stamp);
    run(&mut make)?;
    fs::write(stamp, recipe)?;
    Ok(())
}

/// An image's own files, as `dir/NAME.tar`; answers that.
fn layer(image: &Image, module: &Path, dir: &Path) -> Result<PathBuf> {
    let root = dir.join("layer");
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(&root)?;
    for (path, source) in image.files {
        let at = root.join(path);
        let parent = at.parent().context("a file at the root")?;
        fs::create_dir_all(parent)?;
        match source {
            Source::Go(package) | Source::Setuid(package) => {
                let mut go = Command::new("go");
                go.args(["build", "-ldflags", "-s -w", "-o"]).arg(&at).arg(package).env("CGO_ENABLED", "0");
                output(&mut go)?;
                if matches!(source, Source::Setuid(_)) {
                    fs::set_permissions(&at, fs::Permissions::from_mode(0o4755))?;
                }
            }
            Source::C(file) => run(Command::new("cc")
                .args(["-static", "-Os", "-s", "-DVERSION=knarr", "-o"])
                .arg(&at)
                .arg(module.join(file)))?,
            Source::Module(file) => {
                let _bytes = fs::copy(module.join(file), &at).with_context(|| format!("cannot copy {file}"))?;
            }
            Source::Link(target) => symlink(target, &at)?,
            Source::Folder => fs::create_dir_all(&at)?,
        }
    }
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "-C"]).arg(&root);
    let to = dir.join(format!("{}.tar", image.name));
    run(tar.arg("-cf").arg(&to).arg("."))?;
    Ok(to)
}

/// What names a layer.
fn digest(layer: &Path) -> Result<String> {
    let sum = output(Command::new("sha256sum").arg(layer))?;
    Ok(format!("sha256:{}", sum.split(' ').next().context("sha256sum says nothing")?))
}

/// What `docker save` calls the configuration of an image, whose layers have these digests.
fn config(image: &Image, digests: &[&String]) -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let Image { entrypoint, command, user, .. } = image;
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    format!(
        "{{\"architecture\":{architecture:?},\"os\":\"linux\",\
         \"config\":{{\"Entrypoint\":{entrypoint:?},\"Cmd\":{command:?},\"User\":{user:?},\"Env\":[{path:?}]}},\
         \"rootfs\":{{\"type\":\"layers\",\"diff_ids\":{digests:?}}}}}"
    )
}

/// What a command says; it runs where the module is.
fn output(command: &mut Command) -> Result<String> {
    command.env("GOWORK", "off").env("PATH", crate::tools::path()?).current_dir(MODULE).stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed");
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_the_names_of_the_tests() {
        let listed = "registry/e2e/agnhost:2.66.1\nother/agnhost:2.6\nregistry/busybox:1\nregistry/e2e/agnhost-x:3\n";
        assert_eq!(tags("agnhost", listed), ["other/agnhost:2.6", "registry/e2e/agnhost:2.66.1"]);
        assert!(tags("pause", listed).is_empty());
    }
}
