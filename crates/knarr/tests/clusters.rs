//! Two clusters on one machine, and the command line: what a second cluster gets, what is refused, what is left behind.
//!
//! Black box: the real binary, the real kubectl, real containers. Needs root.

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/registry.rs"]
mod registry;

use std::process::Command;

use cluster::{Cluster, LATER, Turn, binary, both, eventually, http_get};
use registry::Registry;

/// A web server whose one page is the cluster's name, behind a NodePort.
fn site(name: &str, image: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: site}}\nspec:\n  selector: {{matchLabels: {{app: site}}}}\n  template:\n    \
         metadata: {{labels: {{app: site}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers:\n      - name: site\n        \
         image: {image}\n        command: [sh, -c, 'echo {name} > /tmp/index.html; exec busybox httpd -f -p 8080 -h /tmp']\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: site}}\nspec: {{type: NodePort, selector: {{app: site}}, ports: [{{port: 80, targetPort: 8080}}]}}\n"
    )
}

fn url(cluster: &Cluster) -> String {
    let port = cluster.get(&["service", "site"], "{.spec.ports[0].nodePort}");
    let ip = cluster.get(&["nodes"], r#"{.items[0].status.addresses[?(@.type=="InternalIP")].address}"#);
    format!("http://{ip}:{port}/")
}

fn ranges(cluster: &Cluster) -> [String; 3] {
    [
        cluster.get(&["nodes"], "{.items[0].spec.podCIDR}"),
        cluster.get(&["service", "kubernetes"], "{.spec.clusterIP}"),
        cluster.get(&["service", "kube-dns", "-n", "kube-system"], "{.spec.clusterIP}"),
    ]
}

#[test]
fn two_clusters_side_by_side() {
    let _turn = Turn::take();
    let one = Cluster::beside("one");
    let two = Cluster::beside("two");
    let registry = Registry::start();
    let image = format!("{}/guestbook-web:1", registry.address);
    for (cluster, name) in [(&one, "one"), (&two, "two")] {
        cluster.apply(&site(name, &image));
    }
    for (cluster, name) in [(&one, "one"), (&two, "two")] {
        cluster.kubectl(&["wait", "--for=condition=Ready", "node", "--all", "--timeout=240s"]);
        cluster.kubectl(&["rollout", "status", "deployment/site", "--timeout=240s"]);
        let said = eventually("the site answers", LATER, || http_get(&url(cluster)));
        assert_eq!(said.trim(), name);
        // Names are the cluster's own too.
        let named = "http://site.default.svc.cluster.local/";
        let said = cluster.kubectl(&["exec", "deployment/site", "--", "wget", "-qO-", named]);
        assert_eq!(said.trim(), name);
    }
    for (a, b) in ranges(&one).iter().zip(&ranges(&two)) {
        assert_ne!(a, b);
    }
    assert_eq!(one.kubectl(&["get", "pods", "-o", "name"]).lines().count(), 1);
    refused_while_it_runs(&one);

    let container =
        r#"{.items[0].status.containerStatuses[0].containerID} {.items[0].status.containerStatuses[0].restartCount}"#;
    let before = two.get(&["pods"], container);
    for _ in 0..2 {
        one.down();
    }
    assert_eq!(two.get(&["pods"], container), before, "the other cluster's pod went on");
    assert_eq!(http_get(&url(&two)).as_deref().map(str::trim), Some("two"));
    let said = two.kubectl(&["exec", "deployment/site", "--", "wget", "-qO-", "http://site/"]);
    assert_eq!(said.trim(), "two");

    let kept = ranges(&two);
    one.start();
    assert_eq!(ranges(&two), kept);
    one.kubectl(&["rollout", "status", "deployment/site", "--timeout=240s"]);
    let said = eventually("the first one's site answers again", LATER, || http_get(&url(&one)));
    assert_eq!(said.trim(), "one");
    stopped_in_haste(&one);
    drop(registry);
    for cluster in [&one, &two] {
        cluster.down();
    }
}

/// `knarr down`, while containerd is still making the sandboxes of the pods, leaves nothing behind.
fn stopped_in_haste(cluster: &Cluster) {
    cluster.kubectl(&["scale", "deployment/site", "--replicas=6"]);
    for _ in 0..4 {
        cluster.down();
        cluster.start();
    }
}

/// A second Knarr on the same directory, or on taken ports, says so and touches nothing.
fn refused_while_it_runs(cluster: &Cluster) {
    let pid = cluster.pid();
    let again = cluster.knarr(&["up", "--detach", "--api-port", "0", "--kubelet-port", "0"]);
    assert!(!again.status.success());
    let said = both(&again);
    assert!(said.contains(&format!("Knarr runs already here, as process {pid}: stop it with `knarr down`")), "{said}");
    let alone = cluster.knarr(&["apiserver", "--port", "0"]);
    assert!(!alone.status.success());
    assert!(both(&alone).contains("Knarr runs already here"), "{}", both(&alone));
    assert_eq!(cluster.pid(), pid);
    let other = cluster.knarr(&["up", "--detach", "--pod-cidr", "10.9.0.0/16"]);
    assert!(!other.status.success());

    let port = std::fs::read_to_string(cluster.kubeconfig()).expect("the kubeconfig");
    let line = port.lines().find(|line| line.contains("server: ")).expect("a server");
    let port = line.trim_matches('"').rsplit(':').next().expect("a port");
    let dir = cluster.dir.join("other");
    let taken = Command::new(binary())
        .args(["up", "--detach", "--api-port", port, "--data-dir"])
        .arg(&dir)
        .output()
        .expect("knarr runs");
    let said = both(&taken);
    assert!(!taken.status.success() && said.contains(&format!(":{port}")) && said.contains("in use"), "{said}");
    let down = Command::new(binary()).args(["down", "--data-dir"]).arg(&dir).output().expect("knarr runs");
    assert!(down.status.success(), "{}", both(&down));
}

/// Everything that can be asked without a cluster.
#[test]
fn the_command_line_teaches() {
    let run = |arguments: &[&str]| Command::new(binary()).args(arguments).output().expect("knarr runs");
    let commands = ["up", "down", "apiserver", "controller-manager", "scheduler", "kubelet", "proxy", "dns"];
    let help = run(&["--help"]);
    assert!(help.status.success());
    let help = both(&help);
    for command in commands {
        assert!(help.lines().any(|line| line.trim_start().starts_with(command)), "{command} is not in {help}");
        let own = run(&[command, "--help"]);
        assert!(own.status.success(), "{command} --help");
        let own = both(&own);
        let examples = own.lines().skip_while(|line| !line.starts_with("Example")).skip(1);
        assert!(
            examples.into_iter().any(|line| line.trim_start().starts_with(&format!("knarr {command}"))),
            "no example in {own}"
        );
    }
    assert!(run(&["--version"]).status.success());
    let dir = tempfile::tempdir().expect("a directory");
    let none = dir.path().join("none").display().to_string();
    let file = dir.path().join("file");
    std::fs::write(&file, "").expect("written");
    let file = file.display().to_string();
    for (arguments, said) in [
        (&["down", "--data-dir", &none][..], "knarr: no cluster in "),
        (&["up", "--data-dir", &file], "choose another place with --data-dir"),
        (&["up", "--pod-cidr", "10.0.0.1/8"], "is not the beginning of an IPv4 range, such as 10.244.0.0/16"),
        (&["up", "--node-port-range", "9-1"], "is not a range of ports such as 30000-32767"),
        (&["up", "--data-dir", &none, "--pod-cidr", "10.96.0.0/12", "--service-cidr", "10.97.0.0/16"], "overlap"),
        (&["dance"], "unrecognized subcommand 'dance'"),
        (&["scheduler", "--kubeconfig", &none], &none),
        (&["controller-manager", "--kubeconfig", &file], &file),
        (&["controller-manager", "--kubeconfig", &file, "--root-ca-file", &none], "cannot read "),
    ] {
        let output = run(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(both(&output).contains(said), "{arguments:?} says {}", both(&output));
    }
    assert!(!cluster::is_root() || run(&["down", "--data-dir", &none]).status.success(), "what refused to start goes");
}
