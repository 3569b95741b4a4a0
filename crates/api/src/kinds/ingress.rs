//! Ingress.

use super::prelude::*;
use super::service::{load_balancer, validate_load_balancer};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Class", "The name of the IngressClass resource that should be used for additional configuration")
            .or("spec.ingressClassName", "<none>"),
        Column::text("Hosts", "Hosts that incoming requests are matched against before the ingress rule").by(hosts),
        Column::text("Address", "Addresses at which the ingress is reached.")
            .by(|i| load_balancer(&i["status"]).join(",").into()),
        Column::text("Ports", "Ports of TLS configurations that open")
            .by(|i| if i.array_at(&["spec", "tls"]).is_empty() { "80".into() } else { "80, 443".into() }),
        AGE,
    ],
    prepare_create: |i| new_object(i, json!({"loadBalancer": {}})),
    prepare_update: keep_status_count_spec,
    validate,
    validate_status_update: |new, _| validate_load_balancer(new, false),
    ..Kind::PLAIN
};

fn hosts(i: &Value) -> Cell {
    let hosts: Vec<String> = i
        .array_at(&["spec", "rules"])
        .iter()
        .map(|r| text(r, &["host"]).to_string())
        .filter(|h| !h.is_empty())
        .collect();
    if hosts.is_empty() { "*".into() } else { super::endpoints::shorten(&hosts).into() }
}

const PATH_TYPES: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];

fn validate(i: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let rules = i.array_at(&["spec", "rules"]);
    let backend = &i["spec"]["defaultBackend"];
    if rules.is_empty() && backend.is_null() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.push(Error::invalid(&path, Value::Null, detail));
    }
    if !backend.is_null() {
        validate_backend(backend, &path.child("defaultBackend"), errors);
    }
    for (r, rule) in rules.iter().enumerate() {
        let at = path.child("rules").index(r);
        let host = text(rule, &["host"]);
        if !host.is_empty() {
            validate_host(host, &at.child("host"), errors);
            if names::ip(host).is_empty() {
                errors.push(Error::invalid(&at.child("host"), host, "must be a DNS name, not an IP address"));
            }
        }
        if rule["http"].is_null() {
            continue;
        }
        let paths = rule.array_at(&["http", "paths"]);
        let at = at.child("http.paths");
        if paths.is_empty() {
            errors.push(Error::required(&at, ""));
        }
        for (p, entry) in paths.iter().enumerate() {
            let at = at.index(p);
            let (ty, url) = (text(entry, &["pathType"]), text(entry, &["path"]));
            if entry["pathType"].is_null() {
                errors.push(Error::required(&at.child("pathType"), "pathType must be specified"));
                continue;
            } else if !PATH_TYPES.contains(&ty) {
                errors.push(Error::not_supported(&at.child("pathType"), ty, PATH_TYPES));
            } else if !(url.starts_with('/') || (url.is_empty() && ty == "ImplementationSpecific")) {
                errors.push(Error::invalid(&at.child("path"), url, "must be an absolute path"));
            } else if ty != "ImplementationSpecific" {
                for part in BAD_PATHS.iter().filter(|part| url.contains(**part)) {
                    errors.push(Error::invalid(&at.child("path"), url, format!("must not contain '{part}'")));
                }
                for part in BAD_ENDS.iter().filter(|part| url.ends_with(**part)) {
                    errors.push(Error::invalid(&at.child("path"), url, format!("cannot end with '{part}'")));
                }
            }
            validate_backend(&entry["backend"], &at.child("backend"), errors);
        }
    }
    for (t, tls) in i.array_at(&["spec", "tls"]).iter().enumerate() {
        check_at(tls, &path.child("tls").index(t), &[("secretName", Name(names::dns1123_subdomain))], errors);
        for (h, host) in tls.array_at(&["hosts"]).iter().filter_map(Value::as_str).enumerate() {
            validate_host(host, &path.child("tls").index(t).child("hosts").index(h), errors);
        }
    }
    check(i, &[("spec.ingressClassName", GivenName(names::dns1123_subdomain))], errors);
}

const RESOURCE: &[Rule] = &[
    ("apiGroup", GivenName(names::dns1123_subdomain)),
    ("kind", Required("")),
    ("kind", Name(names::path_segment)),
    ("name", Required("")),
    ("name", Name(names::path_segment)),
];

/// Which parts a path that is compared must not have, and not at its end.
const BAD_PATHS: &[&str] = &["//", "/./", "/../", "%2f", "%2F"];
const BAD_ENDS: &[&str] = &["/..", "/."];

fn validate_host(host: &str, path: &Path, errors: &mut Errors) {
    let wrong = if host.contains('*') { names::wildcard_subdomain(host) } else { names::dns1123_subdomain(host) };
    errors.extend(wrong.into_iter().map(|m| Error::invalid(path, host, m)));
}

fn validate_backend(backend: &Value, path: &Path, errors: &mut Errors) {
    let (service, resource) = (&backend["service"], &backend["resource"]);
    match (service.is_null(), resource.is_null()) {
        (false, false) => {
            errors.push(Error::invalid(path, "", "cannot set both resource and service backends"));
        }
        (true, true) => errors.push(Error::invalid(path, "", "resource or service backend is required")),
        (true, false) => check_at(resource, &path.child("resource"), RESOURCE, errors),
        (false, true) => {
            let at = path.child("service");
            let service_name = text(service, &["name"]);
            if service_name.is_empty() {
                errors.push(Error::required(&at.child("name"), ""));
            } else {
                let wrong = names::dns1123_label(service_name);
                errors.extend(wrong.into_iter().map(|m| Error::invalid(&at.child("name"), service_name, m)));
            }
            let (port_name, number) =
                (text(service, &["port", "name"]), service.int_at(&["port", "number"]).unwrap_or(0));
            match (port_name.is_empty(), number) {
                (true, 0) => errors.push(Error::required(path, "port name or number is required")),
                (false, n) if n != 0 => {
                    errors.push(Error::invalid(path, "", "cannot set both port name & port number"))
                }
                (true, n) => {
                    let wrong = names::port_number(n);
                    errors.extend(wrong.into_iter().map(|m| Error::invalid(&at.child("port.number"), n, m)));
                }
                _ => {
                    let wrong = names::port_name(port_name);
                    errors.extend(wrong.into_iter().map(|m| Error::invalid(&at.child("port.name"), port_name, m)));
                }
            }
        }
    }
}
