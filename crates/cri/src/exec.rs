//! Calls that reach into a container: run a command and wait, or get the URL of a stream to a command, to the main
//! process, or to a port. Invariant: `exec_sync` ends at its time limit even if the runtime ignores it.

use std::time::Duration;

use crate::connect::{CALL_LIMIT, within};
use crate::v1::*;
use crate::{Client, Result};

/// Added to a command's own time limit before the call itself is given up.
const EXEC_MARGIN: Duration = Duration::from_secs(15);

impl Client {
    /// `ExecSync`: runs a command to its end; `timeout` zero means the default limit of calls.
    pub async fn exec_sync(&self, container_id: &str, cmd: Vec<String>, timeout: Duration) -> Result<ExecSyncResponse> {
        let request =
            ExecSyncRequest { container_id: container_id.to_string(), cmd, timeout: timeout.as_secs() as i64 };
        let limit = if timeout.is_zero() { CALL_LIMIT } else { timeout + EXEC_MARGIN };
        within("ExecSync", limit, self.runtime.clone().exec_sync(request)).await
    }

    /// `Exec`: the URL at which the runtime serves the command's streams.
    pub async fn exec(&self, request: ExecRequest) -> Result<String> {
        Ok(within("Exec", CALL_LIMIT, self.runtime.clone().exec(request)).await?.url)
    }

    /// `Attach`: the URL at which the runtime serves the main process's streams.
    pub async fn attach(&self, request: AttachRequest) -> Result<String> {
        Ok(within("Attach", CALL_LIMIT, self.runtime.clone().attach(request)).await?.url)
    }

    /// `PortForward`: the URL at which the runtime forwards the sandbox's ports.
    pub async fn port_forward(&self, sandbox_id: &str, ports: Vec<i32>) -> Result<String> {
        let request = PortForwardRequest { pod_sandbox_id: sandbox_id.to_string(), port: ports };
        Ok(within("PortForward", CALL_LIMIT, self.runtime.clone().port_forward(request)).await?.url)
    }
}
