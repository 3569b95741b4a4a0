//! Usage numbers of containers and sandboxes. Invariant: none of these changes anything in the runtime.

use std::collections::BTreeMap;

use crate::connect::within;
use crate::v1::*;
use crate::{Client, Result};

impl Client {
    /// `ContainerStats` of one container.
    pub async fn container_stats(&self, id: &str) -> Result<Option<ContainerStats>> {
        let mut runtime = self.runtime.clone();
        let request = ContainerStatsRequest { container_id: id.to_string() };
        Ok(within("ContainerStats", self.timeouts.call, runtime.container_stats(request)).await?.stats)
    }

    /// `ListContainerStats` of the running containers that have all the labels.
    pub async fn container_stats_list(&self, labels: BTreeMap<String, String>) -> Result<Vec<ContainerStats>> {
        let mut runtime = self.runtime.clone();
        let filter = ContainerStatsFilter { label_selector: labels, ..Default::default() };
        let request = ListContainerStatsRequest { filter: Some(filter) };
        Ok(within("ListContainerStats", self.timeouts.call, runtime.list_container_stats(request)).await?.stats)
    }

    /// `PodSandboxStats` of one sandbox.
    pub async fn sandbox_stats(&self, id: &str) -> Result<Option<PodSandboxStats>> {
        let mut runtime = self.runtime.clone();
        let request = PodSandboxStatsRequest { pod_sandbox_id: id.to_string() };
        Ok(within("PodSandboxStats", self.timeouts.call, runtime.pod_sandbox_stats(request)).await?.stats)
    }

    /// `ListPodSandboxStats` of the sandboxes that have all the labels.
    pub async fn sandbox_stats_list(&self, labels: BTreeMap<String, String>) -> Result<Vec<PodSandboxStats>> {
        let mut runtime = self.runtime.clone();
        let filter = PodSandboxStatsFilter { label_selector: labels, ..Default::default() };
        let request = ListPodSandboxStatsRequest { filter: Some(filter) };
        Ok(within("ListPodSandboxStats", self.timeouts.call, runtime.list_pod_sandbox_stats(request)).await?.stats)
    }
}
