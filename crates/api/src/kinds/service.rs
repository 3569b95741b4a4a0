//! Service. Addresses and node ports are given out by the API server, not here.

use std::collections::{BTreeSet, HashSet};

use meta::field::{Error, Errors, Path};
use meta::time::Timestamp;
use meta::{Value, names};

use super::columns::{AGE, Cell, Column, NAME, age, int, labels, name, text};
use super::rules::{Check, Rule, check};
use super::{Kind, fill, keep_status, pod_spec};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Type", ".spec.type"),
        Column::text("Cluster-IP", ".spec.clusterIP"),
        Column::text("External-IP", ".spec.externalIPs"),
        Column::text("Port(s)", ".spec.ports"),
        AGE,
        Column::text("Selector", ".spec.selector").wide(),
    ],
    row: Some(row),
    defaults,
    prepare_create: |s| s.set(&["status"], meta::json!({"loadBalancer": {}})),
    prepare_update,
    validate_create: validate,
    validate_update,
    validate_status_update: |new, _| validate_load_balancer(new, true),
    name_rule: names::dns1123_label,
    selectable: |s| {
        vec![
            ("spec.clusterIP", text(s, &["spec", "clusterIP"]).to_string()),
            ("spec.type", text(s, &["spec", "type"]).to_string()),
        ]
    },
    selectable_names: &["spec.clusterIP", "spec.type"],
    create_on_update: true,
    fixed_first: true,
    ..Kind::PLAIN
};

fn row(s: &Value, now: Timestamp) -> Vec<Cell> {
    let ip = match s.array_at(&["spec", "clusterIPs"]) {
        [first, ..] => first.as_str().unwrap_or_default(),
        [] => text(s, &["spec", "clusterIP"]),
    };
    let ports: Vec<String> = s.array_at(&["spec", "ports"]).iter().map(port_text).collect();
    vec![
        name(s),
        text(s, &["spec", "type"]).into(),
        if ip.is_empty() { "<none>" } else { ip }.into(),
        external(s).into(),
        if ports.is_empty() { "<none>".into() } else { ports.join(",").into() },
        age(s, now),
        labels(&s["spec"]["selector"]).into(),
    ]
}

fn port_text(port: &Value) -> String {
    let (number, protocol) = (int(port, &["port"]), text(port, &["protocol"]));
    match int(port, &["nodePort"]) {
        0 => format!("{number}/{protocol}"),
        node => format!("{number}:{node}/{protocol}"),
    }
}

/// Checks the addresses in a load balancer's status; only those of services say how they are reached.
pub(super) fn validate_load_balancer(object: &Value, of_service: bool) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("status.loadBalancer.ingress");
    let ingress = object.array_at(&["status", "loadBalancer", "ingress"]);
    if of_service && !ingress.is_empty() && text(object, &["spec", "type"]) != "LoadBalancer" {
        errors.push(Error::forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'"));
        return errors;
    }
    for (i, point) in ingress.iter().enumerate() {
        let at = path.index(i);
        let (ip, host) = (text(point, &["ip"]), text(point, &["hostname"]));
        if !ip.is_empty() {
            errors.extend(names::ip(ip).into_iter().map(|m| Error::invalid(&at.child("ip"), ip, m)));
        }
        if let Some(mode) = point.str_at(&["ipMode"]).filter(|_| of_service) {
            let at = at.child("ipMode");
            if ip.is_empty() {
                errors.push(Error::forbidden(&at, "may not be specified when `ip` is not set"));
            } else if !["Proxy", "VIP"].contains(&mode) {
                errors.push(Error::not_supported(&at, mode, &["Proxy", "VIP"]));
            }
        }
        if !host.is_empty() {
            let wrong = names::dns1123_subdomain(host).into_iter();
            errors.extend(wrong.map(|m| Error::invalid(&at.child("hostname"), host, m)));
            if names::ip(host).is_empty() {
                let detail = "must be a DNS name, not an IP address";
                errors.push(Error::invalid(&at.child("hostname"), host, detail));
            }
        }
    }
    errors
}

/// Addresses of a load balancer's status: ip, or else host name.
pub(super) fn load_balancer(status: &Value) -> Vec<String> {
    let mut found = BTreeSet::new();
    for ingress in status.array_at(&["loadBalancer", "ingress"]) {
        let (ip, host) = (text(ingress, &["ip"]), text(ingress, &["hostname"]));
        let address = if ip.is_empty() { host } else { ip };
        if !address.is_empty() {
            found.insert(address.to_string());
        }
    }
    found.into_iter().collect()
}

fn external(s: &Value) -> String {
    let mut addresses: Vec<String> = Vec::new();
    let ty = text(s, &["spec", "type"]);
    if ty == "ExternalName" {
        return text(s, &["spec", "externalName"]).to_string();
    }
    if ty == "LoadBalancer" {
        addresses.extend(load_balancer(&s["status"]));
    }
    addresses.extend(s.array_at(&["spec", "externalIPs"]).iter().filter_map(Value::as_str).map(String::from));
    match (addresses.is_empty(), ty) {
        (true, "LoadBalancer") => "<pending>".into(),
        (true, _) => "<none>".into(),
        _ => addresses.join(","),
    }
}

fn is_external(s: &Value) -> bool {
    let ty = text(s, &["spec", "type"]);
    ty == "NodePort" || ty == "LoadBalancer" || (ty == "ClusterIP" && !s.array_at(&["spec", "externalIPs"]).is_empty())
}

fn defaults(s: &mut Value) {
    let spec = s.slot(&["spec"]);
    fill::text(spec, "sessionAffinity", "None");
    match text(spec, &["sessionAffinity"]) {
        "None" => {
            spec.remove(&["sessionAffinityConfig"]);
        }
        "ClientIP" => spec.set_default(&["sessionAffinityConfig", "clientIP", "timeoutSeconds"], 10800),
        _ => {}
    }
    fill::text(spec, "type", "ClusterIP");
    fill::each(spec, &["ports"], |port| {
        fill::text(port, "protocol", "TCP");
        let target = &port["targetPort"];
        if target.is_empty() {
            let number = port["port"].clone();
            port.set(&["targetPort"], number);
        }
    });
    let ty = text(spec, &["type"]).to_string();
    if is_external(s) {
        fill::text(s.slot(&["spec"]), "externalTrafficPolicy", "Cluster");
    }
    let spec = s.slot(&["spec"]);
    if ty != "ExternalName" {
        fill::text(spec, "internalTrafficPolicy", "Cluster");
    }
    fill::each(s, &["status", "loadBalancer", "ingress"], |point| {
        if !point["ip"].is_empty() {
            fill::unset(point, "ipMode", "VIP");
        }
    });
    let spec = s.slot(&["spec"]);
    if ty == "LoadBalancer" {
        spec.set_default(&["allocateLoadBalancerNodePorts"], true);
    }
}

/// What the service no longer has a use for goes, unless the client changed it as well.
fn prepare_update(new: &mut Value, old: &Value) {
    keep_status(new, old);
    let balancer = |s: &Value| text(s, &["spec", "type"]) == "LoadBalancer";
    let health = |s: &Value| balancer(s) && text(s, &["spec", "externalTrafficPolicy"]) == "Local";
    for (member, kept) in [
        ("healthCheckNodePort", health(new)),
        ("externalTrafficPolicy", is_external(new)),
        ("allocateLoadBalancerNodePorts", balancer(new)),
        ("loadBalancerClass", balancer(new)),
    ] {
        if !kept && new["spec"][member] == old["spec"][member] {
            new.remove(&["spec", member]);
        }
    }
    if balancer(old) && !balancer(new) {
        new.set(&["status"], meta::json!({"loadBalancer": {}}));
    }
}

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const POLICIES: &[&str] = &["Cluster", "Local"];
const RULES: &[Rule] = &[
    ("spec.selector", Check::Labels),
    ("spec.sessionAffinity", Check::RequiredOneOf(&["ClientIP", "None"])),
    ("spec.type", Check::RequiredOneOf(TYPES)),
    ("spec.ipFamilies[]", Check::GivenOneOf(&["IPv4", "IPv6"])),
    ("spec.ipFamilyPolicy", Check::GivenOneOf(&["PreferDualStack", "RequireDualStack", "SingleStack"])),
    ("spec.trafficDistribution", Check::GivenOneOf(&["PreferClose", "PreferSameZone", "PreferSameNode"])),
];

const LAST: &[Rule] = &[
    ("spec.loadBalancerClass", Check::GivenName(names::qualified_name)),
    ("spec.internalTrafficPolicy", Check::GivenOneOf(POLICIES)),
];

fn validate(s: &Value) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    let spec = &s["spec"];
    let ty = text(spec, &["type"]);
    let headless = text(spec, &["clusterIP"]) == "None";
    let ports = spec.array_at(&["ports"]);
    if ports.is_empty() && !headless && ty != "ExternalName" {
        errors.push(Error::required(&path.child("ports"), ""));
    }
    match ty {
        "ExternalName" => {
            for member in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if !spec[member].is_empty() {
                    errors.push(Error::forbidden(&path.child(member), "may not be set for ExternalName services"));
                }
            }
            let external = text(spec, &["externalName"]).trim_end_matches('.');
            let at = path.child("externalName");
            if external.is_empty() {
                errors.push(Error::required(&at, ""));
            } else {
                let wrong = names::dns1123_subdomain(external);
                errors.extend(wrong.into_iter().map(|m| Error::invalid(&at, external, m)));
            }
        }
        "LoadBalancer" if headless => {
            let detail = "may not be set to 'None' for LoadBalancer services";
            errors.push(Error::invalid(&path.child("clusterIPs").index(0), "None", detail));
        }
        "NodePort" if headless => {
            let detail = "may not be set to 'None' for NodePort services";
            errors.push(Error::invalid(&path.child("clusterIPs").index(0), "None", detail));
        }
        _ => {}
    }
    validate_ports(ports, ty, headless, &path.child("ports"), &mut errors);
    check(s, RULES, &mut errors);
    validate_affinity(spec, &path, &mut errors);
    for (i, ip) in spec.array_at(&["externalIPs"]).iter().filter_map(Value::as_str).enumerate() {
        let at = path.child("externalIPs").index(i);
        errors.extend(public_ip(ip).into_iter().map(|m| Error::invalid(&at, ip, m)));
    }
    if ty != "LoadBalancer" && !spec.array_at(&["loadBalancerSourceRanges"]).is_empty() {
        let at = path.child("LoadBalancerSourceRanges");
        errors.push(Error::forbidden(&at, "may only be used when `type` is 'LoadBalancer'"));
    }
    for (i, range) in spec.array_at(&["loadBalancerSourceRanges"]).iter().filter_map(Value::as_str).enumerate() {
        let at = path.child("LoadBalancerSourceRanges").index(i);
        errors.extend(names::cidr(range.trim()).into_iter().map(|m| Error::invalid(&at, range, m)));
    }
    validate_addresses(spec, &path, &mut errors);
    let policy = text(spec, &["externalTrafficPolicy"]);
    let at = path.child("externalTrafficPolicy");
    if !is_external(s) && !policy.is_empty() {
        let detail = "may only be set for externally-accessible services";
        errors.push(Error::invalid(&at, policy, detail));
    } else if !policy.is_empty() && !POLICIES.contains(&policy) {
        errors.push(Error::not_supported(&at, policy, POLICIES));
    }
    let port = int(spec, &["healthCheckNodePort"]);
    if port != 0 && !(ty == "LoadBalancer" && policy == "Local") {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.push(Error::invalid(&path.child("healthCheckNodePort"), port, detail));
    }
    check(s, LAST, &mut errors);
    if ty != "LoadBalancer" {
        for member in ["loadBalancerClass", "allocateLoadBalancerNodePorts"] {
            if !spec[member].is_null() {
                errors.push(Error::forbidden(&path.child(member), "may only be used when `type` is 'LoadBalancer'"));
            }
        }
    }
    errors
}

/// What is wrong with an address at which something is reached from outside.
fn public_ip(ip: &str) -> Vec<String> {
    match names::ip(ip) {
        wrong if wrong.is_empty() => names::special_ip(ip).into_iter().map(String::from).collect(),
        wrong => wrong,
    }
}

/// Addresses and families, as far as they can be judged without the cluster's ranges.
fn validate_addresses(spec: &Value, path: &Path, errors: &mut Errors) {
    let (ips, families) = (spec.array_at(&["clusterIPs"]), spec.array_at(&["ipFamilies"]));
    let at = path.child("clusterIPs");
    let all = |detail: &str| Error::invalid(&at, ips.to_vec(), detail);
    match (text(spec, &["clusterIP"]), ips) {
        ("", []) => {}
        ("", _) => errors.push(all("must be empty when `clusterIP` is not specified")),
        (_, []) => errors.push(Error::required(&at, "")),
        (first, [is, ..]) if is.as_str() != Some(first) => errors.push(all("first value must match `clusterIP`")),
        _ => {}
    }
    let mut known = HashSet::new();
    for (i, family) in families.iter().enumerate().filter(|(_, family)| !known.insert(family.as_str())) {
        errors.push(Error::duplicate(&path.child("ipFamilies").index(i), family));
    }
    let is_none = |ip: &Value| ip.as_str() == Some("None");
    if ips.iter().any(is_none) {
        if ips.len() > 1 {
            errors.push(all("'None' must be the first and only value"));
        }
        return;
    }
    if ips.len() > 2 {
        errors.push(all("may only hold up to 2 values"));
    }
    let is_v6 = |ip: &Value| ip.as_str().is_some_and(|ip| ip.contains(':'));
    let before = errors.len();
    for (i, ip) in ips.iter().enumerate() {
        let wrong = names::ip(ip.as_str().unwrap_or_default());
        errors.extend(wrong.into_iter().map(|m| Error::invalid(&at.index(i), ip, m)));
    }
    if errors.len() > before {
        return;
    }
    if ips.len() == 2 && is_v6(&ips[0]) == is_v6(&ips[1]) {
        errors.push(all("may specify no more than one IP for each IP family"));
    }
    for (i, (ip, family)) in ips.iter().zip(families).enumerate() {
        if is_v6(ip) != (family.as_str() == Some("IPv6")) {
            let family = family.as_str().unwrap_or_default();
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            errors.push(Error::invalid(&at.index(i), ip, detail));
        }
    }
}

fn validate_affinity(spec: &Value, path: &Path, errors: &mut Errors) {
    let timeout = spec.int_at(&["sessionAffinityConfig", "clientIP", "timeoutSeconds"]);
    if let Some(n) = timeout.filter(|n| !(1..=86400).contains(n)) {
        let at = path.child("sessionAffinityConfig.clientIP.timeoutSeconds");
        errors.push(Error::invalid(&at, n, "must be greater than 0 and less than 86400"));
    }
}

fn validate_ports(ports: &[Value], ty: &str, headless: bool, path: &Path, errors: &mut Errors) {
    let mut names_seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let at = path.index(i);
        let port_name = text(port, &["name"]);
        if port_name.is_empty() {
            if ports.len() > 1 {
                errors.push(Error::required(&at.child("name"), ""));
            }
        } else {
            let wrong = names::dns1123_label(port_name);
            errors.extend(wrong.into_iter().map(|m| Error::invalid(&at.child("name"), port_name, m)));
            if !names_seen.insert(port_name.to_string()) {
                errors.push(Error::duplicate(&at.child("name"), port_name));
            }
        }
        let number = int(port, &["port"]);
        errors.extend(names::port_number(number).into_iter().map(|m| Error::invalid(&at.child("port"), number, m)));
        let protocol = text(port, &["protocol"]);
        match protocol {
            "" => errors.push(Error::required(&at.child("protocol"), "")),
            "TCP" | "UDP" | "SCTP" => {}
            other => errors.push(Error::not_supported(&at.child("protocol"), other, &["SCTP", "TCP", "UDP"])),
        }
        if !headless || !port["targetPort"].is_empty() {
            pod_spec::validate_port(&port["targetPort"], &at.child("targetPort"), errors);
        }
        if let Some(app) = port.str_at(&["appProtocol"]) {
            let wrong = names::qualified_name(app);
            errors.extend(wrong.into_iter().map(|m| Error::invalid(&at.child("appProtocol"), app, m)));
        }
        let node = int(port, &["nodePort"]);
        if node != 0 {
            if ty == "ClusterIP" {
                let detail = "may not be used when `type` is 'ClusterIP'";
                errors.push(Error::forbidden(&at.child("nodePort"), detail));
            } else if ty == "ExternalName" {
                let detail = "may not be used when `type` is 'ExternalName'";
                errors.push(Error::forbidden(&at.child("nodePort"), detail));
            }
        }
    }
    let mut nodes = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let node = int(port, &["nodePort"]);
        if node != 0 && !nodes.insert((text(port, &["protocol"]), node)) {
            errors.push(Error::duplicate(&path.index(i).child("nodePort"), node));
        }
    }
    let mut pairs = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let (protocol, number) = (text(port, &["protocol"]), int(port, &["port"]));
        if !pairs.insert((protocol, number)) {
            // Compat: as Go has it.
            let shown = format!(
                "{{\"Name\":\"\",\"Protocol\":{protocol:?},\"AppProtocol\":null,\"Port\":{number},\"TargetPort\":0,\"NodePort\":0}}"
            );
            errors.push(Error::duplicate_raw(&path.index(i), &shown));
        }
    }
}

fn validate_update(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let has_ip = |s: &Value| text(s, &["spec", "type"]) != "ExternalName";
    let headless = |s: &Value| text(s, &["spec", "clusterIP"]) == "None";
    if has_ip(new) && has_ip(old) && !(headless(new) && headless(old)) {
        for (member, what) in [("clusterIPs", "clusterIP"), ("ipFamilies", "ipFamily")] {
            let (now, was) = (new.array_at(&["spec", member]), old.array_at(&["spec", member]));
            let at = Path::new("spec").child(member);
            if now.is_empty() && !was.is_empty() {
                let detail = format!("primary {what} can not be unset");
                errors.push(Error::invalid(&at.index(0), now.to_vec(), detail));
            }
            for (i, _) in now.iter().zip(was).enumerate().filter(|(_, (now, was))| now != was) {
                errors.push(Error::invalid(&at.index(i), now.to_vec(), "may not change once set"));
            }
        }
    }
    let port = |s: &Value| int(s, &["spec", "healthCheckNodePort"]);
    if port(old) != 0 && port(new) != 0 && port(new) != port(old) {
        errors.push(Error::forbidden(&Path::new("spec.healthCheckNodePort"), "field is immutable"));
    }
    let class = |s: &Value| s["spec"]["loadBalancerClass"].clone();
    if [new, old].iter().all(|s| text(s, &["spec", "type"]) == "LoadBalancer") && class(new) != class(old) {
        errors.push(Error::invalid(&Path::new("spec.loadBalancerClass"), class(new), "may not change once set"));
    }
    errors.extend(validate(new));
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::{json, time};

    #[test]
    fn defaults_and_rows() {
        let now = time::parse("2026-01-01T00:00:30Z").expect("a time");
        golden::check!("service/rows.txt", |spec| {
            let mut s = json!({"metadata": {"name": "s", "creationTimestamp": "2026-01-01T00:00:00Z"}});
            s.set(&["spec"], meta::parse(spec.as_bytes()).expect("JSON"));
            defaults(&mut s);
            let wrong: String = validate(&s).iter().map(|e| format!("\n{e}")).collect();
            format!("{}\n{}{wrong}", s["spec"], Value::Array(row(&s, now)))
        });
    }

    #[test]
    fn faults_as_upstream() {
        let mut s = json!({"spec": {"type": "ClusterIP", "externalTrafficPolicy": "Local", "sessionAffinity": "x", "selector": {"a": "b c"},
            "ports": [{"port": 0}, {"port": 80, "name": "B", "targetPort": "", "nodePort": 3}, {"port": 80, "name": "c", "protocol": "X"}]}});
        defaults(&mut s);
        let text: Vec<String> = validate(&s).iter().map(|e| e.to_string().chars().take(110).collect()).collect();
        expect_test::expect_file!["service/faults_as_upstream.txt"].assert_eq(&text.join("\n"));
    }

    #[test]
    fn addresses_and_their_changes() {
        golden::check!("service/addresses.txt", |case| {
            let mut services = case.split(" < ").map(|spec| {
                let mut service = json!({"spec": {"type": "ClusterIP", "sessionAffinity": "None",
                    "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}]}});
                for (member, value) in meta::parse(spec.as_bytes()).expect("JSON").as_object().expect("members").iter()
                {
                    service.set(&["spec", member], value);
                }
                service
            });
            let (new, old) = (services.next().expect("a service"), services.next());
            let errors = old.map_or_else(|| validate(&new), |old| validate_update(&new, &old));
            errors.iter().map(|e| format!("{e}\n")).collect()
        });
    }
}
