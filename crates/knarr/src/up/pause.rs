//! The sandbox image: one program that sleeps (see `pause.c`), made here, so that no registry is needed to start a pod.

use std::io::Write;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::containerd::SANDBOX_IMAGE;
use crate::layout::Layout;

static PAUSE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));

/// Gives containerd the image, through its own client: CRI has no call to import one.
pub async fn import(layout: &Layout) -> Result<()> {
    let archive = archive()?;
    let mut ctr = tokio::process::Command::new("ctr")
        .arg("--address")
        .arg(layout.containerd_socket())
        .args(["--namespace", "k8s.io", "images", "import", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot run ctr, which comes with containerd")?;
    let mut stdin = ctr.stdin.take().context("ctr has no standard input")?;
    tokio::io::AsyncWriteExt::write_all(&mut stdin, &archive).await.context("ctr does not take the sandbox image")?;
    drop(stdin);
    let output = ctr.wait_with_output().await?;
    if !output.status.success() {
        bail!("cannot import the sandbox image: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// The image as `docker save` would write it: a layer, a configuration, a manifest.
fn archive() -> Result<Vec<u8>> {
    let layer = tar(&[("pause", PAUSE, 0o755)])?;
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(&layer))]},
    })
    .to_string();
    let config_name = format!("{}.json", hex(config.as_bytes()));
    let manifest =
        serde_json::json!([{"Config": config_name, "RepoTags": [SANDBOX_IMAGE], "Layers": ["layer.tar"]}]).to_string();
    tar(&[
        (&config_name, config.as_bytes(), 0o644),
        ("layer.tar", &layer, 0o644),
        ("manifest.json", manifest.as_bytes(), 0o644),
    ])
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// A tar of files, the same bytes every time, so that the image keeps its digest.
fn tar(files: &[(&str, &[u8], u32)]) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes, mode) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(*mode);
        header.set_mtime(0);
        builder.append_data(&mut header, name, *bytes)?;
    }
    let mut bytes = builder.into_inner()?;
    bytes.flush()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_small_and_always_the_same() {
        let (a, b) = (archive().expect("made"), archive().expect("made"));
        assert_eq!(a, b);
        assert!(PAUSE.starts_with(b"\x7fELF"));
        assert!(a.len() < 64 << 10, "{} bytes", a.len());
    }
}
