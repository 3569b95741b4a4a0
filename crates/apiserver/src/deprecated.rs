//! Built-in resources that will not always be there, and the warning that says so with every answer.
//!
//! Source: kube-apiserver v1.37.1, asked with all versions turned on.

use api::resource::{Resource, Stage};

/// Of a version that is not settled: since which minor release it is deprecated, in which it is gone, and whether the
/// settled version takes its place.
const PREVIEWS: [(&str, &str, u32, u32, bool); 9] = [
    ("admissionregistration.k8s.io", "v1alpha1", 35, 38, false),
    ("admissionregistration.k8s.io", "v1beta1", 37, 40, true),
    ("certificates.k8s.io", "v1beta1", 37, 40, true),
    ("coordination.k8s.io", "v1alpha2", 35, 38, false),
    ("coordination.k8s.io", "v1beta1", 36, 39, false),
    ("resource.k8s.io", "v1alpha3", 36, 39, false),
    ("resource.k8s.io", "v1beta1", 35, 38, false),
    ("resource.k8s.io", "v1beta2", 36, 39, false),
    ("storagemigration.k8s.io", "v1beta1", 37, 40, true),
];

pub fn warning(resource: &Resource) -> Option<String> {
    let (group, version, kind) = (&*resource.group, &*resource.version, &*resource.kind);
    if resource.stage == Stage::Ga {
        let is_endpoints = group.is_empty() && kind == "Endpoints";
        return is_endpoints
            .then(|| "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".to_string());
    }
    let (.., since, until, is_settled) = PREVIEWS.iter().find(|(g, v, ..)| (*g, *v) == (group, version))?;
    if [("v1beta2", "DeviceTaintRule"), ("v1alpha3", "ResourcePoolStatusRequest")].contains(&(version, kind)) {
        return None; // not before v1.39
    }
    let instead = if *is_settled { format!("; use {group}/v1 {kind}") } else { String::new() };
    Some(format!("{group}/{version} {kind} is deprecated in v1.{since}+, unavailable in v1.{until}+{instead}"))
}
