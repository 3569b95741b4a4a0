//! Usage numbers of containers and sandboxes. Invariant: none of these changes anything in the runtime.

use std::collections::BTreeMap;

use crate::connect::{CALL_LIMIT, within};
use crate::v1::*;
use crate::{Client, Result};

impl Client {
    /// `ListContainerStats` of the running containers that have all the labels.
    pub async fn container_stats_list(&self, labels: BTreeMap<String, String>) -> Result<Vec<ContainerStats>> {
        let filter = ContainerStatsFilter { label_selector: labels, ..Default::default() };
        let request = ListContainerStatsRequest { filter: Some(filter) };
        Ok(within("ListContainerStats", CALL_LIMIT, self.runtime.clone().list_container_stats(request)).await?.stats)
    }
}
