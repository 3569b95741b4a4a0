//! What every component needs to talk to the Kubernetes API beyond kube itself: shared informers, work queues and their
//! workers, event recording, leader election, an in-process transport, configuration.
//! Reads and writes: the API through a `kube::Client`. Invariant: nothing here knows a particular controller, and everything
//! that waits or collects has a bound.

mod cache;
pub mod config;
pub mod informer;
mod key;
pub mod leader;
pub mod local;
pub mod queue;
pub mod recorder;
pub mod watch;

pub use cache::Event;
pub use informer::{Informer, Informers, Object, revision_of};
pub use key::Key;
pub use queue::{Action, WorkQueue, run_workers};
pub use recorder::{Recorder, reference};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read kubeconfig {path}: {source}; check that the file exists and names a current context")]
    Kubeconfig { path: String, source: Box<kube::config::KubeconfigError> },
    #[error("no kubeconfig given and not running inside a pod: {0}; pass --kubeconfig FILE")]
    InCluster(Box<kube::config::InClusterError>),
    #[error("cannot make a client for {server}: {source}; check the certificates in the kubeconfig")]
    Client { server: String, source: Box<kube::Error> },
    #[error("lost the lease {lease}: it was not renewed for {after_s} s; start again to stand as a candidate")]
    LeaseLost { lease: String, after_s: u64 },
}

/// True for an API error with this HTTP code.
pub fn is_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// True if the object is not there (404).
pub fn is_not_found(error: &kube::Error) -> bool {
    is_code(error, 404)
}

/// True for a conflict (409) of a stale resourceVersion or a name already taken.
pub fn is_conflict(error: &kube::Error) -> bool {
    is_code(error, 409)
}

/// True if the name is taken (409 with reason AlreadyExists).
pub fn is_already_exists(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409 && status.reason == "AlreadyExists")
}

/// The API's own message of an error, without kube's wrapping.
pub fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
