//! Lifecycle hooks: what runs right after a container starts and before it is stopped.
//!
//! Runs commands through the runtime, makes HTTP requests or TCP connections to the pod, or sleeps. Invariant: a hook ends
//! within the time it is given.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Probe};

use crate::probes::{self, Outcome};

/// The longest a postStart hook may take.
pub const POST_START_LIMIT: Duration = Duration::from_secs(3600);

/// Runs one hook to its end or to `limit`. The error is for logs: upstream's event text carries no details.
pub async fn run(
    cri: &cri::Client,
    container: &Container,
    container_id: &str,
    hook: &LifecycleHandler,
    pod_ip: &str,
    limit: Duration,
) -> Result<(), String> {
    if let Some(sleep) = &hook.sleep {
        let wanted = Duration::from_secs(sleep.seconds.max(0) as u64);
        tokio::time::sleep(wanted.min(limit)).await;
        return Ok(());
    }
    let probe = as_probe(hook, limit);
    let tried = probes::try_once(cri, container, container_id, &probe, pod_ip);
    match tokio::time::timeout(limit, tried).await {
        Ok(Outcome::Success | Outcome::Warning(_)) => Ok(()),
        Ok(Outcome::Failure(words) | Outcome::Error(words)) => Err(words),
        Err(_) => Err(format!("hook still ran after {} seconds", limit.as_secs())),
    }
}

/// A hook does what a probe does, once.
fn as_probe(hook: &LifecycleHandler, limit: Duration) -> Probe {
    Probe {
        exec: hook.exec.clone(),
        http_get: hook.http_get.clone(),
        tcp_socket: hook.tcp_socket.clone(),
        timeout_seconds: Some(limit.as_secs().clamp(1, i32::MAX as u64) as i32),
        ..Probe::default()
    }
}
