//! The node agent: makes the pods bound to its node run in a CRI runtime, and reports how they and the node fare.
//!
//! Reads pods (informer, `spec.nodeName`), the runtime's sandboxes and containers, the node's files; writes pod and node
//! status, the node's lease, events, log files and cgroups under its own root. Invariant: what runs is never kept in
//! memory alone: after a restart everything is found again from the runtime's labels and annotations, and no container is
//! touched.
//!
//! The way of a pod: `run` takes it from the informer into `registry` and gives it a `worker`; the worker looks at the
//! runtime (`observed`), asks `plan` what to do, mounts `volumes`, makes sandboxes and containers (`launch`, with `images`,
//! `env`, `security`, `resources`, `dns_config`), reports (`status`, `status_writer`), and ends it (`terminate`). `pleg` wakes
//! workers when something happened in the runtime, `probes` when a probe's result changed. `node` keeps the Node object;
//! `orphans`, `collect` and `log_rotation` tidy up; `server` is the kubelet's HTTPS API.

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
mod turns;
pub mod volumes;
mod worker;

use std::path::PathBuf;

pub use config::Config;
pub use pods::{Allocatable, ContainerRef, PodIps, PodSource};
pub use run::{run, stop_all_pods};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot make {}: {source}; is the data directory on a writable disk?", path.display())]
    Directory { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Server(#[from] server::Error),
    #[error("cannot make cgroups below {root}: {source}; the kubelet needs root and a writable /sys/fs/cgroup")]
    Cgroups { root: String, source: std::io::Error },
    #[error("container runtime at {endpoint}: {source}; does it run?")]
    Runtime { endpoint: String, source: cri::Error },
}
