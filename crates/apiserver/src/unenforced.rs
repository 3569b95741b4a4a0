//! Kinds that are kept but that nothing acts on in this version, and the warning that says so.
//!
//! Read whenever a client creates an object. Invariant: a kind stands here exactly as long as no part of Knarr does what
//! its objects ask for; whoever writes that part takes the kind out.

use meta::Value;

const NO_PODS: &str = "does not make their pods yet";
const NO_STORAGE: &str = "does not provision, bind or attach storage yet";
const NO_RBAC: &str = "does not enforce them yet: every authenticated user may do everything";
const NO_CERTIFICATES: &str = "does not approve or sign them yet";
const NO_DEVICES: &str = "does not allocate devices yet";

/// Group, kind, and what Knarr does not do.
const KINDS: &[(&str, &str, &str)] = &[
    ("", "PersistentVolume", NO_STORAGE),
    ("", "PersistentVolumeClaim", NO_STORAGE),
    ("apps", "DaemonSet", NO_PODS),
    ("apps", "StatefulSet", NO_PODS),
    ("autoscaling", "HorizontalPodAutoscaler", "does not scale anything by them yet"),
    ("certificates.k8s.io", "CertificateSigningRequest", NO_CERTIFICATES),
    ("certificates.k8s.io", "PodCertificateRequest", NO_CERTIFICATES),
    ("networking.k8s.io", "NetworkPolicy", "does not enforce them yet: no traffic is blocked"),
    ("rbac.authorization.k8s.io", "ClusterRole", NO_RBAC),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding", NO_RBAC),
    ("rbac.authorization.k8s.io", "Role", NO_RBAC),
    ("rbac.authorization.k8s.io", "RoleBinding", NO_RBAC),
    ("resource.k8s.io", "DeviceClass", NO_DEVICES),
    ("resource.k8s.io", "ResourceClaim", NO_DEVICES),
    ("resource.k8s.io", "ResourceClaimTemplate", NO_DEVICES),
    ("resource.k8s.io", "ResourceSlice", NO_DEVICES),
    ("storage.k8s.io", "CSIDriver", NO_STORAGE),
    ("storage.k8s.io", "StorageClass", NO_STORAGE),
    ("storage.k8s.io", "VolumeAttachment", NO_STORAGE),
    ("storage.k8s.io", "VolumeAttributesClass", NO_STORAGE),
];

/// What a client that creates this object (in its stored version) has to know.
pub fn warning(group: &str, kind: &str, document: &Value) -> Option<String> {
    if (group, kind) == ("", "Service") {
        let balanced = document.str_at(&["spec", "type"]) == Some("LoadBalancer");
        let text = "knarr gives services of type LoadBalancer no external address yet; see docs/compatibility.md";
        return balanced.then(|| text.to_string());
    }
    let (.., lacks) = KINDS.iter().find(|(g, k, _)| (*g, *k) == (group, kind))?;
    Some(format!("knarr stores {kind} objects but {lacks}; see docs/compatibility.md"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::json;

    #[test]
    fn every_kind_is_served() {
        let unknown: Vec<_> = KINDS
            .iter()
            .filter(|(group, kind, _)| !api::resource::all().iter().any(|r| r.group == *group && r.kind == *kind))
            .collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    #[test]
    fn who_is_warned() {
        let service = |ty: &str| json!({"spec": {"type": ty}});
        for (group, kind, document, want) in [
            (
                "resource.k8s.io",
                "ResourceClaim",
                json!({}),
                Some("knarr stores ResourceClaim objects but does not allocate devices yet; see docs/compatibility.md"),
            ),
            (
                "",
                "Service",
                service("LoadBalancer"),
                Some("knarr gives services of type LoadBalancer no external address yet; see docs/compatibility.md"),
            ),
            ("", "Service", service("NodePort"), None),
            ("apps", "Deployment", json!({}), None),
        ] {
            assert_eq!(warning(group, kind, &document).as_deref(), want, "{kind}");
        }
    }
}
