//! The guestbook's images in a registry of the test's own, made by the example's own script.

#![allow(dead_code)] // each test uses its part of this

use std::path::{Path, PathBuf};
use std::process::Command;

use super::cluster::{both, workspace};

#[path = "../../../store/tests/support/ports.rs"]
mod ports;

pub struct Registry {
    pub address: String,
    state: PathBuf,
}

impl Registry {
    /// Its state lies outside any cluster's directory, so that it can be ended whichever goes first.
    pub fn start() -> Registry {
        let port = ports::own();
        let state = PathBuf::from(format!("/var/tmp/knarr-e2e-registry-{}", std::process::id()));
        let registry = Registry { address: format!("localhost:{port}"), state };
        let output = registry.script(&[]);
        assert!(output.status.success(), "build.sh failed:\n{}", both(&output));
        registry
    }

    fn script(&self, arguments: &[&str]) -> std::process::Output {
        Command::new(workspace().join("examples/guestbook/images/build.sh"))
            .args(arguments)
            .env("REGISTRY", &self.address)
            .env("STATE", &self.state)
            .output()
            .expect("build.sh runs")
    }

    /// The example's manifests, with this registry in the place of the usual one; answers their directory.
    pub fn manifests(&self, dir: &Path) -> PathBuf {
        let to = dir.join("guestbook");
        std::fs::create_dir_all(&to).expect("directory");
        for entry in std::fs::read_dir(workspace().join("examples/guestbook")).expect("the example") {
            let path = entry.expect("entry").path();
            if path.extension().is_some_and(|e| e == "yaml") {
                let text = std::fs::read_to_string(&path).expect("manifest").replace("localhost:5000", &self.address);
                std::fs::write(to.join(path.file_name().expect("a name")), text).expect("written");
            }
        }
        to
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let output = self.script(&["--stop"]);
        if !output.status.success() {
            eprintln!("the registry does not stop: {}", both(&output));
        }
    }
}
