//! The kubelet with a real containerd and real containers, against a real API server whose store is in memory.
//!
//! Needs root, containerd, runc, CNI plugins and a static busybox on the host; fails without them, never skips. One test
//! walks through everything, since a containerd of our own takes seconds to start. Everything started is ended.

#[path = "lab/api.rs"]
mod api;
#[path = "lab/containerd.rs"]
mod containerd;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use api::{Api, PODS};
use containerd::Containerd;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

struct Lab {
    api: Api,
    config: kubelet::Config,
    runtime: Containerd,
    kubelet: Option<(CancellationToken, tokio::task::JoinHandle<()>)>,
}

impl Lab {
    async fn new() -> Lab {
        let runtime = Containerd::start();
        let authority = pki::Authority::generate("lab").expect("ca");
        let request = pki::CertificateRequest::server("n1", &["n1".to_string()], &[]);
        let identity = authority.issue(&request).expect("certificate");
        let mut config = kubelet::Config::new("n1", runtime.path("kubelet"));
        config.cri_endpoint = format!("unix://{}", runtime.socket());
        config.owner = format!("lab-{}", std::process::id());
        config.node_ips = vec!["127.0.0.1".parse().expect("ip")];
        config.cluster_dns = vec!["10.96.0.10".parse().expect("ip")];
        config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.server_cert_pem = identity.certificate_pem.clone();
        config.server_key_pem = identity.key_pem.clone();
        config.client_ca_pem = authority.certificate_pem().to_string();
        config.cgroup_root = format!("/klet-{}", std::process::id());
        config.crash_backoff_initial = Duration::from_secs(2);
        Lab { api: Api::start().await, config, runtime, kubelet: None }
    }

    fn start(&mut self) {
        let shutdown = CancellationToken::new();
        let client = self.api.client();
        let informers = client::Informers::new(client.clone(), shutdown.clone());
        let (config, token) = (self.config.clone(), shutdown.clone());
        let task = tokio::spawn(async move {
            kubelet::run(config, client, informers, token).await.expect("kubelet runs");
        });
        self.kubelet = Some((shutdown, task));
    }

    async fn stop(&mut self) {
        if let Some((shutdown, task)) = self.kubelet.take() {
            shutdown.cancel();
            task.await.expect("kubelet ends");
        }
    }

    /// A pod whose spec is in `lab/pods.json`.
    fn create_known(&self, name: &str) {
        let mut specs: Value = serde_json::from_str(include_str!("lab/pods.json")).expect("JSON");
        self.create(name, specs[name].take());
    }

    fn create(&self, name: &str, mut spec: Value) {
        spec["nodeName"] = json!("n1");
        spec["automountServiceAccountToken"] = json!(false);
        for list in ["containers", "initContainers"] {
            for container in spec[list].as_array_mut().into_iter().flatten() {
                container["image"] = container.get("image").cloned().unwrap_or(json!("localhost/busybox:1"));
                container["imagePullPolicy"] = json!("IfNotPresent");
            }
        }
        self.api.create(PODS, &json!({"metadata": {"name": name}, "spec": spec}));
    }

    fn pod(&self, name: &str) -> Value {
        self.api.get(&format!("{PODS}/{name}"))
    }

    /// Waits until the pod looks as wanted.
    async fn until(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        wait(LONG, &format!("{name}: {what}"), || {
            let pod = self.pod(name);
            if wanted(&pod) { Ok(pod) } else { Err(format!("{:#}\n{}", pod["status"], self.events(name))) }
        })
        .await
    }

    /// Waits until the node is there and says this of itself.
    async fn until_node_is(&self, wanted: bool) -> Value {
        let what = if wanted { "node: ready" } else { "node: not ready" };
        wait(LONG, what, || {
            let node = self.api.get("/api/v1/nodes/n1");
            if ready(&node) == wanted { Ok(node) } else { Err(format!("{node:#}")) }
        })
        .await
    }

    fn tasks(&self) -> Vec<String> {
        String::from_utf8_lossy(&self.runtime.ctr(&["tasks", "list", "-q"]).stdout).lines().map(String::from).collect()
    }

    /// Waits for an event with these words: they are written after what they tell of.
    async fn told(&self, name: &str, words: &str) {
        wait(LONG, &format!("{name}: told {words:?}"), || {
            let events = self.events(name);
            if events.contains(words) { Ok(()) } else { Err(events) }
        })
        .await
    }

    fn events(&self, name: &str) -> String {
        let all = self.api.get(&format!("/api/v1/events?fieldSelector=involvedObject.name={name}"));
        let lines = all["items"].as_array().into_iter().flatten().map(|event| {
            let [kind, reason, message] =
                ["type", "reason", "message"].map(|field| event[field].as_str().unwrap_or_default());
            format!("{kind} {reason}: {message}\n")
        });
        lines.collect()
    }

    /// Waits until a container's log has all of these words.
    async fn logged(&self, name: &str, container: &str, attempt: u32, words: &[&str]) {
        wait(LONG, &format!("{name}: logged {words:?}"), || {
            let log = self.log(name, container, attempt);
            if words.iter().all(|words| log.contains(words)) { Ok(()) } else { Err(log) }
        })
        .await
    }

    fn log(&self, name: &str, container: &str, attempt: u32) -> String {
        let uid = self.pod(name)["metadata"]["uid"].as_str().unwrap_or_default().to_string();
        let path = self
            .config
            .pod_log_dir("default", name, &uid)
            .join(kubelet::Config::container_log_name(container, attempt));
        std::fs::read_to_string(path).unwrap_or_default()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // sandboxes are removed by the runtime, so that their networks go too; the test may have failed while it was down
        self.runtime.revive();
        let config = self.config.clone();
        let stopped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(kubelet::stop_all_pods(&config))
        });
        match stopped.join() {
            Ok(Ok(())) => {}
            other => eprintln!("pods were left behind: {other:?}"),
        }
    }
}

/// A safety net, for machines that are slow; what is awaited comes much sooner.
const LONG: Duration = Duration::from_secs(300);

/// Looks again and again until there is an answer, and says how long it took.
async fn wait<T>(limit: Duration, what: &str, look: impl Fn() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(answer) => {
                println!("{what} after {} ms", begun.elapsed().as_millis());
                return answer;
            }
            Err(instead) => assert!(begun.elapsed() < limit, "never: {what}\n{instead}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn if_so(holds: bool) -> Result<(), String> {
    if holds { Ok(()) } else { Err(String::new()) }
}

fn condition<'a>(pod: &'a Value, kind: &str) -> &'a str {
    let list = pod["status"]["conditions"].as_array();
    let found = list.into_iter().flatten().find(|condition| condition["type"] == kind);
    found.and_then(|condition| condition["status"].as_str()).unwrap_or("-")
}

fn ready(pod: &Value) -> bool {
    condition(pod, "Ready") == "True"
}

fn restarts(pod: &Value) -> u64 {
    status(pod, 0)["restartCount"].as_u64().unwrap_or_default()
}

fn status(pod: &Value, index: usize) -> &Value {
    &pod["status"]["containerStatuses"][index]
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_live_and_die() {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(std::env::var("KLET_LOG").unwrap_or_else(|_| "warn".into()))
        .try_init();
    let mut lab = Lab::new().await;
    lab.start();
    node_is_ready(&lab).await;
    runs_and_ends(&lab).await;
    crashes_and_backs_off(&lab).await;
    init_and_sidecar(&lab).await;
    probes(&lab).await;
    bad_images_and_configs(&lab).await;
    hooks_and_grace(&lab).await;
    limits_and_messages(&lab).await;
    survives_restarts(&mut lab).await;
    namespaces(&lab).await;
    many(&lab).await;
    let pods = lab.api.get(PODS);
    let left =
        pods["items"].as_array().expect("a list").iter().map(|pod| pod["metadata"]["name"].as_str().expect("name"));
    left.clone().for_each(|name| lab.api.delete_pod(name, 1));
    for name in left {
        lab.until(name, "gone", Value::is_null).await;
    }
    // traces are removed after the objects
    let list = || lab.runtime.ctr(&["containers", "list", "-q"]).stdout;
    wait(LONG, "no container is left", || if_so(list().is_empty())).await;
    lab.stop().await;
    kubelet::stop_all_pods(&lab.config).await.expect("stops");
    // v1, and v2
    for hierarchy in ["/memory", ""] {
        let cgroups = format!("/sys/fs/cgroup{hierarchy}{}", lab.config.cgroup_root);
        assert!(!std::path::Path::new(&cgroups).exists(), "{cgroups} is left");
    }
}

async fn node_is_ready(lab: &Lab) {
    let node = lab.until_node_is(true).await;
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], "n1");
    let version = node["status"]["nodeInfo"]["containerRuntimeVersion"].as_str().expect("text");
    assert!(version.starts_with("containerd://"));
    assert!(node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64().expect("port") > 0);
    let lease = || lab.api.get("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1");
    wait(LONG, "a lease", || if_so(lease().is_object())).await;
}

async fn runs_and_ends(lab: &Lab) {
    lab.create_known("web");
    let pod = lab.until("web", "ready", ready).await;
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["status"]["qosClass"], "BestEffort");
    assert_eq!(status(&pod, 0)["started"], true);
    assert!(status(&pod, 0)["containerID"].as_str().expect("id").starts_with("containerd://"));
    assert!(pod["status"]["podIP"].as_str().expect("ip").starts_with("10."));
    let search = "search default.svc.cluster.local svc.cluster.local cluster.local";
    lab.logged("web", "c", 0, &["stdout F hi web", "192.0.2.9\talias", "nameserver 10.96.0.10", search]).await;
    println!("{}", lab.events("web"));
    lab.api.delete_pod("web", 600);
    lab.until("web", "gone long before its time", Value::is_null).await;
    lab.told("web", "Normal Killing: Stopping container c").await;

    lab.create_known("job");
    let pod = lab.until("job", "succeeded", |pod| pod["status"]["phase"] == "Succeeded").await;
    assert_eq!(status(&pod, 0)["state"]["terminated"]["reason"], "Completed");
    lab.create_known("fails");
    let pod = lab.until("fails", "failed", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(status(&pod, 0)["state"]["terminated"]["exitCode"], 7);
}

async fn crashes_and_backs_off(lab: &Lab) {
    let begun = Instant::now();
    lab.create_known("crash");
    let waiting = |pod: &Value| status(pod, 0)["state"]["waiting"]["reason"] == "CrashLoopBackOff";
    let pod = lab.until("crash", "backs off", waiting).await;
    assert!(restarts(&pod) >= 1);
    assert_eq!(status(&pod, 0)["lastState"]["terminated"]["exitCode"], 1);
    assert_eq!(condition(&pod, "Ready"), "False");
    lab.until("crash", "restarted twice", |pod| restarts(pod) >= 2).await;
    assert!(begun.elapsed() >= lab.config.crash_backoff_initial, "it must back off");
    lab.told("crash", "Warning BackOff: Back-off restarting failed container c in pod crash_default(").await;
    lab.api.delete_pod("crash", 1);
    lab.until("crash", "gone", Value::is_null).await;
}

async fn init_and_sidecar(lab: &Lab) {
    lab.create_known("inits");
    let pod = lab.until("inits", "ready", ready).await;
    assert_eq!(pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    assert_eq!(pod["status"]["initContainerStatuses"][1]["started"], true);
    lab.logged("inits", "c", 0, &["stdout F one"]).await;
    lab.api.delete_pod("inits", 5);

    lab.create_known("batch");
    lab.until("batch", "succeeded although a sidecar ran", |pod| pod["status"]["phase"] == "Succeeded").await;
    lab.until("inits", "gone", Value::is_null).await;
}

async fn probes(lab: &Lab) {
    // What its probes look for is made here, so that nothing depends on how long anything takes.
    let dir = lab.runtime.path("probed");
    let probe = |command: &[&str], failures: u32| json!({"exec": {"command": command}, "periodSeconds": 1, "timeoutSeconds": 60, "failureThreshold": failures});
    lab.create("probed", json!({"terminationGracePeriodSeconds": 1, "volumes": [{"name": "v", "hostPath": {"path": &dir, "type": "DirectoryOrCreate"}}],
        "containers": [{"name": "c", "command": ["/bin/sleep", "1000"], "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        "readinessProbe": probe(&["/bin/test", "-e", "/v/ready"], 1), "livenessProbe": probe(&["/bin/test", "!", "-e", "/v/ill"], 2)}]}));
    let pod = lab.until("probed", "running", |pod| pod["status"]["phase"] == "Running").await;
    assert_eq!(condition(&pod, "Ready"), "False");
    std::fs::write(dir.join("ready"), "").expect("written");
    lab.until("probed", "ready", ready).await;
    std::fs::write(dir.join("ill"), "").expect("written");
    lab.until("probed", "restarted by liveness", |pod| restarts(pod) >= 1).await;
    lab.told("probed", "Normal Killing: Container c failed liveness probe, will be restarted").await;
    lab.api.delete_pod("probed", 1);
    lab.until("probed", "gone", Value::is_null).await;
}

async fn bad_images_and_configs(lab: &Lab) {
    lab.create_known("noimage");
    lab.create_known("badname");
    lab.create_known("noconfig");
    lab.create_known("nocommand");
    let reason = |pod: &Value| status(pod, 0)["state"]["waiting"]["reason"].as_str().unwrap_or_default().to_string();
    lab.until("noimage", "ErrImagePull", |pod| reason(pod) == "ErrImagePull").await;
    lab.until("noimage", "ImagePullBackOff", |pod| reason(pod) == "ImagePullBackOff").await;
    println!("{}", lab.events("noimage"));
    lab.until("badname", "InvalidImageName", |pod| reason(pod) == "InvalidImageName").await;
    let pod =
        lab.until("noconfig", "CreateContainerConfigError", |pod| reason(pod) == "CreateContainerConfigError").await;
    assert_eq!(status(&pod, 0)["state"]["waiting"]["message"], "configmap \"later\" not found");
    let later = json!({"metadata": {"name": "later"}, "data": {"a": "b"}});
    lab.api.create("/api/v1/namespaces/default/configmaps", &later);
    lab.until("noconfig", "ready once the config map is there", ready).await;
    let pod = lab.until("nocommand", "failed", |pod| pod["status"]["phase"] == "Failed").await;
    let ended = &status(&pod, 0)["state"]["terminated"];
    assert_eq!((&ended["reason"], &ended["exitCode"]), (&json!("StartError"), &json!(128)), "{ended:#}");
    let begun = Instant::now();
    lab.create_known("nostart");
    lab.until("nostart", "backs off", |pod| reason(pod) == "CrashLoopBackOff").await;
    lab.until("nostart", "restarted twice", |pod| restarts(pod) >= 2).await;
    assert!(begun.elapsed() >= lab.config.crash_backoff_initial, "it must back off");
    for name in ["noimage", "badname", "noconfig", "nocommand", "nostart"] {
        lab.api.delete_pod(name, 1);
    }
}

async fn hooks_and_grace(lab: &Lab) {
    lab.create("deaf", json!({"terminationGracePeriodSeconds": 600, "volumes": [{"name": "v", "hostPath": {"path": lab.runtime.path("hooked"), "type": "DirectoryOrCreate"}}],
        "containers": [{"name": "c", "command": ["/bin/sh", "-c", "trap '' TERM; while true; do sleep 1; done"],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        "lifecycle": {"postStart": {"exec": {"command": ["/bin/touch", "/v/post"]}}, "preStop": {"exec": {"command": ["/bin/touch", "/v/pre"]}}}}]}));
    lab.until("deaf", "ready", ready).await;
    assert!(lab.runtime.path("hooked/post").exists());
    lab.api.delete_pod("deaf", 600);
    wait(LONG, "the hook has run", || if_so(lab.runtime.path("hooked/pre").exists())).await;
    assert!(!lab.pod("deaf").is_null(), "it ignores the signal");
    // a shorter grace period takes effect at once
    lab.api.delete_pod("deaf", 1);
    lab.until("deaf", "gone long before its time", Value::is_null).await;

    lab.create_known("forced");
    lab.until("forced", "ready", ready).await;
    lab.api.delete_pod("forced", 0);
    assert!(lab.pod("forced").is_null());

    lab.create_known("deadline");
    let pod = lab.until("deadline", "failed", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
}

async fn limits_and_messages(lab: &Lab) {
    lab.create_known("limited");
    let pod = lab.until("limited", "failed", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(status(&pod, 0)["state"]["terminated"]["message"], "last words\n");
    assert_eq!(pod["status"]["qosClass"], "Burstable");
    lab.create_known("logged");
    let pod = lab.until("logged", "failed", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(status(&pod, 0)["state"]["terminated"]["message"], "from the log\n");
    lab.create_known("hungry");
    let pod = lab.until("hungry", "failed", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(status(&pod, 0)["state"]["terminated"]["reason"], "OOMKilled", "{:#}", status(&pod, 0));
    lab.create_known("toobig");
    let pod = lab.until("toobig", "refused", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(pod["status"]["reason"], "OutOfcpu");
    lab.create_known("root");
    let pod = lab
        .until("root", "refused", |pod| status(pod, 0)["state"]["waiting"]["reason"] == "CreateContainerConfigError")
        .await;
    let message = status(&pod, 0)["state"]["waiting"]["message"].as_str().expect("text").to_string();
    assert!(
        message.starts_with("container has runAsNonRoot and image will run as root (pod: \"root_default("),
        "{message}"
    );
}

async fn survives_restarts(lab: &mut Lab) {
    lab.create_known("steady");
    lab.create_known("doomed");
    let before = lab.until("steady", "ready", ready).await;
    lab.until("doomed", "ready", ready).await;
    lab.stop().await;
    let tasks = lab.tasks().len();
    assert!(tasks >= 4, "pods go on without a kubelet, {tasks} tasks");
    lab.api.delete_pod("doomed", 0);
    lab.start();
    wait(LONG, "the orphan is ended", || if_so(lab.tasks().len() <= tasks - 2)).await;
    let after = lab.until("steady", "ready", ready).await;
    assert_eq!(status(&after, 0)["containerID"], status(&before, 0)["containerID"]);
    assert_eq!(status(&after, 0)["restartCount"], 0);

    // containerd dies; the node says so, and the pod is untouched when it comes back
    lab.runtime.kill();
    lab.until_node_is(false).await;
    lab.runtime.spawn();
    lab.until_node_is(true).await;
    let after = lab.until("steady", "ready", ready).await;
    assert_eq!(status(&after, 0)["containerID"], status(&before, 0)["containerID"]);

    // the API goes away; a crash is still healed
    lab.api.set_down(true);
    let id = status(&before, 0)["containerID"].as_str().expect("id").trim_start_matches("containerd://").to_string();
    let tasks = lab.tasks();
    assert!(lab.runtime.ctr(&["tasks", "kill", "-s", "SIGKILL", &id]).status.success());
    let another = || lab.tasks().iter().any(|task| !tasks.contains(task));
    wait(LONG, "another container in its place", || if_so(another())).await;
    lab.api.set_down(false);
    let after = lab.until("steady", "restarted", |pod| restarts(pod) == 1 && ready(pod)).await;
    assert_eq!(status(&after, 0)["lastState"]["terminated"]["exitCode"], 137);

    // its sandbox dies: a new one is made, the restart is counted
    let sandboxes = lab.runtime.ctr(&["containers", "list"]);
    let text = String::from_utf8_lossy(&sandboxes.stdout).into_owned();
    let uid = after["metadata"]["uid"].as_str().expect("uid").to_string();
    let pause =
        text.lines().filter(|line| line.contains("localhost/pause")).filter_map(|line| line.split_whitespace().next());
    let own = pause.filter(|id| {
        let info = lab.runtime.ctr(&["containers", "info", id]);
        String::from_utf8_lossy(&info.stdout).contains(&uid)
    });
    for id in own.map(str::to_string).collect::<Vec<_>>() {
        lab.runtime.ctr(&["tasks", "kill", "-s", "SIGKILL", &id]);
    }
    let after = lab.until("steady", "in a new sandbox", |pod| restarts(pod) == 2 && ready(pod)).await;
    lab.told("steady", "Normal SandboxChanged: Pod sandbox changed, it will be killed and re-created.").await;
    assert_eq!(after["status"]["phase"], "Running");
}

async fn namespaces(lab: &Lab) {
    lab.create_known("onhost");
    let pod = lab.until("onhost", "ready", ready).await;
    assert_eq!(pod["status"]["podIP"], "127.0.0.1");
    lab.create_known("shared");
    let pod = lab.until("shared", "ready", ready).await;
    lab.logged("shared", "b", 0, &["uid=1234 gid=5678 groups=99", "stdout F named", "stdout F 81", "/bin/sleep 1000"])
        .await;
    // a debug container joins the process namespace of another
    let debug = json!([{"name": "debug", "image": "localhost/busybox:1", "imagePullPolicy": "Never",
        "targetContainerName": "a", "command": ["/bin/sh", "-c", "echo here; exec sleep 1000"]}]);
    let patch = json!({"spec": {"ephemeralContainers": debug}});
    lab.api.patch(&format!("{PODS}/shared/ephemeralcontainers"), &patch);
    lab.logged("shared", "debug", 0, &["stdout F here"]).await;
    let after = lab
        .until("shared", "debugged", |pod| {
            !pod["status"]["ephemeralContainerStatuses"][0]["state"]["running"].is_null()
        })
        .await;
    assert_eq!(status(&after, 0)["containerID"], status(&pod, 0)["containerID"]);
    lab.create_known("userns");
    lab.told("userns", "user namespaces").await;
}

async fn many(lab: &Lab) {
    let begun = Instant::now();
    for index in 0..20 {
        lab.create(&format!("many-{index}"), json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "command": ["/bin/sleep", "1000"]}]}));
    }
    for index in 0..20 {
        lab.until(&format!("many-{index}"), "ready", ready).await;
    }
    println!("20 pods at once: {} ms", begun.elapsed().as_millis());
}
