//! Defaults of a PodSpec and of everything in it.
//!
//! Source: the API reference ("defaults to ...") and the behaviour of an API server.

use meta::Value;

use crate::kinds::fill::{at, each, text, unset};

/// Defaults of a PodSpec, wherever it stands.
pub fn defaults(spec: &mut Value) {
    text(spec, "dnsPolicy", "ClusterFirst");
    text(spec, "restartPolicy", "Always");
    text(spec, "schedulerName", "default-scheduler");
    // Compat: the account's first name is kept, and holds the same.
    for (member, other) in [("serviceAccountName", "serviceAccount"), ("serviceAccount", "serviceAccountName")] {
        let named = spec.str_at(&[other]).unwrap_or_default().to_string();
        if !named.is_empty() && (member == "serviceAccount" || spec[member].is_empty()) {
            spec.set(&[member], named);
        }
    }
    unset(spec, "securityContext", Value::object());
    unset(spec, "terminationGracePeriodSeconds", 30);
    each(spec, &["volumes"], volume);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        each(spec, &[list], container);
    }
}

/// Defaults of `spec.template` of a controller.
pub fn template_defaults(object: &mut Value, template: &[&str]) {
    let mut path = template.to_vec();
    path.push("spec");
    at(object, &path, defaults);
}

/// Requests that a Pod leaves out follow its limits. Templates keep theirs as written.
pub fn requests_from_limits(spec: &mut Value) {
    for list in ["initContainers", "containers"] {
        each(spec, &[list], |container| {
            let Some(Value::Object(limits)) = container.at(&["resources", "limits"]).cloned() else { return };
            for (name, limit) in limits.iter() {
                container.set_default(&["resources", "requests", name], limit);
            }
        });
    }
}

fn container(container: &mut Value) {
    let policy = if is_latest(container.str_at(&["image"]).unwrap_or_default()) { "Always" } else { "IfNotPresent" };
    text(container, "imagePullPolicy", policy);
    text(container, "terminationMessagePath", "/dev/termination-log");
    text(container, "terminationMessagePolicy", "File");
    each(container, &["ports"], |port| text(port, "protocol", "TCP"));
    each(container, &["env"], |env| {
        at(env, &["valueFrom", "fieldRef"], |f| text(f, "apiVersion", "v1"));
        at(env, &["valueFrom", "fileKeyRef"], |f| unset(f, "optional", false));
    });
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        at(container, &[name], probe);
    }
    for name in ["postStart", "preStop"] {
        at(container, &["lifecycle", name], handler);
    }
    for list in ["limits", "requests"] {
        round_up(container, &["resources", list]);
    }
}

/// An image with the tag `latest`, or with neither tag nor digest. What is no image reference has no tag.
fn is_latest(image: &str) -> bool {
    let (named, digest) = image.split_once('@').map_or((image, None), |(named, digest)| (named, Some(digest)));
    let (name, tag) = match named.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (named, None),
    };
    let (registry, path) = match name.split_once('/') {
        Some((first, path)) if first == "localhost" || first.contains(['.', ':']) || first != first.to_lowercase() => {
            (first, path)
        }
        _ => ("", name),
    };
    let part = |part: &str| {
        let ends = part.starts_with(is_plain) && part.ends_with(is_plain);
        let mut between = part.split(is_plain).filter(|s| !s.is_empty());
        ends && between.all(|s| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
    };
    let registry_fits = registry.chars().all(|c| c.is_ascii_alphanumeric() || "-.:[]".contains(c));
    let digest_fits = digest.is_none_or(|d| d.split_once(':').is_some_and(|(_, hex)| hex.len() >= 32));
    let latest = tag.map_or(digest.is_none(), |tag| tag == "latest");
    latest && registry_fits && digest_fits && path.split('/').all(part)
}

fn is_plain(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn probe(probe: &mut Value) {
    for (name, default) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        if probe.int_at(&[name]).unwrap_or(0) == 0 {
            probe.set(&[name], default);
        }
    }
    handler(probe);
}

fn handler(handler: &mut Value) {
    at(handler, &["httpGet"], |http| {
        text(http, "path", "/");
        text(http, "scheme", "HTTP");
    });
    at(handler, &["grpc"], |grpc| unset(grpc, "service", ""));
}

/// Amounts are kept to a thousandth.
fn round_up(container: &mut Value, path: &[&str]) {
    let Some(Value::Object(list)) = container.at_mut(path) else { return };
    for amount in list.values_mut() {
        let parsed = amount.as_str().and_then(|t| meta::quantity::Quantity::parse(t).ok());
        if let Some(quantity) = parsed.filter(|q| !q.is_whole_milli()) {
            *amount = quantity.round_up_milli().to_string().into();
        }
    }
}

const FILE_MODE: i64 = 0o644;

fn volume(volume: &mut Value) {
    let sources = volume.as_object().map_or(0, |m| m.iter().filter(|(k, v)| *k != "name" && !v.is_null()).count());
    if sources == 0 {
        volume.set(&["emptyDir"], Value::object());
    }
    for name in ["secret", "configMap", "downwardAPI", "projected"] {
        at(volume, &[name], |source| unset(source, "defaultMode", FILE_MODE));
    }
    each(volume, &["downwardAPI", "items"], downward_item);
    each(volume, &["projected", "sources"], |source| {
        each(source, &["downwardAPI", "items"], downward_item);
        at(source, &["serviceAccountToken"], |token| unset(token, "expirationSeconds", 3600));
    });
    source_defaults(volume);
    at(volume, &["ephemeral", "volumeClaimTemplate", "spec"], |claim| text(claim, "volumeMode", "Filesystem"));
    at(volume, &["image"], |image| {
        let latest = is_latest(image.str_at(&["reference"]).unwrap_or_default());
        text(image, "pullPolicy", if latest { "Always" } else { "IfNotPresent" });
    });
}

/// Defaults of the sources that volumes of pods and persistent volumes share.
pub fn source_defaults(source: &mut Value) {
    const TEXTS: [(&str, &[(&str, &str)]); 3] = [
        ("iscsi", &[("iscsiInterface", "default")]),
        ("rbd", &[("pool", "rbd"), ("user", "admin"), ("keyring", "/etc/ceph/keyring")]),
        ("scaleIO", &[("storageMode", "ThinProvisioned"), ("fsType", "xfs")]),
    ];
    for (name, members) in TEXTS {
        at(source, &[name], |s| members.iter().for_each(|(member, default)| text(s, member, default)));
    }
    at(source, &["hostPath"], |host| unset(host, "type", ""));
    at(source, &["azureDisk"], |disk| {
        for (member, default) in [("cachingMode", "ReadWrite"), ("fsType", "ext4"), ("kind", "Shared")] {
            unset(disk, member, default);
        }
        unset(disk, "readOnly", false);
    });
}

fn downward_item(item: &mut Value) {
    at(item, &["fieldRef"], |f| text(f, "apiVersion", "v1"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use meta::json;

    #[test]
    fn a_small_spec_grows() {
        let mut spec = json!({"containers": [{"name": "a", "image": "nginx", "resources": {"limits": {"cpu": "1"}},
            "ports": [{"containerPort": 80}], "livenessProbe": {"httpGet": {"port": 80}},
            "env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}],
            "volumes": [{"name": "v"}, {"name": "c", "configMap": {"name": "c"}}, {"name": "h", "hostPath": {"path": "/"}},
                {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]});
        defaults(&mut spec);
        requests_from_limits(&mut spec);
        let once = spec.clone();
        defaults(&mut spec);
        assert_eq!(spec, once, "defaults must be idempotent");
        expect![[r#"{"containers":[{"env":[{"name":"X","valueFrom":{"fieldRef":{"apiVersion":"v1","fieldPath":"metadata.name"}}}],"image":"nginx","imagePullPolicy":"Always","livenessProbe":{"failureThreshold":3,"httpGet":{"path":"/","port":80,"scheme":"HTTP"},"periodSeconds":10,"successThreshold":1,"timeoutSeconds":1},"name":"a","ports":[{"containerPort":80,"protocol":"TCP"}],"resources":{"limits":{"cpu":"1"},"requests":{"cpu":"1"}},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File"}],"dnsPolicy":"ClusterFirst","restartPolicy":"Always","schedulerName":"default-scheduler","securityContext":{},"terminationGracePeriodSeconds":30,"volumes":[{"emptyDir":{},"name":"v"},{"configMap":{"defaultMode":420,"name":"c"},"name":"c"},{"hostPath":{"path":"/","type":""},"name":"h"},{"name":"p","projected":{"defaultMode":420,"sources":[{"serviceAccountToken":{"expirationSeconds":3600,"path":"t"}}]}}]}"#]]
        .assert_eq(&spec.to_string());
    }

    #[test]
    fn pull_policies_follow_the_tag() {
        for (image, latest) in [
            ("nginx", true),
            ("nginx:latest", true),
            ("nginx:1.2", false),
            ("localhost:5000/nginx", true),
            ("localhost:5000/nginx:1", false),
            ("nginx@sha256:abc", false),
            ("nginx:latest@sha256:0123456789abcdef0123456789abcdef", true),
            ("A/nginx", true),
            ("Nginx:latest", false),
            ("nginx latest", false),
            ("http://a/nginx", false),
            ("a//nginx", false),
            ("a__b", true),
            ("a___b", false),
        ] {
            assert_eq!(is_latest(image), latest, "{image}");
        }
    }
}
