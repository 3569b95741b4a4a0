//! The rows of the report, each in its own file, in the order they are run.

mod create;
mod custom;
mod idle;
mod list;
mod memory;
mod pods;
mod size;
mod startup;
mod store;
mod tenants;
mod watch;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::Settings;
use crate::report::Report;

pub const NAMES: [&str; 11] =
    ["size", "startup", "idle", "pods", "create", "custom", "list", "watch", "tenants", "store", "memory"];

pub async fn run(row: &str, settings: &Settings, report: &mut Report) -> Result<()> {
    match row {
        "size" => size::run(settings, report),
        "startup" => startup::run(settings, report).await,
        "idle" => idle::run(settings, report).await,
        "pods" => pods::run(settings, report).await,
        "create" => create::run(settings, report).await,
        "custom" => custom::run(settings, report).await,
        "list" => list::run(settings, report).await,
        "watch" => watch::run(settings, report).await,
        "tenants" => tenants::run(settings, report).await,
        "store" => store::run(settings, report).await,
        "memory" => memory::run(settings, report).await,
        other => bail!("no row {other:?}"),
    }
}

/// A pod that only sleeps. Its image, the sandbox's, is on every node, and takes no notice of SIGTERM.
fn sleeping_pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "pause", "image": "knarr.local/pause:1", "imagePullPolicy": "Never"}],
        },
    })
}

/// Whether a Pod's or Node's condition Ready is True.
fn is_ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}
