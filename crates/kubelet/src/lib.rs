//! The node agent: makes the pods bound to its node run in a CRI runtime, and reports how they and the node fare.
//!
//! Reads pods (informer, `spec.nodeName`), the runtime's sandboxes and containers, the node's files; writes pod and node
//! status, the node's lease, events, log files and cgroups under its own root. Invariant: what runs is never kept in
//! memory alone: after a restart everything is found again from the runtime's labels and annotations, and no container is touched.

// Modules `volumes`, `env`, `probes`, `server`, `stats`, `container_logs` are declared below by their author once they compile.
// What the pod workers call there (agreed signatures):
//   volumes (IN PLACE): Volumes::new(volumes::Settings { data_dir: PathBuf, allocatable: Allocatable }, kube::Client, CancellationToken) -> Volumes (Clone); .on_change(Arc<dyn Fn(&str)>) wakes pods whose mount failed
//            .mount(&Arc<Pod>).await -> Result<MountedVolumes, VolumeError>   VolumeError: Display = the text after `MountVolume.SetUp failed for volume "x" : `, .volume() -> &str
//            MountedVolumes::mounts_for(&Container, env: &[(String, String)] /*for subPathExpr*/).await -> Result<Vec<cri::v1::Mount>, VolumeError>
//            .unmount(uid).await -> Result<(), VolumeError>;  .clean_orphans(keep: &HashSet<String>).await  (called each minute; pods/<uid>/volumes only)
//   env (IN PLACE): Sources::new(kube::Client, client::Informers) -> Sources (Clone)
//            container_env(&Pod, &Container, &PodIps, &Allocatable, &Sources).await -> Result<Vec<(String, String)>, EnvError>  (Display = upstream's CreateContainerConfigError message)
//            expand(&[String], &[(String, String)]) -> Vec<String>
//   probes (IN PLACE):  Probes::new(cri::Client, client::Recorder, Arc<dyn PodSource>, on_result: Arc<dyn Fn(&str /*pod uid*/) + Send + Sync>, CancellationToken) -> Probes (Clone)
//            .update_pod(&Arc<Pod>, &PodStatus), .remove_pod(uid), .readiness(id)/.liveness(id)/.startup(id) -> Option<bool>  (id = the CRI container id without scheme;
//            None = no probe of that kind or no result yet; `liveness`/`startup` Some(false) = kill and restart); events Unhealthy are written by probes, Killing by the pod worker
//   server:  server::run(listener: tokio::net::TcpListener /* bound by the caller, who reports its port */, server::Settings { cert_pem, key_pem, client_ca_pem, .. your choice, built from &Config }, cri::Client, kube::Client, Arc<dyn PodSource>, CancellationToken) -> Result<(), E>

mod admission;
mod agent;
mod backoff;
mod cgroups;
mod collect;
pub mod config;
mod container_config;
pub mod container_logs;
mod container_status;
mod credentials;
mod dns_config;
pub mod env;
mod events;
mod hooks;
mod hosts_file;
mod images;
mod labels;
mod launch;
mod log_rotation;
mod node;
mod node_facts;
mod node_status;
mod observed;
mod orphans;
mod plan;
mod pleg;
mod pods;
pub mod probes;
mod registry;
mod resources;
mod run;
mod sandbox_config;
mod security;
pub mod server;
mod spec;
pub mod stats;
mod status;
mod status_writer;
mod stop;
mod terminate;
pub mod volumes;
mod worker;

use std::path::PathBuf;

pub use config::Config;
pub use pods::{Allocatable, ContainerRef, PodIps, PodSource};
pub use run::{run, stop_all_pods};

/// Why the kubelet cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory cannot be made.
    #[error("cannot make {}: {source}; is the data directory on a writable disk?", path.display())]
    Directory { path: PathBuf, source: std::io::Error },
    /// The HTTPS server cannot start.
    #[error(transparent)]
    Server(#[from] server::Error),
    /// The parent cgroups cannot be made.
    #[error("cannot make cgroups below {root}: {source}; the kubelet needs root and a writable /sys/fs/cgroup")]
    Cgroups { root: String, source: std::io::Error },
    /// The runtime failed a call.
    #[error("container runtime at {endpoint}: {source}; does it run?")]
    Runtime { endpoint: String, source: cri::Error },
}
