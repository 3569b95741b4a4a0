//! Sandbox calls: the network namespace and cgroup a pod's containers share. Invariant: stop and remove are idempotent,
//! an absent sandbox is success.

use std::collections::BTreeMap;

use crate::connect::{CALL_LIMIT, SANDBOX_LIMIT, within};
use crate::v1::*;
use crate::{Client, Result};

impl Client {
    /// `RunPodSandbox`: makes and starts a sandbox, returns its id.
    pub async fn sandbox_run(&self, config: PodSandboxConfig, runtime_handler: &str) -> Result<String> {
        let request = RunPodSandboxRequest { config: Some(config), runtime_handler: runtime_handler.to_string() };
        Ok(within("RunPodSandbox", SANDBOX_LIMIT, self.runtime.clone().run_pod_sandbox(request)).await?.pod_sandbox_id)
    }

    /// `StopPodSandbox`: kills what still runs in it and gives its address back. An absent sandbox is success.
    pub async fn sandbox_stop(&self, id: &str) -> Result<()> {
        let request = StopPodSandboxRequest { pod_sandbox_id: id.to_string() };
        match within("StopPodSandbox", SANDBOX_LIMIT, self.runtime.clone().stop_pod_sandbox(request)).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// `RemovePodSandbox`: removes it and its containers. An absent sandbox is success.
    pub async fn sandbox_remove(&self, id: &str) -> Result<()> {
        let request = RemovePodSandboxRequest { pod_sandbox_id: id.to_string() };
        match within("RemovePodSandbox", CALL_LIMIT, self.runtime.clone().remove_pod_sandbox(request)).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// `PodSandboxStatus`; `verbose` fills `info` with the runtime's own details.
    pub async fn sandbox_status(&self, id: &str, verbose: bool) -> Result<PodSandboxStatusResponse> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_string(), verbose };
        within("PodSandboxStatus", CALL_LIMIT, self.runtime.clone().pod_sandbox_status(request)).await
    }

    /// `ListPodSandbox`: those that have all the labels; no labels means all of them.
    pub async fn sandbox_list(&self, labels: BTreeMap<String, String>) -> Result<Vec<PodSandbox>> {
        let filter = PodSandboxFilter { label_selector: labels, ..Default::default() };
        let request = ListPodSandboxRequest { filter: Some(filter) };
        Ok(within("ListPodSandbox", CALL_LIMIT, self.runtime.clone().list_pod_sandbox(request)).await?.items)
    }
}
