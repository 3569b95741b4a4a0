//! Validation of probes and lifecycle hooks.

use meta::field::{Error, Errors, Path};
use meta::{Value, names};

/// Which member holds what a probe or hook does, in upstream's order.
const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

/// Checks a probe. Liveness and startup probes succeed at once, so their `successThreshold` is 1.
pub(super) fn validate_probe(
    probe: &Value,
    path: &Path,
    name: &str,
    must_be_one: bool,
    grace: i64,
    errors: &mut Errors,
) {
    if probe.is_null() {
        return;
    }
    validate_handler(probe, path, grace, errors);
    for name in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        if let Some(n) = probe.int_at(&[name]).filter(|n| *n < 0) {
            errors.push(Error::invalid(&path.child(name), n, "must be greater than or equal to 0"));
        }
    }
    if let Some(n) = probe.int_at(&["terminationGracePeriodSeconds"]).filter(|n| *n <= 0) {
        errors.push(Error::invalid(&path.child("terminationGracePeriodSeconds"), n, "must be greater than 0"));
    }
    if let Some(n) = probe.int_at(&["terminationGracePeriodSeconds"]).filter(|_| name == "readinessProbe") {
        let at = path.child("terminationGracePeriodSeconds");
        errors.push(Error::invalid(&at, n, "must not be set for readinessProbes"));
    }
    if let Some(n) = probe.int_at(&["successThreshold"]).filter(|n| must_be_one && *n != 1) {
        errors.push(Error::invalid(&path.child("successThreshold"), n, "must be 1"));
    }
}

/// Checks `postStart` or `preStop`.
pub(super) fn validate_lifecycle(lifecycle: &Value, path: &Path, grace: i64, errors: &mut Errors) {
    for name in ["postStart", "preStop"] {
        if !lifecycle[name].is_null() {
            validate_handler(&lifecycle[name], &path.child(name), grace, errors);
        }
    }
}

fn validate_handler(handler: &Value, path: &Path, grace: i64, errors: &mut Errors) {
    let mut found = 0;
    for name in HANDLERS.into_iter().filter(|name| !handler[*name].is_null()) {
        let (action, at) = (&handler[name], path.child(name));
        found += 1;
        if found > 1 {
            errors.push(Error::forbidden(&at, "may not specify more than 1 handler type"));
            continue;
        }
        match name {
            "exec" => {
                if action.array_at(&["command"]).is_empty() {
                    errors.push(Error::required(&at.child("command"), ""));
                }
            }
            "httpGet" => {
                if action.str_at(&["path"]).unwrap_or_default().is_empty() {
                    errors.push(Error::required(&at.child("path"), ""));
                }
                validate_port(&action["port"], &at.child("port"), errors);
                let scheme = action.str_at(&["scheme"]).unwrap_or_default();
                if !["HTTP", "HTTPS"].contains(&scheme) {
                    errors.push(Error::not_supported(&at.child("scheme"), scheme, &["HTTP", "HTTPS"]));
                }
                validate_headers(action, &at.child("httpHeaders"), errors);
            }
            "sleep" => {
                let seconds = action.int_at(&["seconds"]).unwrap_or(0);
                if seconds < 0 || seconds > grace {
                    let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                    errors.push(Error::invalid(&at, seconds, detail));
                }
            }
            _ => validate_port(&action["port"], &at.child("port"), errors),
        }
    }
    if found == 0 {
        errors.push(Error::required(path, "must specify a handler type"));
    }
}

fn validate_headers(action: &Value, path: &Path, errors: &mut Errors) {
    for header in action.array_at(&["httpHeaders"]) {
        let name = header.str_at(&["name"]).unwrap_or_default();
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            let detail = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', \
                          regex used for validation is '[-A-Za-z0-9]+')";
            // Compat: upstream leaves out which.
            errors.push(Error::invalid(path, name, detail));
        }
    }
}

/// A port by number or by name.
pub fn validate_port(port: &Value, path: &Path, errors: &mut Errors) {
    match port {
        Value::String(name) => {
            errors.extend(names::port_name(name).into_iter().map(|m| Error::invalid(path, name.as_str(), m)));
        }
        number => {
            let n = number.as_i64().unwrap_or(0);
            errors.extend(names::port_number(n).into_iter().map(|m| Error::invalid(path, n, m)));
        }
    }
}
