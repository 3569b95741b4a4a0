//! A containerd of our own, with its own root, state, socket, network and images made from the host's busybox.
//!
//! Needs root, containerd, runc, the CNI plugins and a static busybox. Invariant: what it starts it ends when dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use sha2::{Digest, Sha256};

/// A running containerd.
pub struct Containerd {
    pub dir: tempfile::TempDir,
    child: Option<Child>,
    bridge: String,
}

impl Containerd {
    pub fn start() -> Containerd {
        assert!(rustix::process::geteuid().is_root(), "this test makes containers: run it as root");
        for tool in ["/usr/bin/containerd", "/usr/bin/busybox", "/usr/lib/cni/bridge"] {
            assert!(
                Path::new(tool).exists(),
                "{tool} is missing: apt-get install containerd busybox-static containernetworking-plugins"
            );
        }
        // a short path: sockets' names are limited
        let dir = tempfile::Builder::new().prefix("klet").tempdir_in("/tmp").expect("temp dir");
        let id = std::process::id() % 100_000;
        let mut own = Containerd { dir, child: None, bridge: format!("klet{id}") };
        own.configure(id);
        own.spawn();
        for image in ["pause", "busybox"] {
            own.import(image);
        }
        own
    }

    pub fn socket(&self) -> String {
        self.path("c.sock").display().to_string()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn configure(&self, id: u32) {
        let dir = self.dir.path().display().to_string();
        for name in ["root", "state", "cni", "net"] {
            fs::create_dir_all(self.path(name)).expect("mkdir");
        }
        let network = json!({"cniVersion": "0.4.0", "name": "klet", "plugins": [
            {"type": "bridge", "bridge": self.bridge, "isGateway": true, "hairpinMode": true,
             "ipam": {"type": "host-local", "dataDir": format!("{dir}/net"),
                "ranges": [[{"subnet": format!("10.{}.{}.0/24", 200 + id % 50, id / 50 % 250)}]], "routes": [{"dst": "0.0.0.0/0"}]}}]});
        fs::write(self.path("cni/10-klet.conflist"), network.to_string()).expect("write");
        let config = format!(
            r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
address = "{dir}/c.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/pause:1"
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{dir}/cni"
"#
        );
        fs::write(self.path("config.toml"), config).expect("write");
    }

    /// Starts the daemon; shims of an earlier life go on. Blocks until it answers: nothing can go on before.
    #[allow(clippy::disallowed_methods)]
    pub fn spawn(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).expect("log");
        let child = Command::new("/usr/bin/containerd")
            .arg("-c")
            .arg(self.path("config.toml"))
            .stdout(log.try_clone().expect("log"))
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .expect("containerd starts");
        self.child = Some(child);
        let begun = Instant::now();
        while !self.ctr(&["version"]).status.success() {
            assert!(begun.elapsed() < Duration::from_secs(120), "containerd did not answer: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Starts the daemon unless it runs.
    pub fn revive(&mut self) {
        if self.child.is_none() && self.path("config.toml").exists() {
            self.spawn();
        }
    }

    /// Kills the daemon with -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kill");
            child.wait().expect("wait");
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub fn ctr(&self, args: &[&str]) -> std::process::Output {
        let socket = self.socket();
        Command::new("ctr").args(["-a", &socket, "-n", "k8s.io"]).args(args).output().expect("ctr runs")
    }

    fn import(&self, name: &str) {
        let build = self.path("image");
        let tar = |dir: &Path, to: &Path| {
            let made = Command::new("tar").arg("-C").arg(dir).arg("-cf").arg(to).arg(".").status().expect("tar");
            assert!(made.success());
        };
        let root = build.join("root");
        fs::create_dir_all(root.join("bin")).expect("mkdir");
        for dir in ["etc", "tmp", "proc", "sys", "dev", "root"] {
            fs::create_dir_all(root.join(dir)).expect("mkdir");
        }
        fs::copy("/usr/bin/busybox", root.join("bin/busybox")).expect("copy");
        let list = Command::new("/usr/bin/busybox").arg("--list").output().expect("busybox").stdout;
        for applet in String::from_utf8_lossy(&list).lines() {
            let _ = std::os::unix::fs::symlink("busybox", root.join("bin").join(applet));
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").expect("write");
        fs::write(root.join("etc/group"), "root:x:0:\n").expect("write");
        let archive = build.join("archive");
        fs::create_dir_all(&archive).expect("mkdir");
        tar(&root, &archive.join("layer.tar"));
        let layer = hex::encode(Sha256::digest(fs::read(archive.join("layer.tar")).expect("layer")));
        let entry = if name == "pause" { json!(["/bin/sleep", "2147483647"]) } else { json!(["/bin/sh"]) };
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = json!({"architecture": arch, "os": "linux", "config": {"Cmd": entry, "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]}});
        fs::write(archive.join("config.json"), config.to_string()).expect("write");
        let manifest =
            json!([{"Config": "config.json", "RepoTags": [format!("localhost/{name}:1")], "Layers": ["layer.tar"]}]);
        fs::write(archive.join("manifest.json"), manifest.to_string()).expect("write");
        let file = self.path(&format!("{name}.tar"));
        tar(&archive, &file);
        let imported = self.ctr(&["images", "import", &file.display().to_string()]);
        assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
        fs::remove_dir_all(&build).expect("remove");
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.revive();
        // whatever a failed test left behind ends here, through the runtime that made it
        let tasks = String::from_utf8_lossy(&self.ctr(&["tasks", "list", "-q"]).stdout).into_owned();
        for task in tasks.lines() {
            self.ctr(&["tasks", "kill", "-s", "SIGKILL", task]);
        }
        for task in tasks.lines() {
            self.ctr(&["tasks", "delete", "-f", task]);
        }
        self.kill();
        let state = self.dir.path().display().to_string();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mut ours: Vec<&str> =
            mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|at| at.starts_with(&state)).collect();
        ours.sort_by_key(|at| std::cmp::Reverse(at.len()));
        for at in ours {
            let _ = Command::new("umount").arg("-l").arg(at).status();
        }
        let _ = Command::new("ip").args(["link", "del", &self.bridge]).stderr(Stdio::null()).status();
    }
}
