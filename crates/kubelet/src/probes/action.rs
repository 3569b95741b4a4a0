//! One try of a probe: works out where to go, does it within the time limit, and says how it went in upstream's words.
//!
//! Reads the network or asks the runtime. Invariant: `run` always returns within the timeout, plus the runtime's own margin for exec.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{grpc, http, tcp};
use crate::env::expand;

/// How one try went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// Counts as success, but is worth an event.
    Warning(String),
    Failure(String),
    /// The probe itself could not be done; it does not count.
    Error(String),
}

/// Output kept from a command or a body.
pub const MAX_OUTPUT_BYTES: usize = 10 << 10;

pub async fn run(
    runtime: &cri::Client,
    container: &Container,
    container_id: &str,
    probe: &Probe,
    pod_ip: &str,
) -> Outcome {
    let timeout = Duration::from_secs(probe.timeout_seconds.unwrap_or(1).max(1) as u64);
    if let Some(action) = &probe.exec {
        return exec(runtime, container_id, command(action.command.as_deref().unwrap_or_default(), container), timeout)
            .await;
    }
    if let Some(action) = &probe.http_get {
        let port = match port(&action.port, container) {
            Ok(port) => port,
            Err(error) => return Outcome::Error(error),
        };
        let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip);
        let headers =
            action.http_headers.iter().flatten().map(|header| (header.name.clone(), header.value.clone())).collect();
        let https = action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
        let target = http::Target { https, host: host.to_owned(), port, path: action.path.clone().unwrap_or_default() };
        return http::get(target, headers, timeout).await;
    }
    if let Some(action) = &probe.tcp_socket {
        let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip);
        return match port(&action.port, container) {
            Ok(port) => tcp::connect(host, port, timeout).await.map_or_else(Outcome::Failure, |_| Outcome::Success),
            Err(error) => Outcome::Error(error),
        };
    }
    if let Some(action) = &probe.grpc {
        let Ok(port) = u16::try_from(action.port) else {
            return Outcome::Error(format!("invalid port number: {}", action.port));
        };
        let tls = action.mode.as_deref() == Some("TLS");
        return grpc::check(pod_ip, port, action.service.as_deref().unwrap_or_default(), tls, timeout).await;
    }
    Outcome::Error("missing probe handler".to_owned())
}

async fn exec(runtime: &cri::Client, container_id: &str, command: Vec<String>, timeout: Duration) -> Outcome {
    match runtime.exec_sync(container_id, command, timeout).await {
        Ok(response) if response.exit_code == 0 => Outcome::Success,
        Ok(response) => {
            let mut output = response.stdout;
            output.extend_from_slice(&response.stderr);
            output.truncate(MAX_OUTPUT_BYTES);
            Outcome::Failure(String::from_utf8_lossy(&output).into_owned())
        }
        // A command that took too long is a failed probe, not a failed runtime.
        Err(error) if error.code == tonic::Code::DeadlineExceeded => {
            Outcome::Failure(format!("command timed out: {error}"))
        }
        Err(error) => Outcome::Error(error.to_string()),
    }
}

// Only variables written out in the container: others would need their objects again at every try.
fn command(command: &[String], container: &Container) -> Vec<String> {
    let value = |name: &str| {
        let variable = container.env.iter().flatten().find(|variable| variable.name == name)?;
        variable.value.clone()
    };
    command.iter().map(|text| expand::expand(text, value)).collect()
}

fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name));
            match named {
                Some(port) => port.container_port,
                None => name
                    .parse()
                    .map_err(|_| format!("couldn't find port: \"{name}\" in container {}", container.name))?,
            }
        }
    };
    u16::try_from(number).ok().filter(|number| *number > 0).ok_or_else(|| format!("invalid port number: {number}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_by_number_and_name() {
        let container: Container =
            serde_json::from_value(json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]})).unwrap();
        let table = [
            (IntOrString::Int(80), Ok(80)),
            (IntOrString::String("web".into()), Ok(8080)),
            (IntOrString::String("81".into()), Ok(81)),
            (IntOrString::String("none".into()), Err("couldn't find port: \"none\" in container c".to_owned())),
            (IntOrString::Int(0), Err("invalid port number: 0".to_owned())),
            (IntOrString::Int(70000), Err("invalid port number: 70000".to_owned())),
        ];
        for (value, expected) in table {
            assert_eq!(port(&value, &container), expected);
        }
    }
}
