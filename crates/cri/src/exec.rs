//! Calls that reach into a container: run a command and wait, or get the URL of a stream to a command, to the main
//! process, or to a port. Invariant: `exec_sync` ends at its time limit even if the runtime ignores it.

use std::time::Duration;

use crate::connect::within;
use crate::v1::*;
use crate::{Client, Result};

/// Added to a command's own time limit before the call itself is given up.
const EXEC_MARGIN: Duration = Duration::from_secs(15);

impl Client {
    /// `ExecSync`: runs a command to its end; `timeout` zero means the default limit of calls.
    pub async fn exec_sync(&self, container_id: &str, cmd: Vec<String>, timeout: Duration) -> Result<ExecSyncResponse> {
        let request =
            ExecSyncRequest { container_id: container_id.to_string(), cmd, timeout: timeout.as_secs() as i64 };
        let limit = if timeout.is_zero() { self.timeouts.call } else { timeout + EXEC_MARGIN };
        let mut runtime = self.runtime.clone();
        within("ExecSync", limit, runtime.exec_sync(request)).await
    }

    /// `Exec`: the URL at which the runtime serves the command's streams.
    pub async fn exec(&self, request: ExecRequest) -> Result<String> {
        let mut runtime = self.runtime.clone();
        Ok(within("Exec", self.timeouts.call, runtime.exec(request)).await?.url)
    }

    /// `Attach`: the URL at which the runtime serves the main process's streams.
    pub async fn attach(&self, request: AttachRequest) -> Result<String> {
        let mut runtime = self.runtime.clone();
        Ok(within("Attach", self.timeouts.call, runtime.attach(request)).await?.url)
    }

    /// `PortForward`: the URL at which the runtime forwards the sandbox's ports.
    pub async fn port_forward(&self, sandbox_id: &str, ports: Vec<i32>) -> Result<String> {
        let mut runtime = self.runtime.clone();
        let request = PortForwardRequest { pod_sandbox_id: sandbox_id.to_string(), port: ports };
        Ok(within("PortForward", self.timeouts.call, runtime.port_forward(request)).await?.url)
    }
}
