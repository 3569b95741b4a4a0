//! The guestbook, from `kubectl apply` to a running, reachable, self-healing application: the walk a new user takes.
//!
//! Black box: the real binary, the real kubectl, real containers. Needs root.

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/registry.rs"]
mod registry;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use cluster::{Cluster, LATER, SOON, Step, Talk, both, eventually, http_get, take_steps, until};
use registry::Registry;

#[test]
fn guestbook() {
    let cluster = Cluster::up("guestbook");
    let registry = Registry::start();
    let manifests = registry.manifests(&cluster.dir);
    let walk = Walk { cluster, registry, manifests };
    let steps: &[Step<Walk>] = &[
        ("apply", Walk::apply),
        ("reach by DNS name and by NodePort", Walk::reach),
        ("look", Walk::look),
        ("logs, exec, port-forward", Walk::talk),
        ("change", Walk::change),
        ("server-side apply", Walk::server_side),
        ("a killed process restarts", Walk::killed_process),
        ("a deleted pod is replaced", Walk::deleted_pod),
        ("an unready pod leaves the service", Walk::unready_pod),
        ("a broken update stops, undo mends it", Walk::broken_update),
        ("kill -9 leaves containers untouched", Walk::killed_knarr),
        ("down and up again", Walk::down_and_up),
    ];
    take_steps(&walk, steps);
}

struct Walk {
    cluster: Cluster,
    registry: Registry,
    manifests: PathBuf,
}

impl Walk {
    fn kubectl(&self, arguments: &[&str]) -> String {
        self.cluster.kubectl(arguments)
    }

    fn url(&self) -> String {
        let port = self.cluster.get(&["service", "web"], "{.spec.ports[0].nodePort}");
        let ip = self.cluster.get(&["nodes"], r#"{.items[0].status.addresses[?(@.type=="InternalIP")].address}"#);
        format!("http://{ip}:{port}/")
    }

    fn web_pods(&self) -> BTreeSet<String> {
        let names = self.cluster.get(&["pods", "-l", "tier=web"], "{.items[*].metadata.name}");
        names.split_whitespace().map(str::to_string).collect()
    }

    fn a_web_pod(&self) -> String {
        self.web_pods().pop_first().expect("a web pod")
    }

    /// Addresses that the web service sends to.
    fn ready_endpoints(&self) -> usize {
        let path = "{.items[*].endpoints[?(@.conditions.ready==true)].addresses[0]}";
        let label = "kubernetes.io/service-name=web";
        self.cluster.get(&["endpointslices", "-l", label], path).split_whitespace().count()
    }

    fn rolled_out(&self) {
        self.kubectl(&["rollout", "status", "deployment/store", "--timeout=240s"]);
        self.kubectl(&["rollout", "status", "deployment/web", "--timeout=240s"]);
    }

    fn apply(&self) {
        let said = self.kubectl(&["apply", "-f", &self.manifests.display().to_string()]);
        for line in
            ["secret/store created", "deployment.apps/store created", "service/web created", "configmap/web created"]
        {
            assert!(said.contains(line), "{said}");
        }
        self.rolled_out();
        self.kubectl(&["wait", "--for=condition=Available", "deployment/web", "--timeout=240s"]);
        let again = self.kubectl(&["apply", "-f", &self.manifests.display().to_string()]);
        // Compat: kubectl cannot see that a Secret's stringData has not changed, since it is never sent back.
        assert!(again.lines().all(|l| l.ends_with("unchanged") || l == "secret/store configured"), "{again}");
    }

    fn reach(&self) {
        let pod = self.a_web_pod();
        for name in ["web", "web.default", "web.default.svc.cluster.local"] {
            let said = self.kubectl(&["exec", &pod, "--", "wget", "-qO-", &format!("http://{name}/")]);
            assert!(said.starts_with("Welcome aboard! You are visitor "), "{said}");
        }
        let said = self.kubectl(&["exec", &pod, "--", "nslookup", "web.default.svc.cluster.local"]);
        assert!(said.contains(&self.cluster.get(&["service", "web"], "{.spec.clusterIP}")), "{said}");
        let url = self.url();
        let mut answered = BTreeSet::new();
        let mut counts = Vec::new();
        // So many find every one of three but once in 10^10 times.
        for _ in 0..60 {
            let said = http_get(&url).expect("the NodePort answers");
            counts.push(
                said.split("visitor ").nth(1).and_then(|t| t.split(',').next()).map(str::to_string).expect("a count"),
            );
            answered.insert(said.trim_end_matches(".\n").rsplit(' ').next().map(str::to_string).expect("a pod"));
        }
        assert_eq!(answered, self.web_pods(), "every replica has its share of 60 requests");
        let distinct: BTreeSet<&String> = counts.iter().collect();
        assert_eq!(distinct.len(), 60, "every visit is counted once: {counts:?}");
    }

    fn look(&self) {
        let pod = self.a_web_pod();
        let pods = self.kubectl(&["get", "pods"]);
        assert!(pods.starts_with("NAME "), "{pods}");
        assert_eq!(pods.lines().filter(|l| l.contains("1/1") && l.contains("Running")).count(), 4, "{pods}");
        let wide = self.kubectl(&["get", "deployments", "-o", "wide"]);
        assert!(wide.contains("CONTAINERS") && wide.contains("3/3"), "{wide}");
        let yaml = self.kubectl(&["get", "pod", &pod, "-o", "yaml"]);
        assert!(yaml.contains("phase: Running") && yaml.contains("qosClass: Burstable"), "{yaml}");
        let json = self.kubectl(&["get", "service", "web", "-o", "json"]);
        assert!(json.contains("\"clusterIP\""), "{json}");
        let described = self.kubectl(&["describe", "pod", &pod]);
        for text in ["Status:", "Running", "Readiness:", "Scheduled", "Pulled", "Started"] {
            assert!(described.contains(text), "no {text:?} in {described}");
        }
        assert!(self.kubectl(&["describe", "deployment", "web"]).contains("StrategyType:           RollingUpdate"));
        assert!(self.kubectl(&["describe", "service", "web"]).contains("Endpoints:"));
        assert!(self.kubectl(&["describe", "node"]).contains("Allocated resources"));
        assert!(self.kubectl(&["events"]).contains("SuccessfulCreate"));
        assert!(self.kubectl(&["get", "events"]).contains("Scheduled"));
        let explained = self.kubectl(&["explain", "deployment.spec.strategy.rollingUpdate.maxSurge"]);
        assert!(explained.contains("maximum number of pods"), "{explained}");
        let resources = self.kubectl(&["api-resources"]);
        assert!(resources.contains("deployments") && resources.contains("deploy"), "{resources}");
        assert!(self.kubectl(&["api-versions"]).contains("apps/v1"));
        assert!(self.kubectl(&["cluster-info"]).contains("is running at"));
        assert!(self.kubectl(&["get", "all"]).contains("replicaset.apps/web-"));
        assert!(self.kubectl(&["version"]).contains("Server Version: v1.37"));
        assert!(self.kubectl(&["get", "--raw", "/readyz?verbose"]).contains("readyz check passed"));
        self.watch();
    }

    /// `--watch` shows what is there and then what changes.
    fn watch(&self) {
        let path = "jsonpath={.metadata.annotations.seen}{'\\n'}";
        let mut watch = Talk::start(&mut self.cluster.command(&["get", "configmap", "web", "--watch", "-o", path]));
        assert_eq!(watch.line(), "");
        self.kubectl(&["annotate", "configmap", "web", "seen=yes", "--overwrite"]);
        assert_eq!(watch.line(), "yes");
    }

    fn talk(&self) {
        let pod = self.a_web_pod();
        assert!(self.kubectl(&["logs", &pod]).contains("serves on port 8080"));
        assert!(self.kubectl(&["logs", "deployment/web", "--tail=1"]).lines().count() == 1);
        self.follow_logs(&pod);
        assert_eq!(self.kubectl(&["exec", &pod, "--", "cat", "/etc/guestbook/greeting"]), "Welcome aboard");
        let failed = self.cluster.try_kubectl(&["exec", &pod, "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
        assert_eq!(failed.status.code(), Some(7), "{}", both(&failed));
        assert_eq!(String::from_utf8_lossy(&failed.stdout), "out\n");
        assert!(String::from_utf8_lossy(&failed.stderr).starts_with("err\n"));
        // A terminal on both ends, as a person has.
        let typed = format!("kubectl exec -it {pod} -- sh -c 'test -t 0 && echo on a $TERM terminal'");
        let mut script = std::process::Command::new("script");
        script.args(["-qec", &typed, "/dev/null"]).env("KUBECONFIG", self.cluster.kubeconfig()).env("TERM", "xterm");
        let said = script.stdin(Stdio::null()).output().expect("script runs");
        assert!(both(&said).contains("terminal"), "{}", both(&said));
        self.port_forward();
    }

    fn follow_logs(&self, pod: &str) {
        let mut logs = Talk::start(&mut self.cluster.command(&["logs", "-f", "--tail=0", pod]));
        let (url, stop) = (self.url(), std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)));
        let visitor = std::thread::spawn({
            let stop = stop.clone();
            move || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    http_get(&url);
                    std::thread::park_timeout(Duration::from_millis(50));
                }
            }
        });
        let line = logs.line();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        visitor.join().expect("joined");
        assert!(line.contains("GET / HTTP"), "{line}");
    }

    fn port_forward(&self) {
        let mut forward = Talk::start(&mut self.cluster.command(&["port-forward", "service/web", ":80"]));
        let line = forward.line();
        let address = line.strip_prefix("Forwarding from ").and_then(|t| t.split(' ').next()).expect("an address");
        let answers: Vec<Option<String>> = (0..3).map(|_| http_get(&format!("http://{address}/"))).collect();
        assert!(answers.iter().flatten().filter(|said| said.contains("visitor")).count() == 3, "{answers:?}");
    }

    fn change(&self) {
        let url = self.url();
        self.kubectl(&["scale", "deployment/web", "--replicas=5"]);
        self.rolled_out();
        assert_eq!(self.web_pods().len(), 5);
        until("five endpoints", SOON, || self.ready_endpoints() == 5);
        self.kubectl(&["scale", "deployment/web", "--replicas=3"]);
        until("three pods", LATER, || self.web_pods().len() == 3);

        self.kubectl(&["label", "deployment", "web", "who=test"]);
        self.kubectl(&["annotate", "deployment", "web", "note=changed", "kubernetes.io/change-cause=the first"]);
        assert_eq!(self.cluster.get(&["deployment", "web"], "{.metadata.labels.who}"), "test");
        self.kubectl(&["label", "deployment", "web", "who-"]);
        assert_eq!(self.cluster.get(&["deployment", "web"], "{.metadata.labels.who}"), "");

        let mut edit = self.cluster.command(&["edit", "configmap", "web"]);
        let edited = edit.env("KUBE_EDITOR", "sed -i 's/Welcome aboard/Ahoy/'").output().expect("kubectl runs");
        assert!(edited.status.success(), "{}", both(&edited));
        // The file in the running pods follows its ConfigMap.
        eventually("the new greeting", LATER, || http_get(&url).filter(|said| said.starts_with("Ahoy!")));

        self.kubectl(&["set", "env", "deployment/web", "COLOUR=blue"]);
        self.rolled_out();
        let history = self.kubectl(&["rollout", "history", "deployment/web"]);
        assert_eq!(history.lines().filter(|l| l.starts_with(char::is_numeric)).count(), 2, "{history}");
        self.kubectl(&["rollout", "undo", "deployment/web"]);
        self.rolled_out();
        let variables = self.cluster.get(&["deployment", "web"], "{.spec.template.spec.containers[0].env[*].name}");
        assert!(!variables.contains("COLOUR"));
        self.kubectl(&["rollout", "restart", "deployment/web"]);
        self.rolled_out();
        self.kubectl(&["patch", "deployment", "web", "-p", r#"{"spec":{"minReadySeconds":1}}"#]);
        let remove = r#"[{"op":"remove","path":"/spec/minReadySeconds"}]"#;
        self.kubectl(&["patch", "deployment", "web", "--type=json", "-p", remove]);
        self.kubectl(&["patch", "configmap", "web", "--type=merge", "-p", r#"{"data":{"extra":"1"}}"#]);
        assert_eq!(self.cluster.get(&["configmap", "web"], "{.data.extra}"), "1");
        until("only three pods", LATER, || self.web_pods().len() == 3);
    }

    fn server_side(&self) {
        let manifest = self.cluster.dir.join("ssa.yaml");
        let write = |value: &str| {
            let text = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: ssa}}\ndata: {{owner: {value}}}\n");
            std::fs::write(&manifest, text).expect("written");
        };
        let file = manifest.display().to_string();
        write("one");
        self.kubectl(&["apply", "--server-side", "-f", &file]);
        write("two");
        let conflict = self.cluster.kubectl_fails(&["apply", "--server-side", "--field-manager=other", "-f", &file]);
        assert!(conflict.contains("conflict") && conflict.contains(".data.owner"), "{conflict}");
        self.kubectl(&["apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", &file]);
        assert_eq!(self.cluster.get(&["configmap", "ssa"], "{.data.owner}"), "two");
        self.kubectl(&["delete", "configmap", "ssa"]);
    }

    fn restarts(&self, pod: &str) -> u32 {
        self.cluster.get(&["pod", pod], "{.status.containerStatuses[0].restartCount}").parse().unwrap_or(0)
    }

    fn killed_process(&self) {
        let pod = self.a_web_pod();
        assert_eq!(self.restarts(&pod), 0);
        self.kubectl(&["exec", &pod, "--", "kill", "1"]);
        until("one restart", SOON, || self.restarts(&pod) == 1);
        self.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=240s"]);
        let found = self.cluster.get(&["pod", &pod], "{.status.containerStatuses[0].lastState.terminated.reason}");
        assert_eq!(found, "Completed");
        // The second time it has to wait, and says so.
        self.kubectl(&["exec", &pod, "--", "kill", "1"]);
        let path = "{.status.containerStatuses[0].state.waiting.reason}";
        until("a back-off", SOON, || self.cluster.get(&["pod", &pod], path) == "CrashLoopBackOff");
        until("a second restart", LATER, || self.restarts(&pod) == 2);
        self.rolled_out();
    }

    fn deleted_pod(&self) {
        let before = self.web_pods();
        let pod = self.a_web_pod();
        self.kubectl(&["delete", "pod", &pod]);
        assert!(!self.web_pods().contains(&pod));
        self.rolled_out();
        let after = self.web_pods();
        assert_eq!((after.len(), before.intersection(&after).count()), (3, 2), "{before:?} became {after:?}");
    }

    fn unready_pod(&self) {
        let pod = self.a_web_pod();
        until("three endpoints", SOON, || self.ready_endpoints() == 3);
        self.kubectl(&["exec", &pod, "--", "touch", "/tmp/not-ready"]);
        until("two endpoints", SOON, || self.ready_endpoints() == 2);
        // The rules follow the endpoints.
        let url = self.url();
        until("the others answer alone", SOON, || {
            (0..20).all(|_| !http_get(&url).expect("the others answer").contains(&pod))
        });
        self.kubectl(&["exec", &pod, "--", "rm", "/tmp/not-ready"]);
        until("three endpoints again", SOON, || self.ready_endpoints() == 3);
        assert_eq!(self.restarts(&pod), 0, "not ready is not dead");
    }

    fn broken_update(&self) {
        let image = format!("web={}/guestbook-web:none", self.registry.address);
        self.kubectl(&["set", "image", "deployment/web", &image]);
        let reason = || {
            let path = r#"{.items[*].status.containerStatuses[*].state.waiting.reason}"#;
            self.cluster.get(&["pods", "-l", "tier=web"], path)
        };
        until("the new pods cannot pull", LATER, || {
            ["ImagePullBackOff", "ErrImagePull"].iter().any(|r| reason().contains(r))
        });
        self.cluster.kubectl_fails(&["rollout", "status", "deployment/web", "--timeout=3s"]);
        assert!(self.ready_endpoints() >= 2, "maxUnavailable is 1");
        let url = self.url();
        until("the old pods answer", SOON, || (0..10).all(|_| http_get(&url).is_some()));
        self.kubectl(&["rollout", "undo", "deployment/web"]);
        self.rolled_out();
        until("three good pods", LATER, || self.web_pods().len() == 3 && reason().is_empty());
    }

    /// Container IDs and restart counts of all pods.
    fn containers(&self) -> String {
        let path = r#"{range .items[*]}{.metadata.uid} {.status.containerStatuses[*].containerID} {.status.containerStatuses[*].restartCount}{"\n"}{end}"#;
        self.cluster.get(&["pods", "-A"], path)
    }

    /// Everything stored, but what changes by itself.
    fn objects(&self) -> String {
        let path = r#"{range .items[*]}{.kind}/{.metadata.namespace}/{.metadata.name} {.metadata.uid}{"\n"}{end}"#;
        self.cluster
            .get(&["deployments,replicasets,services,configmaps,secrets,serviceaccounts,namespaces", "-A"], path)
    }

    fn killed_knarr(&self) {
        let (containers, objects, url) = (self.containers(), self.objects(), self.url());
        self.cluster.kill_knarr();
        // Rules and containers work on; only names are not answered, since the DNS server is gone with Knarr.
        assert!(http_get(&format!("{url}healthz")).is_some(), "the front end answers while Knarr is dead");
        self.cluster.start();
        assert_eq!(self.objects(), objects);
        self.rolled_out();
        assert_eq!(self.containers(), containers, "every container as it was");
    }

    fn down_and_up(&self) {
        let objects = self.objects();
        let down = self.cluster.knarr(&["down"]);
        assert!(down.status.success(), "{}", both(&down));
        let ours = self.cluster.data_dir().display().to_string();
        let left = std::process::Command::new("pgrep").args(["-f", &ours]).output().expect("pgrep runs");
        assert_eq!(String::from_utf8_lossy(&left.stdout), "", "processes are left");
        self.cluster.start();
        assert_eq!(self.objects(), objects);
        self.rolled_out();
        eventually("it answers again", LATER, || http_get(&self.url()));
    }
}
