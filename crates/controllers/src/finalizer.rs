//! Finalizers of objects, each changed in exactly the version that was looked at.

use client::Object;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::context::{During, Result};

/// Adds the finalizer, or takes it away. What changes meanwhile comes back as an event.
pub async fn set<K: Object>(api: &Api<K>, object: &K, finalizer: &str, held: bool) -> Result<()> {
    let meta = object.meta();
    let others = meta.finalizers.iter().flatten().map(String::as_str).filter(|known| *known != finalizer);
    let all: Vec<&str> = others.chain(held.then_some(finalizer)).collect();
    let patch = json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": all}});
    let name = meta.name.as_deref().unwrap_or_default();
    let done = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
    done.unless_changed(|| format!("cannot change the finalizers of {} {name}", K::kind(&()))).map(drop)
}
