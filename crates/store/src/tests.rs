//! Tests of the whole engine: what each call does, against a model under faults, and what damage does.

use std::future::Future;
use std::sync::LazyLock;

use tokio::runtime::Runtime;

mod basics;
mod both;
mod concurrent;
mod crashes;
mod damage;
mod etcd;
mod model;

/// One for all tests: what a store does in the background goes on between two calls.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.block_on(future)
}
