//! The guestbook's images in a registry of the test's own, made by the example's own script.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cluster::{both, workspace};

pub struct Registry {
    pub address: String,
    state: PathBuf,
}

impl Registry {
    pub fn start(dir: &Path) -> Registry {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let registry = Registry { address: format!("localhost:{port}"), state: dir.join("registry") };
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
