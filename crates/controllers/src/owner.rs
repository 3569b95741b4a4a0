//! Owner references: who controls an object, and the claim of orphans that match a selector and release of those that do not.
//! Reads: the owner, live, before an adoption. Writes: ownerReferences of objects. Invariant: an object controlled by somebody
//! else is never touched.

use std::sync::Arc;

use client::Object;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource};
use serde_json::json;

use crate::context::{During, Error, Result};
use crate::selector;

/// The owner that controls an object.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

pub fn is_controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    controller_of(meta).is_some_and(|owner| owner.uid == uid)
}

/// The API group an owner reference names; empty for core.
pub fn group_of(owner: &OwnerReference) -> &str {
    owner.api_version.split_once('/').map_or("", |(group, _)| group)
}

/// A reference that makes `owner` the controller, and lets it hold back its deletion for the object.
pub fn reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    let meta = owner.meta();
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

#[derive(Debug, PartialEq)]
enum Claim {
    Keep,
    Adopt,
    Release,
    Ignore,
}

fn plan(owner_uid: &str, owner_deleting: bool, selector: &LabelSelector, meta: &ObjectMeta) -> Claim {
    let fits = || selector::matches(selector, meta.labels.as_ref());
    let deleting = meta.deletion_timestamp.is_some();
    match controller_of(meta) {
        Some(owner) if owner.uid != owner_uid => Claim::Ignore,
        Some(_) if fits() => Claim::Keep,
        Some(_) if owner_deleting => Claim::Ignore,
        Some(_) => Claim::Release,
        None if owner_deleting || deleting || !fits() => Claim::Ignore,
        None => Claim::Adopt,
    }
}

/// Of all objects in the namespace, those that are the owner's: adopts and releases on the way. What is adopted gets the
/// finalizer too, in the same write. `owners` and `objects` are the APIs of the owner's and the objects' kinds in the namespace.
pub async fn claim<O: Object, K: Object>(
    owner: &O,
    owners: &Api<O>,
    selector: &LabelSelector,
    objects: &Api<K>,
    all: Vec<Arc<K>>,
    finalizer: Option<&str>,
) -> Result<Vec<Arc<K>>> {
    let uid = owner.meta().uid.as_deref().unwrap_or_default();
    let deleting = owner.meta().deletion_timestamp.is_some();
    let mut claimed = Vec::new();
    let mut owner_checked = false;
    for object in all {
        match plan(uid, deleting, selector, object.meta()) {
            Claim::Keep => claimed.push(object),
            Claim::Ignore => {}
            Claim::Release => release(objects, object.meta(), uid).await?,
            Claim::Adopt => {
                if !owner_checked {
                    check_alive(owner, owners).await?;
                    owner_checked = true;
                }
                if let Some(adopted) = adopt(objects, object.meta(), reference(owner), finalizer).await? {
                    claimed.push(Arc::new(adopted));
                }
            }
        }
    }
    Ok(claimed)
}

/// The cache may not know yet that the owner was deleted, or replaced under its name.
async fn check_alive<O: Object>(owner: &O, owners: &Api<O>) -> Result<()> {
    let name = owner.meta().name.as_deref().unwrap_or_default();
    let kind = O::kind(&());
    let live = owners.get(name).await.during(|| format!("cannot check {kind} {name} before adopting"))?;
    if live.meta().uid != owner.meta().uid {
        return Err(Error::Other(format!("{kind} {name} was replaced by another of its name; it will be read again")));
    }
    if live.meta().deletion_timestamp.is_some() {
        return Err(Error::Other(format!("{kind} {name} has just been deleted; it adopts nothing any more")));
    }
    Ok(())
}

async fn adopt<K: Object>(
    objects: &Api<K>,
    meta: &ObjectMeta,
    owner: OwnerReference,
    finalizer: Option<&str>,
) -> Result<Option<K>> {
    let name = meta.name.as_deref().unwrap_or_default();
    let mut owners = meta.owner_references.clone().unwrap_or_default();
    owners.push(owner);
    // the resourceVersion makes it fail if somebody else adopted meanwhile
    let mut patch =
        json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": owners}});
    if let Some(finalizer) = finalizer {
        let others = meta.finalizers.iter().flatten().map(String::as_str).filter(|known| *known != finalizer);
        patch["metadata"]["finalizers"] = others.chain([finalizer]).collect();
    }
    match objects.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(adopted) => Ok(Some(adopted)),
        Err(error) if client::is_not_found(&error) => Ok(None),
        Err(error) => Err(error).during(|| format!("cannot adopt {} {name}", K::kind(&()))),
    }
}

async fn release<K: Object>(objects: &Api<K>, meta: &ObjectMeta, uid: &str) -> Result<()> {
    let name = meta.name.as_deref().unwrap_or_default();
    let owners: Vec<&OwnerReference> =
        meta.owner_references.iter().flatten().filter(|owner| owner.uid != uid).collect();
    let patch =
        json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": owners}});
    let outcome = objects.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
    outcome.unless_gone(|| format!("cannot release {} {name}", K::kind(&()))).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims() {
        let selector: LabelSelector = serde_json::from_value(json!({"matchLabels": {"app": "web"}})).unwrap();
        let meta = |app: &str, owner: Option<&str>, deleting: bool| ObjectMeta {
            labels: Some([("app".to_string(), app.to_string())].into()),
            owner_references: owner.map(|uid| {
                vec![OwnerReference { uid: uid.into(), controller: Some(true), ..OwnerReference::default() }]
            }),
            deletion_timestamp: deleting.then(crate::clock::now_time),
            ..ObjectMeta::default()
        };
        for (owner_deleting, object, want) in [
            (false, meta("web", Some("me"), false), Claim::Keep),
            (true, meta("web", Some("me"), false), Claim::Keep),
            (false, meta("db", Some("me"), false), Claim::Release),
            (true, meta("db", Some("me"), false), Claim::Ignore),
            (false, meta("web", None, false), Claim::Adopt),
            (true, meta("web", None, false), Claim::Ignore),
            (false, meta("web", None, true), Claim::Ignore),
            (false, meta("db", None, false), Claim::Ignore),
            (false, meta("web", Some("other"), false), Claim::Ignore),
        ] {
            assert_eq!(plan("me", owner_deleting, &selector, &object), want, "{object:?}");
        }
    }
}
