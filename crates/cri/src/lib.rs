//! The Container Runtime Interface, v1: how a node agent asks a runtime (containerd, CRI-O, our own) for sandboxes,
//! containers and images over a unix socket.
//!
//! [`v1`] holds the generated messages, client stubs and server traits; [`Client`] wraps the stubs: every call has a time
//! limit, names say the noun first (`sandbox_run`), and an error says which call failed. One file per group of calls.
//! Invariant: a `Client` never blocks for ever, and reconnects by itself when the runtime comes back.

mod connect;
mod container;
mod error;
mod exec;
mod image;
mod runtime;
mod sandbox;
mod stats;

pub use connect::Client;
pub use error::Error;

/// The generated messages and services of CRI v1 (`proto/api.proto`).
#[allow(clippy::all, missing_docs)]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}

pub type Result<T> = std::result::Result<T, Error>;
