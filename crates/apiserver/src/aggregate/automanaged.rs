//! The APIServices of custom resources: one for every group version that definitions serve, made and removed here; and of
//! built-in versions that are not served any more.
//!
//! Reads: what is served, APIServices. Writes: APIServices with the label `automanaged`. Invariant: only those are removed,
//! and only when the newest state of the store has no definition of theirs.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{AUTOMANAGED, GROUP, RESOURCE, document};
use crate::bootstrap;
use crate::custom::definitions;
use crate::options::DeleteOptions;
use crate::request::Verb;
use crate::shared::Shared;
use crate::verbs::delete::delete_key;

/// Group and version of what is served, or of what definitions serve.
fn served(shared: &Shared, custom_only: bool) -> BTreeSet<(String, String)> {
    definitions::sync(shared);
    let all = shared.registry.resources();
    let wanted = all.iter().filter(|r| !custom_only || r.type_name.is_empty());
    wanted.map(|r| (r.group.to_string(), r.version.to_string())).collect()
}

pub async fn settle(shared: &Arc<Shared>) {
    let Some(services) = shared.registry.stored(GROUP, RESOURCE) else { return };
    for (group, version) in served(shared, true) {
        let name = format!("{version}.{group}");
        if services.cache.get(&name).is_none() {
            let document = document(&group, &version, "true");
            if let Err(why) = bootstrap::ensure(shared, GROUP, RESOURCE, "", &name, document).await {
                tracing::debug!("cannot make API service {name}: {why}");
            }
        }
    }
    let own = services.cache.snapshot("", "", 0, false, |o| o.label(AUTOMANAGED).is_some()).objects;
    let is_left = |all: &BTreeSet<(String, String)>, name: &str| {
        !name.split_once('.').is_some_and(|(version, group)| all.contains(&(group.to_string(), version.to_string())))
    };
    let all = served(shared, false);
    let left: Vec<_> = own.iter().filter(|object| is_left(&all, &object.name)).collect();
    // This server may be behind another one that made them.
    if left.is_empty() || shared.storage.fresh().await.is_err() {
        return;
    }
    let all = served(shared, false);
    for object in left.into_iter().filter(|object| is_left(&all, &object.name)) {
        let Ok(call) = bootstrap::own_call(shared, Verb::Delete, GROUP, RESOURCE, "", &object.name) else { return };
        let options = DeleteOptions { uid: Some(object.uid.to_string()), ..DeleteOptions::default() };
        if let Err(why) = delete_key(&call, &services, &object.key, &object.name, &options).await {
            tracing::debug!("cannot remove API service {}: {why}", object.name);
        }
    }
}
