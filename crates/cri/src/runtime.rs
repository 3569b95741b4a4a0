//! Calls about the runtime itself: version, health, configuration, its stream of container events. Invariant: a call a
//! runtime lacks fails with `Error::is_unimplemented`, so that callers can do without.

use std::time::Duration;

use crate::connect::within;
use crate::v1::*;
use crate::{Client, Error, Result};

/// A health question must not hang as long as a pull may.
const HEALTH: Duration = Duration::from_secs(10);

impl Client {
    pub async fn version(&self) -> Result<VersionResponse> {
        // the version asked for is the kubelet's, by convention 0.1.0
        within("Version", HEALTH, self.runtime.clone().version(VersionRequest { version: "0.1.0".to_string() })).await
    }

    /// `Status`: the conditions RuntimeReady and NetworkReady, and what the handlers can do.
    pub async fn status(&self, verbose: bool) -> Result<StatusResponse> {
        within("Status", HEALTH, self.runtime.clone().status(StatusRequest { verbose })).await
    }

    /// `UpdateRuntimeConfig`: the node's pod address range.
    pub async fn update_runtime_config(&self, pod_cidr: &str) -> Result<()> {
        let network_config = Some(NetworkConfig { pod_cidr: pod_cidr.to_string() });
        let request = UpdateRuntimeConfigRequest { runtime_config: Some(RuntimeConfig { network_config }) };
        within("UpdateRuntimeConfig", HEALTH, self.runtime.clone().update_runtime_config(request)).await.map(drop)
    }

    /// `RuntimeConfig`: the cgroup driver, for runtimes that tell (containerd from 2.0).
    pub async fn runtime_config(&self) -> Result<RuntimeConfigResponse> {
        within("RuntimeConfig", HEALTH, self.runtime.clone().runtime_config(RuntimeConfigRequest {})).await
    }

    /// `GetContainerEvents`: a stream of what happens to containers, for runtimes that have it (containerd from 1.7).
    pub async fn container_events(&self) -> Result<tonic::Streaming<ContainerEventResponse>> {
        within("GetContainerEvents", HEALTH, self.runtime.clone().get_container_events(GetEventsRequest {})).await
    }

    /// The next event of a stream from [`Client::container_events`]; `None` at its end.
    pub async fn next_event(
        stream: &mut tonic::Streaming<ContainerEventResponse>,
    ) -> Result<Option<ContainerEventResponse>> {
        stream.message().await.map_err(|status| Error::new("GetContainerEvents", status))
    }
}
