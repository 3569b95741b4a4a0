//! Sandbox calls: the network namespace and cgroup a pod's containers share. Invariant: stop and remove are idempotent,
//! an absent sandbox is success.

use std::collections::BTreeMap;

use crate::connect::within;
use crate::v1::*;
use crate::{Client, Result};

impl Client {
    /// `RunPodSandbox`: makes and starts a sandbox, returns its id.
    pub async fn sandbox_run(&self, config: PodSandboxConfig, runtime_handler: &str) -> Result<String> {
        let request = RunPodSandboxRequest { config: Some(config), runtime_handler: runtime_handler.to_string() };
        let mut runtime = self.runtime.clone();
        Ok(within("RunPodSandbox", self.timeouts.sandbox, runtime.run_pod_sandbox(request)).await?.pod_sandbox_id)
    }

    /// `StopPodSandbox`: kills what still runs in it and gives its address back. An absent sandbox is success.
    pub async fn sandbox_stop(&self, id: &str) -> Result<()> {
        let request = StopPodSandboxRequest { pod_sandbox_id: id.to_string() };
        let mut runtime = self.runtime.clone();
        match within("StopPodSandbox", self.timeouts.sandbox, runtime.stop_pod_sandbox(request)).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// `RemovePodSandbox`: removes it and its containers. An absent sandbox is success.
    pub async fn sandbox_remove(&self, id: &str) -> Result<()> {
        let request = RemovePodSandboxRequest { pod_sandbox_id: id.to_string() };
        let mut runtime = self.runtime.clone();
        match within("RemovePodSandbox", self.timeouts.call, runtime.remove_pod_sandbox(request)).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// `PodSandboxStatus`; `verbose` fills `info` with the runtime's own details.
    pub async fn sandbox_status(&self, id: &str, verbose: bool) -> Result<PodSandboxStatusResponse> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_string(), verbose };
        let mut runtime = self.runtime.clone();
        within("PodSandboxStatus", self.timeouts.call, runtime.pod_sandbox_status(request)).await
    }

    /// `ListPodSandbox`: those that have all the labels; no labels means all of them.
    pub async fn sandbox_list(&self, labels: BTreeMap<String, String>) -> Result<Vec<PodSandbox>> {
        let filter = PodSandboxFilter { label_selector: labels, ..Default::default() };
        let mut runtime = self.runtime.clone();
        let request = ListPodSandboxRequest { filter: Some(filter) };
        Ok(within("ListPodSandbox", self.timeouts.call, runtime.list_pod_sandbox(request)).await?.items)
    }
}
