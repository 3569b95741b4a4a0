//! What is told to a client beside its answer: oddities of objects that are accepted, as upstream's server words them.
//!
//! Reads documents that have passed validation, in their stored version. Invariant: nothing is refused here.

use std::collections::HashSet;

use meta::field::Path;
use meta::quantity::Quantity;
use meta::{Value, names};

use super::columns::text;

/// So many of a list are held against each other at most: warnings are not worth the time of more.
const COMPARED_MAX: usize = 128;

/// Warnings about an object that is created, or written in place of `old`.
pub fn warnings(group: &str, kind: &str, new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut out = Vec::new();
    // A template is looked at again when its object counted a change.
    let counted = old.is_none_or(|old| old["metadata"]["generation"] != new["metadata"]["generation"]);
    match (group, kind) {
        ("", "Pod") if counted => pod(new, &Path::default(), old.is_none(), &mut out),
        ("", "PodTemplate") if counted => pod(&new["template"], &Path::new("template"), false, &mut out),
        ("", "ReplicationController") | ("apps", "Deployment" | "ReplicaSet") | ("batch", "Job") if counted => {
            maker(new, old, &mut out);
            indexed_job(&new["spec"], "spec", &mut out);
            pod(&new["spec"]["template"], &Path::new("spec.template"), false, &mut out);
        }
        ("batch", "CronJob") if counted => {
            maker(new, old, &mut out);
            let job = &new["spec"]["jobTemplate"]["spec"];
            indexed_job(job, "spec.jobTemplate.spec", &mut out);
            pod(&job["template"], &Path::new("spec.jobTemplate.spec.template"), false, &mut out);
        }
        ("apps", "DaemonSet") if old.is_none() => {
            pod(&new["spec"]["template"], &Path::new("spec.template"), false, &mut out);
        }
        ("apps", "StatefulSet") => {
            if counted {
                stateful_set(new, &mut out);
            }
            if new.int_at(&["spec", "revisionHistoryLimit"]).is_some_and(|n| n < 0) {
                let why = "a negative value retains all historical revisions; a value >= 0 is recommended";
                out.push(format!("spec.revisionHistoryLimit: {why}"));
            }
        }
        ("", "Service") => service(new, &mut out),
        ("", "Node") if !text(new, &["spec", "externalID"]).is_empty() => {
            out.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".into());
        }
        ("", "PersistentVolume") => volume(new, &mut out),
        ("", "PersistentVolumeClaim") => {
            old_class(new, &mut out);
            claim(&new["spec"], &Path::new("spec"), &mut out);
        }
        ("", "Secret") if text(new, &["type"]) == "kubernetes.io/tls" => tls(new, &mut out),
        ("storage.k8s.io", "StorageClass") => storage_class(new, &mut out),
        ("node.k8s.io", "RuntimeClass") => {
            node_selector(&new["scheduling"]["nodeSelector"], |_| "scheduling.nodeSelector".into(), &mut out);
        }
        _ if old.is_none() => out.extend(new_only(group, kind, new)),
        _ => {}
    }
    out
}

/// What upstream says of a new object only.
fn new_only(group: &str, kind: &str, new: &Value) -> Option<String> {
    let annotated = |key: &str| new["metadata"]["annotations"].get(key).is_some();
    let spec = &new["spec"];
    match (group, kind) {
        ("", "ServiceAccount") if text(new, &MOUNTABLE) == "true" => Some(format!(
            "metadata.annotations[{}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted \
             secrets",
            MOUNTABLE[2]
        )),
        ("networking.k8s.io", "Ingress") if annotated("kubernetes.io/ingress.class") => {
            let instead = "please use 'spec.ingressClassName' instead";
            Some(format!("annotation \"kubernetes.io/ingress.class\" is deprecated, {instead}"))
        }
        ("discovery.k8s.io", "EndpointSlice") if text(new, &["addressType"]) == "FQDN" => {
            Some("spec.addressType: FQDN endpoints are deprecated".into())
        }
        ("storage.k8s.io", "CSIDriver")
            if !spec.array_at(&["tokenRequests"]).is_empty() && spec["serviceAccountTokenInSecrets"].is_null() =>
        {
            Some(
                "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent \
                 possible logging of tokens in volume attributes"
                    .into(),
            )
        }
        _ => None,
    }
}

const MOUNTABLE: [&str; 3] = ["metadata", "annotations", "kubernetes.io/enforce-mountable-secrets"];

/// Labels of nodes that have newer names.
const OLD_LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
];

fn node_selector(selector: &Value, at: impl Fn(&str) -> String, out: &mut Vec<String>) {
    let found = OLD_LABELS.iter().filter(|(key, _)| selector.get(key).is_some());
    out.extend(found.map(|(key, why)| format!("{}: {why}", at(key))));
}

fn old_label(key: &str, at: &Path, out: &mut Vec<String>) {
    let found = OLD_LABELS.iter().filter(|(old, _)| *old == key);
    out.extend(found.map(|(key, why)| format!("{at}: {key} is {why}")));
}

fn node_term(term: &Value, at: &Path, out: &mut Vec<String>) {
    for (i, expression) in term.array_at(&["matchExpressions"]).iter().enumerate() {
        old_label(text(expression, &["key"]), &at.child("matchExpressions").index(i).child("key"), out);
    }
}

/// Volumes that nothing mounts any more, of pods and of their own.
const OLD_VOLUMES: &[(&str, &str)] = &[
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

fn old_volume(source: &Value, at: &Path, out: &mut Vec<String>) {
    for (field, why) in OLD_VOLUMES.iter().filter(|(field, _)| !source[*field].is_null()) {
        out.push(format!("{at}.{}: {why}", if *field == "storageos" { "storageOS" } else { field }));
    }
}

fn fractions(lists: &Value, names: &[&str], fields: [&str; 2], at: &Path, out: &mut Vec<String>) {
    for name in names {
        for list in fields {
            let amount = text(lists, &[list, name]);
            if Quantity::parse(amount).is_ok_and(|q| q.milli_value() % 1000 != 0) {
                let at = at.child(list).key(name);
                out.push(format!("{at}: fractional byte value \"{amount}\" is invalid, must be an integer"));
            }
        }
    }
}

fn claim(spec: &Value, at: &Path, out: &mut Vec<String>) {
    fractions(&spec["resources"], &["storage"], ["requests", "limits"], &at.child("resources"), out);
}

/// Warns of the name of what makes pods, when it is new.
fn maker(new: &Value, old: Option<&Value>, out: &mut Vec<String>) {
    if old.is_none() {
        host_name(new, "this is used in Pod names and hostnames", out);
    }
}

fn host_name(new: &Value, used: &str, out: &mut Vec<String>) {
    let wrong = names::dns1123_label(text(new, &["metadata", "name"]));
    if !wrong.is_empty() {
        let why = "which can result in surprising behavior; a DNS label is recommended";
        out.push(format!("metadata.name: {used}, {why}: [{}]", wrong.join(" ")));
    }
}

fn indexed_job(job: &Value, at: &str, out: &mut Vec<String>) {
    let over = |field: &str, limit: i64| job.int_at(&[field]).is_some_and(|n| n > limit);
    if text(job, &["completionMode"]) == "Indexed" && over("completions", 100_000) && over("parallelism", 10_000) {
        out.push(format!(
            "{at}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, \
             Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        ));
    }
}

fn stateful_set(new: &Value, out: &mut Vec<String>) {
    let spec = &new["spec"];
    pod(&spec["template"], &Path::new("spec.template"), false, out);
    for (i, template) in spec.array_at(&["volumeClaimTemplates"]).iter().enumerate() {
        claim(&template["spec"], &Path::new("spec.volumeClaimTemplates").index(i), out);
    }
}

const BEFORE: &[(&str, &str)] = &[
    ("scheduler.alpha.kubernetes.io/critical-pod", "v1.16+; use the \"priorityClassName\" field instead"),
    ("security.alpha.kubernetes.io/sysctls", "v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "v1.11+; use the \"sysctls\" field instead"),
];
const SECCOMP: &str = "v1.27+; use the \"seccompProfile\" field instead";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Warns of a pod, or of the template of one, at `root`.
fn pod(holder: &Value, root: &Path, new_pod: bool, out: &mut Vec<String>) {
    let (spec, at) = (&holder["spec"], root.child("spec"));
    let notes = root.child("metadata").child("annotations");
    let noted = |key: &str| holder["metadata"]["annotations"].get(key).is_some();
    let useless = |key: &str, since: &str| format!("{}: non-functional in {since}", notes.key(key));
    let is_template = *root != Path::default();
    let app_armor = |name: &str, out: &mut Vec<String>| {
        let key = format!("{APP_ARMOR}{name}");
        if noted(&key) {
            out.push(format!("{}: deprecated since v1.30; use the \"appArmorProfile\" field instead", notes.key(&key)));
        }
    };
    let containers = || {
        let of = |list: &'static str| spec.array_at(&[list]).iter().enumerate().map(move |(i, c)| (list, i, c));
        of("initContainers").chain(of("containers"))
    };
    if !is_template {
        containers().for_each(|(.., c)| app_armor(text(c, &["name"]), out));
    }
    if new_pod {
        host_name(holder, "this is used in the Pod's hostname", out);
    }
    node_selector(&spec["nodeSelector"], |key| at.child("nodeSelector").key(key).to_string(), out);
    node_affinity(&spec["affinity"]["nodeAffinity"], &at.child("affinity").child("nodeAffinity"), out);
    for (i, constraint) in spec.array_at(&["topologySpreadConstraints"]).iter().enumerate() {
        let at = at.child("topologySpreadConstraints").index(i);
        old_label(text(constraint, &["topologyKey"]), &at.child("topologyKey"), out);
        unselecting(constraint, &at, out);
    }
    out.extend(BEFORE.iter().filter(|(key, _)| noted(key)).map(|(key, since)| useless(key, since)));
    for (i, volume) in spec.array_at(&["volumes"]).iter().enumerate() {
        let at = at.child("volumes").index(i);
        old_volume(volume, &at, out);
        overlaps(volume, out);
        let template = at.child("ephemeral").child("volumeClaimTemplate").child("spec");
        claim(&volume["ephemeral"]["volumeClaimTemplate"]["spec"], &template, out);
    }
    let repeated = |list: &str, field: &str, word: &str, out: &mut Vec<String>| {
        let (items, mut known) = (spec.array_at(&[list]), HashSet::new());
        for (i, item) in items.iter().enumerate().filter(|(_, item)| !item[field].is_empty()) {
            if !known.insert(text(item, &[field])) {
                out.push(format!("{}: duplicate {word} {}", at.child(list).index(i).child(field), item[field]));
            }
        }
    };
    repeated("hostAliases", "ip", "ip", out);
    repeated("imagePullSecrets", "name", "name", out);
    for (i, _) in spec.array_at(&["imagePullSecrets"]).iter().enumerate().filter(|(_, s)| s["name"].is_empty()) {
        out.push(format!("{}: invalid empty name \"\"", at.child("imagePullSecrets").index(i).child("name")));
    }
    fractions(spec, BYTES, ["overhead", ""], &at, out);
    if noted("seccomp.security.alpha.kubernetes.io/pod") {
        out.push(useless("seccomp.security.alpha.kubernetes.io/pod", SECCOMP));
    }
    let mut ports: Vec<(Path, &Value)> = Vec::new();
    for (list, i, container) in containers() {
        let at = at.child(list).index(i);
        let name = text(container, &["name"]);
        let key = format!("container.seccomp.security.alpha.kubernetes.io/{name}");
        if noted(&key) {
            out.push(useless(&key, SECCOMP));
        }
        if is_template {
            app_armor(name, out);
        }
        fractions(&container["resources"], BYTES, ["limits", "requests"], &at.child("resources"), out);
        environment(container, &at, out);
        for (i, port) in container.array_at(&["ports"]).iter().enumerate() {
            port_beside(port, at.child("ports").index(i), &mut ports, out);
        }
    }
    if spec.int_at(&["terminationGracePeriodSeconds"]).is_some_and(|n| n < 0) {
        let why = "must be >= 0; negative values are invalid and will be treated as 1";
        out.push(format!("{}: {why}", at.child("terminationGracePeriodSeconds")));
    }
    pod_affinity(&spec["affinity"], &at.child("affinity"), out);
}

const BYTES: &[&str] = &["memory", "ephemeral-storage"];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

fn node_affinity(affinity: &Value, at: &Path, out: &mut Vec<String>) {
    for (i, term) in affinity[REQUIRED].array_at(&["nodeSelectorTerms"]).iter().enumerate() {
        node_term(term, &at.child(REQUIRED).child("nodeSelectorTerms").index(i), out);
    }
    for (i, term) in affinity.array_at(&[PREFERRED]).iter().enumerate() {
        node_term(&term["preference"], &at.child(PREFERRED).index(i).child("preference"), out);
    }
}

fn pod_affinity(affinity: &Value, at: &Path, out: &mut Vec<String>) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let at = at.child(kind);
        for (i, term) in affinity.array_at(&[kind, REQUIRED]).iter().enumerate() {
            unselecting(term, &at.child(REQUIRED).index(i), out);
        }
        for (i, term) in affinity.array_at(&[kind, PREFERRED]).iter().enumerate() {
            unselecting(&term["podAffinityTerm"], &at.child(PREFERRED).index(i).child("podAffinityTerm"), out);
        }
    }
}

fn unselecting(term: &Value, at: &Path, out: &mut Vec<String>) {
    if term["labelSelector"].is_null() {
        out.push(format!("{}: a null labelSelector results in matching no pod", at.child("labelSelector")));
    }
}

/// Variables that hide others of their container, unless they build on them.
fn environment(container: &Value, at: &Path, out: &mut Vec<String>) {
    let mut known = HashSet::new();
    for (i, variable) in container.array_at(&["env"]).iter().enumerate() {
        let name = text(variable, &["name"]);
        if !known.insert(name) && !text(variable, &["value"]).contains(&format!("$({name})")) {
            let why = "which may be dropped when using apply";
            out.push(format!("{}: hides previous definition of \"{name}\", {why}", at.child("env").index(i)));
        }
    }
}

/// Warns of a port and of earlier ones of the pod that are the same, or may be.
fn port_beside<'a>(port: &'a Value, at: Path, earlier: &mut Vec<(Path, &'a Value)>, out: &mut Vec<String>) {
    let parts = |p: &'a Value| {
        let number = |field: &str| p.int_at(&[field]).unwrap_or(0);
        (number("containerPort"), text(p, &["protocol"]), number("hostPort"), text(p, &["hostIP"]))
    };
    let (container, protocol, host, ip) = parts(port);
    if host == 0 && !ip.is_empty() {
        let name = text(port, &["name"]);
        out.push(format!(
            "{at}: hostIP set without hostPort: {{Name:{name} HostPort:0 ContainerPort:{container} Protocol:{protocol} \
             HostIP:{ip}}}"
        ));
    }
    let any = |ip: &str| ["", "0.0.0.0", "::"].contains(&ip);
    for (other_at, other) in earlier.iter() {
        let (other_container, other_protocol, other_host, other_ip) = parts(other);
        if (container, protocol) != (other_container, other_protocol) {
            continue;
        }
        let word = if (host, ip) == (other_host, other_ip) {
            "duplicate"
        } else if host == 0 || other_host == 0 {
            "overlapping"
        } else if host == other_host && (any(ip) || any(other_ip)) {
            "dangerously ambiguous"
        } else {
            continue;
        };
        out.push(format!("{at}: {word} port definition with {other_at}"));
    }
    if earlier.len() < COMPARED_MAX {
        earlier.push((at, port));
    }
}

/// Files of a volume that lie in one another's way.
fn overlaps(volume: &Value, out: &mut Vec<String>) {
    let mut files: Vec<(String, String)> = Vec::new();
    let head = format!("volume {}", volume["name"]);
    let mut add = |whole: &str, source: &Value, part: &str| {
        for item in source.array_at(&["items"]).iter().chain((!source["path"].is_null()).then_some(source)) {
            let path = text(item, &["path"]).trim_end_matches('/').to_string();
            let shown = format!("\"{path}\"{part}");
            for (other, other_shown) in &files {
                let within = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.starts_with('/'));
                if path == *other || within(&path, other) || within(other, &path) {
                    out.push(format!("{head} ({whole}): overlapping paths: {shown} with {other_shown}"));
                }
            }
            if files.len() < COMPARED_MAX && out.len() < COMPARED_MAX {
                files.push((path, shown));
            }
        }
    };
    const SOURCES: &[(&str, &str, &str)] = &[
        ("secret", "Secret", "secretName"),
        ("configMap", "ConfigMap", "name"),
        ("downwardAPI", "DownwardAPI", ""),
        ("serviceAccountToken", "ServiceAccountToken", ""),
    ];
    for (field, kind, name) in &SOURCES[..3] {
        let named = if name.is_empty() { kind.to_string() } else { format!("{kind} {}", volume[*field][*name]) };
        add(&named, &volume[*field], "");
    }
    for part in volume.array_at(&["projected", "sources"]) {
        for (field, kind, name) in SOURCES {
            let named = if name.is_empty() { kind.to_string() } else { format!("{kind} {}", part[*field]["name"]) };
            add("Projected", &part[*field], &format!(" ({named})"));
        }
    }
}

fn service(new: &Value, out: &mut Vec<String>) {
    let spec = &new["spec"];
    let hints = "service.kubernetes.io/topology-aware-hints";
    if new["metadata"]["annotations"].get(hints).is_some() {
        let mode = "service.kubernetes.io/topology-mode";
        out.push(format!("annotation {hints} is deprecated, please use {mode} instead"));
    }
    let headless = text(spec, &["clusterIP"]) == "None";
    let external = text(spec, &["type"]) == "ExternalName";
    let (ip, ips) = (text(spec, &["loadBalancerIP"]), !spec.array_at(&["externalIPs"]).is_empty());
    let sticky = !["", "None"].contains(&text(spec, &["sessionAffinity"]));
    let plain = !headless && !external;
    for (is_so, text) in [
        (headless && !ip.is_empty(), "spec.loadBalancerIP is ignored for headless services"),
        (headless && ips, "spec.externalIPs is ignored for headless services"),
        (headless && sticky, "spec.SessionAffinity is ignored for headless services"),
        (plain && ips, "spec.externalIPs is deprecated and may no longer be implemented in some clusters"),
        (
            !external && !spec["externalName"].is_empty(),
            "spec.externalName is ignored when spec.type is not \"ExternalName\"",
        ),
        (external && ips, "spec.externalIPs is ignored when spec.type is \"ExternalName\""),
        (
            text(spec, &["trafficDistribution"]) == "PreferClose",
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
        ),
    ] {
        if is_so {
            out.push(text.into());
        }
    }
    let meant = names::loose_ip(ip).map(|ip| ip.to_canonical());
    if let Some(meant) = meant.filter(|meant| plain && meant.is_ipv4() && meant.to_string() != ip) {
        out.push(format!("spec.loadBalancerIP: non-standard IP address \"{ip}\" is invalid: use \"{meant}\""));
    }
}

fn old_class(new: &Value, out: &mut Vec<String>) {
    let key = "volume.beta.kubernetes.io/storage-class";
    if new["metadata"]["annotations"].get(key).is_some() {
        let instead = "deprecated since v1.8; use \"storageClassName\" attribute instead";
        out.push(format!("metadata.annotations[{key}]: {instead}"));
    }
}

fn volume(new: &Value, out: &mut Vec<String>) {
    let spec = &new["spec"];
    old_class(new, out);
    if text(spec, &["persistentVolumeReclaimPolicy"]) == "Recycle" {
        let instead = "Instead, the recommended approach is to use dynamic provisioning.";
        out.push(format!("spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. {instead}"));
    }
    let terms = spec.array_at(&["nodeAffinity", "required", "nodeSelectorTerms"]).iter().enumerate();
    let at = Path::new("spec.nodeAffinity.required.nodeSelectorTerms");
    terms.for_each(|(i, term)| node_term(term, &at.index(i), out));
    old_volume(spec, &Path::new("spec"), out);
}

fn storage_class(new: &Value, out: &mut Vec<String>) {
    for (i, term) in new.array_at(&["allowedTopologies"]).iter().enumerate() {
        for (j, expression) in term.array_at(&["matchLabelExpressions"]).iter().enumerate() {
            let at = Path::new("allowedTopologies").index(i).child("matchLabelExpressions").index(j).child("key");
            let found = OLD_LABELS.iter().filter(|(key, _)| *key == text(expression, &["key"]));
            out.extend(found.map(|(_, why)| format!("{at}: {why}")));
        }
    }
}

fn tls(new: &Value, out: &mut Vec<String>) {
    use base64::Engine;
    for (field, what) in [("tls.crt", "certificate"), ("tls.key", "key")] {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text(new, &["data", field])).unwrap_or_default();
        if !bytes.windows(11).any(|w| w == b"-----BEGIN ") {
            return out.push(format!("tls: failed to find any PEM data in {what} input"));
        }
    }
}
