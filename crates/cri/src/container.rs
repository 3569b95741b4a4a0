//! Container calls: create, start, stop, remove, list, look at. Invariant: stop and remove are idempotent, an absent
//! container is success.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::connect::{CALL_LIMIT, within};
use crate::v1::*;
use crate::{Client, Error, Result};

impl Client {
    /// `CreateContainer` in a sandbox; returns the container's id.
    pub async fn container_create(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
        sandbox_config: PodSandboxConfig,
    ) -> Result<String> {
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox_id.to_string(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        Ok(within("CreateContainer", CALL_LIMIT, self.runtime.clone().create_container(request)).await?.container_id)
    }

    pub async fn container_start(&self, id: &str) -> Result<()> {
        let request = StartContainerRequest { container_id: id.to_string() };
        within("StartContainer", CALL_LIMIT, self.runtime.clone().start_container(request)).await.map(drop)
    }

    /// `StopContainer`: the stop signal, then after `grace` a kill. Returns when the container has stopped. An absent
    /// container is success.
    pub async fn container_stop(&self, id: &str, grace: Duration) -> Result<()> {
        let request = StopContainerRequest { container_id: id.to_string(), timeout: grace.as_secs() as i64 };
        let limit = CALL_LIMIT + grace;
        absent_is_done(within("StopContainer", limit, self.runtime.clone().stop_container(request)).await.map(drop))
    }

    /// `RemoveContainer`, by force if it runs. An absent container is success.
    pub async fn container_remove(&self, id: &str) -> Result<()> {
        let request = RemoveContainerRequest { container_id: id.to_string() };
        absent_is_done(
            within("RemoveContainer", CALL_LIMIT, self.runtime.clone().remove_container(request)).await.map(drop),
        )
    }

    /// `ListContainers`: those that have all the labels; no labels means all of them.
    pub async fn container_list(&self, labels: BTreeMap<String, String>) -> Result<Vec<Container>> {
        let filter = ContainerFilter { label_selector: labels, ..Default::default() };
        let request = ListContainersRequest { filter: Some(filter) };
        Ok(within("ListContainers", CALL_LIMIT, self.runtime.clone().list_containers(request)).await?.containers)
    }

    /// `ContainerStatus`; `verbose` fills `info` with the runtime's own details.
    pub async fn container_status(&self, id: &str, verbose: bool) -> Result<ContainerStatusResponse> {
        let request = ContainerStatusRequest { container_id: id.to_string(), verbose };
        within("ContainerStatus", CALL_LIMIT, self.runtime.clone().container_status(request)).await
    }

    /// `ReopenContainerLog`, after the log file was moved away.
    pub async fn container_reopen_log(&self, id: &str) -> Result<()> {
        let request = ReopenContainerLogRequest { container_id: id.to_string() };
        within("ReopenContainerLog", CALL_LIMIT, self.runtime.clone().reopen_container_log(request)).await.map(drop)
    }
}

fn absent_is_done(answer: std::result::Result<(), Error>) -> Result<()> {
    match answer {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}
