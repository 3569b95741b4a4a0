//! Tests of the whole engine: what each call does, against a model under faults, and what damage does.

use std::future::Future;

mod basics;
mod concurrent;
mod crashes;
mod damage;
mod model;

/// Runs a future that needs no timer.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}
