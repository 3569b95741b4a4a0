//! What the kubelet's parts tell each other about pods: the lookup that probes, the HTTPS server and log reading use.
//!
//! Invariant: answers come from the pod workers' newest observation and never block on the runtime.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The node's allocatable resources, as in `node.status.allocatable`.
pub type Allocatable = Arc<BTreeMap<String, Quantity>>;

/// A pod's and its node's addresses; the first of each is the primary one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodIps {
    /// The pod's addresses; empty before its sandbox has some.
    pub pod: Vec<String>,
    /// The node's addresses.
    pub host: Vec<String>,
}

/// One instance of a container as the runtime has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRef {
    /// The CRI id, without `containerd://`.
    pub id: String,
    pub name: String,
    /// How often it had been restarted when this instance was made.
    pub attempt: u32,
    pub running: bool,
    /// Its log file in the CRI format.
    pub log_path: PathBuf,
}

/// Lookup of this node's pods.
pub trait PodSource: Send + Sync {
    /// All pods of this node, each with the status last written.
    fn pods(&self) -> Vec<Arc<Pod>>;
    fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>>;
    fn pod_by_uid(&self, uid: &str) -> Option<Arc<Pod>>;
    /// The CRI id of the pod's newest sandbox.
    fn sandbox_id(&self, uid: &str) -> Option<String>;
    /// All instances of the pod's containers, newest first per name.
    fn containers(&self, uid: &str) -> Vec<ContainerRef>;
    /// The pod's and the node's addresses.
    fn ips(&self, uid: &str) -> PodIps;
}
