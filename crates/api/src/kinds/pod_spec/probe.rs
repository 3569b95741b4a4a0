//! Validation of probes and lifecycle hooks.

use meta::field::{Error, Errors, Path};
use meta::{Value, names};

use crate::kinds::rules::{Check, Rule, check_at};

const HTTP: &[Rule] = &[("protocol", Check::GivenOneOf(&["HTTP1", "HTTP2"]))];
const GRPC: &[Rule] = &[("mode", Check::GivenOneOf(&["Plaintext", "TLS"]))];

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

/// Checks `postStart` or `preStop`, and the signal of a container on this operating system.
pub(super) fn validate_lifecycle(lifecycle: &Value, path: &Path, os: &str, grace: i64, errors: &mut Errors) {
    for name in ["postStart", "preStop"] {
        if !lifecycle[name].is_null() {
            validate_handler(&lifecycle[name], &path.child(name), grace, errors);
        }
    }
    let Some(signal) = lifecycle.str_at(&["stopSignal"]) else { return };
    let at = path.child("stopSignal");
    let known: Vec<&str> = match os {
        "" => return errors.push(Error::forbidden(&at, "may not be set for containers with empty `spec.os.name`")),
        "windows" => vec!["SIGKILL", "SIGTERM"],
        _ => SIGNALS.split_whitespace().collect(),
    };
    if !known.contains(&signal) {
        errors.push(Error::not_supported(&at, signal, &known));
    }
}

/// As `Signal` of core/v1 lists them.
const SIGNALS: &str = "\
    SIGABRT SIGALRM SIGBUS SIGCHLD SIGCLD SIGCONT SIGFPE SIGHUP SIGILL SIGINT SIGIO SIGIOT SIGKILL SIGPIPE SIGPOLL SIGPROF
    SIGPWR SIGQUIT SIGRTMAX SIGRTMAX-1 SIGRTMAX-10 SIGRTMAX-11 SIGRTMAX-12 SIGRTMAX-13 SIGRTMAX-14 SIGRTMAX-2 SIGRTMAX-3
    SIGRTMAX-4 SIGRTMAX-5 SIGRTMAX-6 SIGRTMAX-7 SIGRTMAX-8 SIGRTMAX-9 SIGRTMIN SIGRTMIN+1 SIGRTMIN+10 SIGRTMIN+11
    SIGRTMIN+12 SIGRTMIN+13 SIGRTMIN+14 SIGRTMIN+15 SIGRTMIN+2 SIGRTMIN+3 SIGRTMIN+4 SIGRTMIN+5 SIGRTMIN+6 SIGRTMIN+7
    SIGRTMIN+8 SIGRTMIN+9 SIGSEGV SIGSTKFLT SIGSTOP SIGSYS SIGTERM SIGTRAP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGUSR1 SIGUSR2
    SIGVTALRM SIGWINCH SIGXCPU SIGXFSZ";

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
                check_at(action, &at, HTTP, errors);
                if action.str_at(&["protocol"]) == Some("HTTP2") && scheme == "HTTPS" {
                    errors.push(Error::invalid(&at.child("protocol"), "HTTP2", "is only supported with HTTP (H2C)"));
                }
            }
            "sleep" => {
                let seconds = action.int_at(&["seconds"]).unwrap_or(0);
                if seconds < 0 || seconds > grace {
                    let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                    errors.push(Error::invalid(&at, seconds, detail));
                }
            }
            _ => {
                validate_port(&action["port"], &at.child("port"), errors);
                if name == "grpc" {
                    check_at(action, &at, GRPC, errors);
                }
            }
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
