//! The controllers: each watches some kinds and keeps the cluster as their objects say.
//! Reads and writes: the API only, through the informers and the client it is given. Invariant: no controller knows another;
//! they meet at the API.

mod clock;
pub mod config;
mod context;
mod controllers;
mod cronjob;
mod deployment;
mod discovery;
mod disruption;
mod endpoints;
mod endpointslice;
mod endpointslice_mirroring;
mod finalizer;
mod garbage;
mod intstr;
mod job;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod owner;
mod pod;
mod pod_batch;
mod pod_condition;
mod pod_gc;
mod pod_rank;
mod replicaset;
mod resourcequota;
mod root_ca;
mod selector;
mod service_endpoint;
mod serviceaccount;
mod servicecidr;
mod storage_protection;
mod taint_eviction;
mod ttl_after_finished;
mod validatingadmissionpolicy_status;
mod written;

pub use config::Config;
pub use controllers::{names, run};

/// Why the controllers could not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no controller {name}; the names are: {known}")]
    UnknownController { name: String, known: String },
    #[error("cluster CIDR {cidr}: {why}; give an IP network such as 10.244.0.0/16")]
    ClusterCidr { cidr: String, why: String },
}
