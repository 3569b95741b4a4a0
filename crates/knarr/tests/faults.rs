//! What goes wrong in a cluster, and what its user then sees: images, commands, memory, disks, a killed runtime, pods that
//! fit nowhere or will not end, and objects that others own.
//!
//! Black box: the real binary, the real kubectl, real containers, on a disk of the store's own. Needs root.

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/registry.rs"]
mod registry;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use cluster::{Cluster, LATER, SOON, Step, Turn, both, eventually, processes, take_steps, until};
use registry::Registry;

#[test]
fn faults() {
    let _turn = Turn::take();
    let disk = Disk::mount("faults");
    let cluster = Cluster::beside("faults");
    let registry = Registry::start();
    let walk = Walk { image: format!("{}/guestbook-web:1", registry.address), cluster, registry, disk };
    let steps: &[Step<Walk>] = &[
        ("pods that fail, all at once", Walk::apply_failing),
        ("a missing image", Walk::missing_image),
        ("a command that exits at once", Walk::crash_loop),
        ("a command that is not there", Walk::missing_command),
        ("too much memory", Walk::out_of_memory),
        ("a failing liveness probe", Walk::not_alive),
        ("a failing readiness probe", Walk::not_ready),
        ("a pod that fits nowhere", Walk::unschedulable),
        ("a container that ignores SIGTERM", Walk::ignores_sigterm),
        ("owners and what they own", Walk::owners),
        ("a deleted namespace", Walk::namespace),
        ("a killed containerd", Walk::killed_containerd),
        ("a full disk", Walk::full_disk),
    ];
    take_steps(&walk, steps);
    walk.cluster.down();
}

/// A small file system for the cluster's store; it and the test's directory go when this does.
struct Disk {
    dir: PathBuf,
    store: PathBuf,
}

impl Disk {
    fn mount(name: &str) -> Disk {
        assert!(cluster::is_root(), "the end-to-end tests need root: they run containers and change the network");
        let dir = Cluster::dir_for(name);
        let store = dir.join("data/store");
        std::fs::create_dir_all(&store).expect("the store's directory");
        let disk = Disk { dir, store };
        disk.run("mount", &["-t", "tmpfs", "-o", "size=48m", "store"]);
        disk
    }

    fn grow(&self) {
        self.run("mount", &["-o", "remount,size=160m"]);
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = Command::new(program).args(arguments).arg(&self.store).output().expect("it runs");
        assert!(output.status.success(), "{program}: {}", both(&output));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.store).status();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Dropped in this order: the disk is in use as long as the cluster runs.
struct Walk {
    cluster: Cluster,
    registry: Registry,
    disk: Disk,
    image: String,
}

/// A manifest of one pod; `container` and `pod` are further lines of YAML for the one and the other.
fn pod(name: &str, image: &str, script: &str, container: &str, pod: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n{pod}  containers:\n  \
         - name: main\n    image: {image}\n    command: [sh, -c, '{script}']\n{container}---\n"
    )
}

/// The process that started this one, as far as it runs.
fn parent(pid: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

impl Walk {
    fn kubectl(&self, arguments: &[&str]) -> String {
        self.cluster.kubectl(arguments)
    }

    /// A field of the one container's status, such as `state.waiting.reason`.
    fn status(&self, pod: &str, field: &str) -> String {
        self.cluster.get(&["pod", pod], &format!("{{.status.containerStatuses[0].{field}}}"))
    }

    fn reaches(&self, pod: &str, field: &str, want: &str) {
        until(&format!("{field} of {pod} becomes {want}"), LATER, || self.status(pod, field) == want);
    }

    /// Waits until the container waits for this reason; answers the message, which may be another one a moment later.
    fn waits(&self, pod: &str, reason: &str) -> String {
        eventually(&format!("{pod} waits: {reason}"), LATER, || {
            let path = "{.status.containerStatuses[0].state.waiting.reason} {.status.containerStatuses[0].state.waiting.message}";
            let said = self.cluster.get(&["pod", pod], path);
            said.strip_prefix(reason).map(|message| message.trim_start().to_string())
        })
    }

    /// Waits for an event of the pod with this reason whose message begins so; answers the whole message.
    fn event(&self, pod: &str, kind: &str, reason: &str, message: &str) -> String {
        let selector = format!("involvedObject.name={pod},reason={reason},type={kind}");
        let path = r#"{range .items[*]}{.message}{"\n"}{end}"#;
        eventually(&format!("{kind} {reason} {message:?} of {pod}"), LATER, || {
            let messages = self.cluster.get(&["events", "--field-selector", &selector], path);
            messages.lines().find(|m| m.starts_with(message)).map(str::to_string)
        })
    }

    fn is_gone(&self, what: &[&str]) -> bool {
        let mut arguments = vec!["get", "--ignore-not-found", "-o", "name"];
        arguments.extend(what);
        self.kubectl(&arguments).is_empty()
    }

    /// What needs time to fail does so while other steps are looked at.
    fn apply_failing(&self) {
        let probe = |which: &str, script: &str| {
            format!(
                "    {which}:\n      exec: {{command: [sh, -c, '{script}']}}\n      periodSeconds: 1\n      failureThreshold: 2\n"
            )
        };
        let manifests = [
            pod("no-image", &format!("{}/guestbook-none:1", self.registry.address), "true", "", ""),
            pod("exits", &self.image, "echo so it ends; exit 3", "", ""),
            pod("no-command", &self.image, "true", "", "").replace("[sh, -c, 'true']", "[/bin/none]"),
            pod(
                "greedy", &self.image, "exec python3 -c \"b = bytearray(400 << 20)\"",
                "    resources: {limits: {memory: 64Mi}}\n", "  restartPolicy: Never\n",
            ),
            pod("not-alive", &self.image, "exec sleep 1000", &probe("livenessProbe", "echo dead; exit 1"), ""),
            pod("not-ready", &self.image, "exec sleep 1000", &probe("readinessProbe", "echo busy; exit 1"), ""),
            pod("too-big", &self.image, "true", "    resources: {requests: {cpu: 1k}}\n", ""),
            pod("elsewhere", &self.image, "true", "", "  nodeSelector: {disk: ssd}\n"),
            pod("stays", &self.image, "exec sleep 1000", "", ""),
        ];
        self.cluster.apply(&manifests.concat());
    }

    fn missing_image(&self) {
        let image = format!("{}/guestbook-none:1", self.registry.address);
        let told = self.event("no-image", "Warning", "Failed", &format!("Failed to pull image \"{image}\": "));
        assert!(told.contains("not found"), "{told}");
        self.event("no-image", "Warning", "Failed", "Error: ErrImagePull");
        let message = self.waits("no-image", "ImagePullBackOff");
        assert!(message.starts_with(&format!("Back-off pulling image \"{image}\"")), "{message}");
        self.event("no-image", "Normal", "BackOff", &format!("Back-off pulling image \"{image}\""));
        self.event("no-image", "Warning", "Failed", "Error: ImagePullBackOff");
        assert_eq!(self.cluster.get(&["pod", "no-image"], "{.status.phase}"), "Pending");
        self.reaches("no-image", "state.waiting.reason", "ErrImagePull");
        let said = self.cluster.kubectl_fails(&["logs", "no-image"]);
        assert!(said.contains("container \"main\" in pod \"no-image\" is waiting to start: "), "{said}");
    }

    fn crash_loop(&self) {
        let message = self.waits("exits", "CrashLoopBackOff");
        let uid = self.cluster.get(&["pod", "exits"], "{.metadata.uid}");
        let (before, after) =
            message.split_once("s restarting failed container=main pod=exits_default(").expect(&message);
        assert!(before.starts_with("back-off ") && after == format!("{uid})"), "{message}");
        self.event("exits", "Warning", "BackOff", "Back-off restarting failed container main in pod exits_default(");
        until("a second restart", LATER, || {
            self.status("exits", "restartCount").parse::<u32>().is_ok_and(|times| times >= 2)
        });
        assert_eq!(self.status("exits", "lastState.terminated.exitCode"), "3");
        assert_eq!(self.status("exits", "lastState.terminated.reason"), "Error");
        assert_eq!(self.cluster.get(&["pod", "exits"], "{.status.phase}"), "Running");
        assert_eq!(self.kubectl(&["logs", "exits", "--previous"]), "so it ends");
        let listed = || self.kubectl(&["get", "pod", "exits"]).contains("CrashLoopBackOff");
        until("the list says it too", LATER, listed);
    }

    fn missing_command(&self) {
        let told = self.event("no-command", "Warning", "Failed", "Error: failed to create containerd task: ");
        assert!(told.contains("exec: \"/bin/none\": stat /bin/none: no such file or directory"), "{told}");
        self.reaches("no-command", "lastState.terminated.reason", "StartError");
        assert_eq!(self.status("no-command", "lastState.terminated.exitCode"), "128");
        until("it waits", LATER, || {
            let reason = self.status("no-command", "state.waiting.reason");
            ["RunContainerError", "CrashLoopBackOff"].contains(&reason.as_str())
        });
    }

    fn out_of_memory(&self) {
        self.reaches("greedy", "state.terminated.reason", "OOMKilled");
        assert_eq!(self.status("greedy", "state.terminated.exitCode"), "137");
        until("phase Failed", SOON, || self.cluster.get(&["pod", "greedy"], "{.status.phase}") == "Failed");
        assert!(self.kubectl(&["get", "pod", "greedy"]).contains("OOMKilled"));
    }

    fn not_alive(&self) {
        self.event("not-alive", "Warning", "Unhealthy", "Liveness probe failed: dead");
        self.event("not-alive", "Normal", "Killing", "Container main failed liveness probe, will be restarted");
        until("a restart", LATER, || {
            self.status("not-alive", "restartCount").parse::<u32>().is_ok_and(|times| times >= 1)
        });
    }

    fn not_ready(&self) {
        self.event("not-ready", "Warning", "Unhealthy", "Readiness probe failed: busy");
        assert_eq!(self.status("not-ready", "ready"), "false");
        assert_eq!(self.status("not-ready", "restartCount"), "0");
        let condition =
            r#"{.status.conditions[?(@.type=="Ready")].reason} {.status.conditions[?(@.type=="Ready")].message}"#;
        let said = self.cluster.get(&["pod", "not-ready"], condition);
        assert_eq!(said, "ContainersNotReady containers with unready status: [main]");
    }

    fn unschedulable(&self) {
        for (name, why) in [
            ("too-big", "0/1 nodes are available: 1 Insufficient cpu."),
            ("elsewhere", "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."),
        ] {
            let told = self.event(name, "Warning", "FailedScheduling", why);
            assert!(told.contains(" preemption: 0/1 nodes are available: 1 "), "{told}");
            let condition = r#"{.status.phase} {.status.conditions[?(@.type=="PodScheduled")].reason}"#;
            assert_eq!(self.cluster.get(&["pod", name], condition), "Pending Unschedulable");
        }
        // It is scheduled as soon as it fits.
        let node = self.cluster.get(&["nodes"], "{.items[0].metadata.name}");
        self.kubectl(&["label", "node", &node, "disk=ssd"]);
        until("it is scheduled", SOON, || self.cluster.get(&["pod", "elsewhere"], "{.spec.nodeName}") == node);
        self.kubectl(&["label", "node", &node, "disk-"]);
        let pods = "too-big elsewhere greedy no-image exits no-command not-alive not-ready";
        let pods: Vec<&str> = pods.split(' ').collect();
        self.kubectl(&[&["delete", "pod", "--wait=false"], &pods[..]].concat());
    }

    fn ignores_sigterm(&self) {
        let script = "trap \"echo no\" TERM; echo up; while true; do sleep 0.2; done";
        self.cluster.apply(
            &pod("stubborn", &self.image, script, "", "")
                .replace("terminationGracePeriodSeconds: 1", "terminationGracePeriodSeconds: 2"),
        );
        self.kubectl(&["wait", "--for=condition=Ready", "pod/stubborn", "--timeout=240s"]);
        until("it traps signals", SOON, || self.kubectl(&["logs", "stubborn"]) == "up");
        let mark = self.status("stubborn", "containerID").rsplit('/').next().expect("an ID").to_string();
        let began = Instant::now();
        self.kubectl(&["delete", "pod", "stubborn"]);
        let took = began.elapsed().as_secs_f64();
        assert!((2.0..30.0).contains(&took), "deleted after {took:.1} s: of its own 2 s, not of the usual 30 s");
        assert!(self.is_gone(&["pod", "stubborn"]));
        assert!(processes(&mark).is_empty(), "its shim is left");
        self.event("stubborn", "Normal", "Killing", "Stopping container main");
    }

    fn deployment(&self, name: &str, namespace: &str) -> String {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  replicas: 2\n  \
             selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      \
             terminationGracePeriodSeconds: 1\n      containers:\n      - {{name: main, image: \"{}\", command: [sleep, \"1000\"]}}\n---\n",
            self.image
        )
    }

    /// Names of what a label selects, and the kinds of their owners.
    fn owned(&self, kind: &str, app: &str) -> Vec<String> {
        let path = r#"{range .items[*]}{.metadata.name}{" "}{.metadata.ownerReferences[*].kind}{"\n"}{end}"#;
        let text = self.cluster.get(&[kind, "-l", &format!("app={app}")], path);
        text.lines().map(str::to_string).collect()
    }

    fn owners(&self) {
        for app in ["orphaned", "foreground", "background"] {
            self.cluster.apply(&self.deployment(app, "default"));
        }
        for app in ["orphaned", "foreground", "background"] {
            self.kubectl(&["rollout", "status", &format!("deployment/{app}"), "--timeout=240s"]);
        }
        let pods = self.owned("pods", "orphaned");
        self.kubectl(&["delete", "deployment", "orphaned", "--cascade=orphan"]);
        let sets = eventually("the replica set has no owner", SOON, || {
            let sets = self.owned("replicasets", "orphaned");
            (sets.len() == 1 && !sets[0].contains("Deployment")).then_some(sets)
        });
        assert_eq!(self.owned("pods", "orphaned"), pods, "pods stay, with their owner");
        self.kubectl(&["delete", "replicaset", sets[0].trim(), "--cascade=background"]);
        assert!(self.is_gone(&["replicaset", "-l", "app=orphaned"]));
        until("its pods go", SOON, || self.owned("pods", "orphaned").is_empty());

        self.kubectl(&["delete", "deployment", "foreground", "--cascade=foreground"]);
        assert!(self.is_gone(&["deployment,replicaset,pod", "-l", "app=foreground"]), "what is owned goes first");

        self.kubectl(&["delete", "deployment", "background"]);
        until("its replica set and pods go", SOON, || self.is_gone(&["replicaset,pod", "-l", "app=background"]));

        // An owner that is not there is no owner.
        self.cluster.apply("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: lost\n  ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: none, uid: 5bd40cfc-d1bd-4a40-9d39-4c6dfe5f4ca0}]\n");
        until("the lost one goes", SOON, || self.is_gone(&["configmap", "lost"]));
    }

    fn namespace(&self) {
        self.kubectl(&["create", "namespace", "doomed"]);
        let held = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: held, namespace: doomed, finalizers: [example.com/hold]}\n---\n";
        let more = "apiVersion: v1\nkind: Service\nmetadata: {name: doomed, namespace: doomed}\nspec: {selector: {app: doomed}, ports: [{port: 80}]}\n---\n\
                    apiVersion: v1\nkind: Secret\nmetadata: {name: doomed, namespace: doomed}\n";
        self.cluster.apply(&format!("{}{held}{more}", self.deployment("doomed", "doomed")));
        self.kubectl(&["rollout", "status", "deployment/doomed", "-n", "doomed", "--timeout=240s"]);
        self.kubectl(&["delete", "namespace", "doomed", "--wait=false"]);
        assert_eq!(self.cluster.get(&["namespace", "doomed"], "{.status.phase}"), "Terminating");
        let refused = self.cluster.kubectl_fails(&["create", "configmap", "late", "-n", "doomed"]);
        assert!(
            refused
                .contains("forbidden: unable to create new content in namespace doomed because it is being terminated"),
            "{refused}"
        );
        until("all but the held one goes", LATER, || self.is_gone(&["all,secrets", "-n", "doomed"]));
        let why = r#"{.status.conditions[?(@.type=="NamespaceFinalizersRemaining")].message}"#;
        let why = eventually("the namespace says what holds it", SOON, || {
            Some(self.cluster.get(&["namespace", "doomed"], why)).filter(|m| !m.is_empty())
        });
        assert_eq!(
            why,
            "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
        );
        let release = r#"{"metadata":{"finalizers":null}}"#;
        self.kubectl(&["patch", "configmap", "held", "-n", "doomed", "--type=merge", "-p", release]);
        until("the namespace goes", LATER, || self.is_gone(&["namespace", "doomed"]));
    }

    fn killed_containerd(&self) {
        let id = self.status("stays", "containerID");
        let config = self.cluster.data_dir().join("containerd/config.toml").display().to_string();
        // One of its children looks the same until it runs another program.
        let mut found = processes(&format!("containerd --config {config}"));
        found.retain(|(pid, _)| parent(*pid) == Some(self.cluster.pid()));
        let [(pid, _)] = &found[..] else { panic!("not one containerd: {found:?}") };
        let killed = Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill runs");
        assert!(killed.success());
        until("another containerd", SOON, || {
            let found = processes(&format!("containerd --config {config}"));
            found.iter().any(|(other, _)| other != pid && parent(*other) == Some(self.cluster.pid()))
        });
        self.cluster.apply(&pod("after", &self.image, "exec sleep 1000", "", ""));
        self.kubectl(&["wait", "--for=condition=Ready", "pod/after", "--timeout=240s"]);
        self.kubectl(&["wait", "--for=condition=Ready", "node", "--all", "--timeout=240s"]);
        assert_eq!(self.status("stays", "containerID"), id, "the container went on");
        assert_eq!(self.status("stays", "restartCount"), "0");
        assert_eq!(self.kubectl(&["exec", "stays", "--", "echo", "alive"]), "alive");
    }

    /// Writes until the store's disk is full; what was acknowledged stays, reads go on, and with more room writes do too.
    fn full_disk(&self) {
        let mut written: Vec<(String, usize)> = Vec::new();
        let mut refused = String::new();
        // What has no room for much may still have room for little.
        for size_bytes in [900 << 10, 100 << 10, 10 << 10, 1 << 10] {
            let blob = self.cluster.dir.join("blob");
            std::fs::write(&blob, "x".repeat(size_bytes)).expect("written");
            let from = format!("--from-file=blob={}", blob.display());
            loop {
                let name = format!("filler-{}", written.len());
                let output = self.cluster.try_kubectl(&["create", "configmap", &name, &from]);
                if !output.status.success() {
                    refused = both(&output);
                    break;
                }
                written.push((name, size_bytes));
                assert!(written.len() < 200, "the disk never fills");
            }
        }
        println!("    full after {} ConfigMaps: {}", written.len(), refused.trim());
        assert!(
            refused.contains("no space left for the store in ") && refused.contains("free disk space there"),
            "{refused}"
        );

        self.check(&written);
        assert_eq!(self.kubectl(&["exec", "stays", "--", "echo", "alive"]), "alive");
        assert!(Path::new("/proc").join(self.cluster.pid().to_string()).exists());

        self.disk.grow();
        until("writes go on", LATER, || {
            self.cluster.try_kubectl(&["create", "configmap", "again", "--from-literal=a=1"]).status.success()
        });
        self.check(&written);
        self.kubectl(&["delete", "configmap", "--all", "--wait=false"]);
        self.cluster.apply(&pod("last", &self.image, "exec sleep 1000", "", ""));
        self.kubectl(&["wait", "--for=condition=Ready", "pod/last", "--timeout=240s"]);
    }

    /// Every acknowledged ConfigMap is there, whole.
    fn check(&self, written: &[(String, usize)]) {
        for (name, size_bytes) in written {
            assert_eq!(self.cluster.get(&["configmap", name], "{.data.blob}").len(), *size_bytes, "{name}");
        }
    }
}
