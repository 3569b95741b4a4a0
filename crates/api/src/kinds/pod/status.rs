//! What a pod's status may say.

use std::collections::HashSet;

use super::super::prelude::*;

/// `podIP` and the first of `podIPs` are the same.
pub(super) fn defaults(status: &mut Value) {
    let ip = text(status, &["podIP"]).to_string();
    let first = status.array_at(&["podIPs"]).first().map(|first| text(first, &["ip"]).to_string());
    match first {
        Some(first) if ip.is_empty() => status.set(&["podIP"], first),
        first if !ip.is_empty() && first.as_deref() != Some(&ip) => status.set(&["podIPs"], vec![json!({"ip": ip})]),
        _ => {}
    }
}

const USER: &[Rule] = &[
    ("user.linux.uid", Range(0, u32::MAX as i64)),
    ("user.linux.gid", Range(0, i32::MAX as i64)),
    ("user.linux.supplementalGroups[]", Range(0, i32::MAX as i64)),
];

pub(super) fn validate(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let (status, path) = (&new["status"], Path::new("status"));
    for (i, condition) in status.array_at(&["conditions"]).iter().enumerate() {
        let (at, ty) = (path.child("conditions").index(i).child("Type"), text(condition, &["type"]));
        errors.extend(names::qualified_name(ty).into_iter().map(|m| Error::invalid(&at, ty, m)));
    }
    check_at(status, &path, &[("nominatedNodeName", Name(names::dns1123_subdomain))], &mut errors);
    let nominated = &status["nominatedNodeName"];
    if !nominated.is_empty() && *nominated != old["status"]["nominatedNodeName"] && !old["spec"]["nodeName"].is_empty()
    {
        let detail = "may not be set on pods that are already bound to a node";
        errors.push(Error::forbidden(&path.child("nominatedNodeName"), detail));
    }
    if let Some(n) = status.int_at(&["observedGeneration"]).filter(|n| *n < 0) {
        let at = path.child("observedGeneration");
        errors.push(Error::invalid(&at, n, "must be a non-negative integer"));
    }
    let class = &status["qosClass"];
    if *class != old["status"]["qosClass"] {
        errors.push(Error::invalid(&path.child("qosClass"), class, "field is immutable"));
    }
    validate_claims(new, &path.child("resourceClaimStatuses"), &mut errors);
    validate_ips(status, "podIPs", &path, &mut errors);
    validate_ips(status, "hostIPs", &path, &mut errors);
    for list in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        for (i, container) in status.array_at(&[list]).iter().enumerate() {
            check_at(container, &path.child(list).index(i), USER, &mut errors);
        }
    }
    errors
}

fn validate_claims(new: &Value, path: &Path, errors: &mut Errors) {
    let (known, all) = (new.array_at(&["spec", "resourceClaims"]), new.array_at(&["status", "resourceClaimStatuses"]));
    let known: HashSet<Option<&str>> = known.iter().map(|claim| claim["name"].as_str()).collect();
    let mut met = HashSet::new();
    for (i, claim) in all.iter().enumerate() {
        let (at, name) = (path.index(i), &claim["name"]);
        if !known.contains(&name.as_str()) {
            let detail = "must match the name of an entry in `spec.resourceClaims`";
            errors.push(Error::invalid(&at.child("name"), name, detail));
        }
        if !met.insert(name.as_str()) {
            errors.push(Error::duplicate(&at.child("name"), name));
        }
        check_at(claim, &at, &[("resourceClaimName", GivenName(names::dns1123_subdomain))], errors);
    }
}

/// Checks addresses: one, or one of each family.
fn validate_ips(status: &Value, list: &str, path: &Path, errors: &mut Errors) {
    let ips: Vec<&str> = status.array_at(&[list]).iter().map(|ip| text(ip, &["ip"])).collect();
    let at = path.child(list);
    if let (Some(first), "hostIPs") = (ips.first().filter(|ip| **ip != text(status, &["hostIP"])), list) {
        errors.push(Error::invalid(&at.index(0).child("ip"), *first, "must be equal to `hostIP`"));
    }
    for (i, ip) in ips.iter().enumerate() {
        errors.extend(names::ip(ip).into_iter().map(|m| Error::invalid(&at.index(i), *ip, m)));
    }
    if ips.len() < 2 {
        return;
    }
    let parsed: Result<Vec<std::net::IpAddr>, usize> =
        ips.iter().enumerate().map(|(i, ip)| names::loose_ip(ip).ok_or(i)).collect();
    if let Err(i) = parsed {
        let detail = format!("failed to check for dual stack with error:invalid IP[{i}]: {}", ips[i]);
        errors.push(Error::internal(&at, detail));
    }
    if !parsed.is_ok_and(|p| p.len() == 2 && p[0].is_ipv4() != p[1].is_ipv4()) {
        let shown: Vec<String> = ips.iter().map(|ip| format!("{{\"IP\":{}}}", Value::from(*ip))).collect();
        let detail = "may specify no more than one IP for each IP family";
        errors.push(Error::invalid_raw(&at, &format!("[{}]", shown.join(",")), detail));
    }
}
