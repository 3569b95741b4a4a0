//! A pod's /etc/hosts: its own name, `hostAliases`, or the host's file with the node's network.
//!
//! Writes `DATA_DIR/pods/UID/etc-hosts`. Invariant: text is pure in [`render`]; the file is rewritten only when it differs.

use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use crate::spec;

/// The pod's host name and, with a subdomain, its full name.
pub fn names(pod: &Pod, cluster_domain: &str) -> (String, Option<String>) {
    let spec = spec::spec(pod);
    if let Some(own) = &spec.hostname_override {
        return (own.clone(), None);
    }
    let mut hostname = spec.hostname.clone().unwrap_or_else(|| spec::name(pod).to_string());
    hostname.truncate(63);
    let hostname = hostname.trim_end_matches(['-', '.']).to_string();
    let full = spec
        .subdomain
        .as_ref()
        .filter(|subdomain| !subdomain.is_empty())
        .map(|subdomain| format!("{hostname}.{subdomain}.{}.svc.{cluster_domain}", spec::namespace(pod)));
    (hostname, full)
}

/// The file's text. `host_file` is the host's own, used with the node's network.
pub fn render(pod: &Pod, ips: &[String], cluster_domain: &str, host_file: &str) -> String {
    let mut text = String::new();
    if spec::host_network(pod) {
        text.push_str("# Kubernetes-managed hosts file (host network).\n");
        text.push_str(host_file);
    } else {
        text.push_str(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
        );
        let (hostname, full) = names(pod, cluster_domain);
        for ip in ips {
            match &full {
                Some(full) => text.push_str(&format!("{ip}\t{full}\t{hostname}\n")),
                None => text.push_str(&format!("{ip}\t{hostname}\n")),
            }
        }
    }
    let spec = spec::spec(pod);
    let aliases = spec.host_aliases.iter().flatten();
    let lines: String = aliases
        .map(|alias| {
            format!("{}\t{}\n", alias.ip, alias.hostnames.iter().flatten().cloned().collect::<Vec<_>>().join("\t"))
        })
        .collect();
    if !lines.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        text.push_str(&lines);
    }
    text
}

/// Writes the pod's file below its directory and returns its path.
pub fn write(pod: &Pod, ips: &[String], cluster_domain: &str, pod_dir: &Path) -> io::Result<PathBuf> {
    let host_file = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let text = render(pod, ips, cluster_domain, &host_file);
    let path = pod_dir.join("etc-hosts");
    if std::fs::read_to_string(&path).is_ok_and(|known| known == text) {
        return Ok(path);
    }
    std::fs::create_dir_all(pod_dir)?;
    // written in place: containers have this very file mounted
    std::fs::write(&path, text)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn names_and_aliases() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "web-0", "namespace": "n"}, "spec": {
            "containers": [], "subdomain": "web", "hostAliases": [{"ip": "192.0.2.9", "hostnames": ["a", "b"]}]}}))
        .expect("pod");
        expect![[r#"
            # Kubernetes-managed hosts file.
            127.0.0.1	localhost
            ::1	localhost ip6-localhost ip6-loopback
            fe00::0	ip6-localnet
            fe00::0	ip6-mcastprefix
            fe00::1	ip6-allnodes
            fe00::2	ip6-allrouters
            10.0.0.2	web-0.web.n.svc.cluster.local	web-0

            # Entries added by HostAliases.
            192.0.2.9	a	b
        "#]]
        .assert_eq(&render(&pod, &["10.0.0.2".to_string()], "cluster.local", ""));
    }
}
