//! Keeps the configuration in step with the stored objects, and says in a flow schema's status whether its level exists.
//!
//! Reads: flow schemas and priority levels. Writes: flow schemas' status. Invariant: a status is written only when it
//! changes, so that this does not feed itself.

use std::sync::Arc;

use meta::{Value, json, time};

use crate::bootstrap::own_call;
use crate::options::WriteOptions;
use crate::request::Verb;
use crate::shared::Shared;
use crate::write::{self, Endpoint};

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const SCHEMAS: &str = "flowschemas";
const LEVELS: &str = "prioritylevelconfigurations";
const MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";

/// Takes the stored objects as the configuration, and writes what their status lacks.
pub async fn settle(shared: &Arc<Shared>) {
    let all = |resource: &str| -> Vec<Value> {
        let served = shared.registry.stored(GROUP, resource);
        let objects = served.map(|s| s.cache.snapshot("", "", 0, false, |_| true).objects).unwrap_or_default();
        objects.iter().map(|o| o.document()).collect()
    };
    let (schemas, levels) = (all(SCHEMAS), all(LEVELS));
    shared.flow.configure(&schemas, &levels);
    for schema in &schemas {
        note_level(shared, schema, &levels).await;
    }
}

/// Follows the objects until the server stops.
pub async fn follow(shared: Arc<Shared>) {
    let served = (shared.registry.stored(GROUP, SCHEMAS), shared.registry.stored(GROUP, LEVELS));
    let (Some(schemas), Some(levels)) = served else { return };
    let mut changes = (schemas.cache.changes(), levels.cache.changes());
    loop {
        changes.0.mark_unchanged();
        changes.1.mark_unchanged();
        settle(&shared).await;
        tokio::select! {
            () = shared.shutdown.cancelled() => return,
            changed = changes.0.changed() => if changed.is_err() { return },
            changed = changes.1.changed() => if changed.is_err() { return },
        }
    }
}

fn condition(level: &str, exists: bool) -> Value {
    let (status, reason, what) = match exists {
        true => ("False", "Found", "and it exists"),
        false => ("True", "NotFound", "but there is no such object"),
    };
    let message = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?} {what}");
    json!({"type": "Dangling", "status": status, "reason": reason, "message": message})
}

async fn note_level(shared: &Arc<Shared>, schema: &Value, levels: &[Value]) {
    let level = schema["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default();
    let exists = levels.iter().any(|l| crate::metadata::name(l) == level);
    let mut wanted = condition(level, exists);
    let is_dangling = |c: &&Value| c["type"].as_str() == Some("Dangling");
    let (status, message) = (wanted["status"].clone(), wanted["message"].clone());
    let says = |schema: &Value| {
        let found = schema.array_at(&["status", "conditions"]).iter().find(is_dangling);
        found.is_some_and(|c| c["status"] == status && c["message"] == message)
    };
    if says(schema) {
        return;
    }
    wanted.set(&["lastTransitionTime"], time::seconds(time::now()));
    let name = crate::metadata::name(schema);
    let Ok(call) = own_call(shared, Verb::Update, GROUP, SCHEMAS, "", name) else { return };
    let set = |old: &Value| {
        let mut new = old.clone();
        // The cache that `schema` came from may lag behind.
        if says(old) {
            return Ok(new);
        }
        let others = old.array_at(&["status", "conditions"]).iter().filter(|c| !is_dangling(c)).cloned();
        new.set(&["status", "conditions"], others.chain([wanted.clone()]).collect::<Vec<_>>());
        Ok(new)
    };
    if let Err(status) = write::update(&call, Endpoint::Status, &WriteOptions::own(MANAGER), set).await {
        // Deleted meanwhile, or the store fails: the next change looks again.
        tracing::debug!("cannot say whether the level of flow schema {name} exists: {status}");
    }
}
