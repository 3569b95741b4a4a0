//! Keeps claims, volumes and VolumeAttributesClasses that are in use: a finalizer holds a deleted one until no pod uses the
//! claim, until the volume is bound to no claim, until no claim or volume has the class.
//! Reads: PersistentVolumeClaim, PersistentVolume, VolumeAttributesClass, Pod (live before a claim is let go). Writes: their
//! finalizers, each in the version that was looked at. Source: the page "Persistent Volumes", Storage Object in Use Protection.

use std::collections::HashSet;

use client::{Action, Informer, Key};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::ListParams;

use crate::context::{Ctx, During, Result, Work};
use crate::finalizer;

const CLAIM: &str = "kubernetes.io/pvc-protection";
const VOLUME: &str = "kubernetes.io/pv-protection";
const CLASS: &str = "kubernetes.io/vac-protection";

#[derive(Debug, PartialEq)]
enum Step {
    Nothing,
    Protect,
    LetGoUnlessUsed,
}

/// What is to be done about an object before anything is known of its use.
fn plan(meta: &ObjectMeta, finalizer: &str) -> Step {
    let protected = meta.finalizers.iter().flatten().any(|known| known == finalizer);
    match (meta.deletion_timestamp.is_some(), protected) {
        (false, false) => Step::Protect,
        (true, true) => Step::LetGoUnlessUsed,
        _ => Step::Nothing,
    }
}

/// The claims that a pod uses: of its volumes, once it is on a node. A node starts no pod whose claim is being deleted.
fn used(pod: &Pod) -> HashSet<String> {
    let Some(spec) = pod.spec.as_ref().filter(|spec| spec.node_name.as_deref().is_some_and(|node| !node.is_empty()))
    else {
        return HashSet::new();
    };
    let of_volume = |volume: &k8s_openapi::api::core::v1::Volume| match &volume.persistent_volume_claim {
        Some(claim) => Some(claim.claim_name.clone()),
        None => volume
            .ephemeral
            .as_ref()
            .map(|_| format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), volume.name)),
    };
    spec.volumes.iter().flatten().filter_map(of_volume).collect()
}

fn claims(pod: &Pod) -> Vec<Key> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    used(pod).into_iter().map(|claim| Key::new(namespace.clone(), claim)).collect()
}

struct Claims {
    ctx: Ctx,
    claims: Informer<PersistentVolumeClaim>,
    pods: Informer<Pod>,
}

pub fn start_claims(ctx: Ctx) -> BoxFuture<'static, ()> {
    let claims_informer = ctx.informers.of::<PersistentVolumeClaim>();
    let pods = ctx.informers.of::<Pod>();
    let mut work = Work::new(&ctx);
    work.watch_own(&claims_informer);
    // A pod may let go of its claims when it is gone only.
    work.watch(&pods, |event| match event {
        client::Event::Deleted(pod) => claims(pod),
        _ => Vec::new(),
    });
    let count = ctx.config.concurrency;
    let this = Claims { ctx, claims: claims_informer, pods };
    work.start(count, this, |this, key| Box::pin(this.reconcile(key)))
}

impl Claims {
    async fn reconcile(&self, key: &Key) -> Result<Action> {
        let Some(claim) = self.claims.get_key(key) else { return Ok(Action::Done) };
        let step = plan(&claim.metadata, CLAIM);
        if step == Step::Nothing || step == Step::LetGoUnlessUsed && self.is_used(key).await? {
            return Ok(Action::Done);
        }
        let api = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        finalizer::set(&api, claim.as_ref(), CLAIM, step == Step::Protect).await.map(|()| Action::Done)
    }

    /// Asks the API server too: the cache may not know yet that a pod was bound.
    async fn is_used(&self, key: &Key) -> Result<bool> {
        if self.pods.list_in(&key.namespace).iter().any(|pod| used(pod).contains(&key.name)) {
            return Ok(true);
        }
        let api: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let bound = ListParams::default().fields("spec.nodeName!=");
        let pods = api.list(&bound).await.during(|| format!("cannot list who uses claim {key}"))?;
        Ok(pods.iter().any(|pod| used(pod).contains(&key.name)))
    }
}

struct Volumes {
    ctx: Ctx,
    volumes: Informer<PersistentVolume>,
}

pub fn start_volumes(ctx: Ctx) -> BoxFuture<'static, ()> {
    let volumes = ctx.informers.of::<PersistentVolume>();
    let mut work = Work::new(&ctx);
    work.watch_own(&volumes);
    let count = ctx.config.concurrency;
    let this = Volumes { ctx, volumes };
    work.start(count, this, |this, key| Box::pin(this.reconcile(key)))
}

impl Volumes {
    async fn reconcile(&self, key: &Key) -> Result<Action> {
        let Some(volume) = self.volumes.get_key(key) else { return Ok(Action::Done) };
        let bound = volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        let step = plan(&volume.metadata, VOLUME);
        if step == Step::Nothing || step == Step::LetGoUnlessUsed && bound {
            return Ok(Action::Done);
        }
        let api = Api::all(self.ctx.client.clone());
        finalizer::set(&api, volume.as_ref(), VOLUME, step == Step::Protect).await.map(|()| Action::Done)
    }
}

/// The VolumeAttributesClasses that a claim asks for, has, and is on the way to.
fn classes_of_claim(claim: &PersistentVolumeClaim) -> HashSet<String> {
    let wanted = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.clone());
    let status = claim.status.as_ref();
    let current = status.and_then(|status| status.current_volume_attributes_class_name.clone());
    let modified = status.and_then(|status| status.modify_volume_status.as_ref());
    let target = modified.and_then(|modified| modified.target_volume_attributes_class_name.clone());
    [wanted, current, target].into_iter().flatten().filter(|name| !name.is_empty()).collect()
}

fn classes_of_volume(volume: &PersistentVolume) -> HashSet<String> {
    let name = volume.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.clone());
    name.into_iter().filter(|name| !name.is_empty()).collect()
}

/// What an event lets go of.
fn released<K>(event: &client::Event<K>, classes: impl Fn(&K) -> HashSet<String>) -> Vec<Key> {
    let (old, new) = match event {
        client::Event::Added(_) => return Vec::new(),
        client::Event::Modified { old, new } => (classes(old), classes(new)),
        client::Event::Deleted(old) => (classes(old), HashSet::new()),
    };
    old.difference(&new).map(|name| Key::new("", name.as_str())).collect()
}

struct Classes {
    ctx: Ctx,
    classes: Informer<VolumeAttributesClass>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
}

pub fn start_classes(ctx: Ctx) -> BoxFuture<'static, ()> {
    let classes = ctx.informers.of::<VolumeAttributesClass>();
    let (claims, volumes) = (ctx.informers.of::<PersistentVolumeClaim>(), ctx.informers.of::<PersistentVolume>());
    let mut work = Work::new(&ctx);
    work.watch_own(&classes);
    work.watch(&claims, |event| released(event, classes_of_claim));
    work.watch(&volumes, |event| released(event, classes_of_volume));
    let count = ctx.config.concurrency;
    let this = Classes { ctx, classes, claims, volumes };
    work.start(count, this, |this, key| Box::pin(this.reconcile(key)))
}

impl Classes {
    async fn reconcile(&self, key: &Key) -> Result<Action> {
        let Some(class) = self.classes.get_key(key) else { return Ok(Action::Done) };
        let used = || {
            self.claims.list().iter().any(|claim| classes_of_claim(claim).contains(&key.name))
                || self.volumes.list().iter().any(|volume| classes_of_volume(volume).contains(&key.name))
        };
        let step = plan(&class.metadata, CLASS);
        if step == Step::Nothing || step == Step::LetGoUnlessUsed && used() {
            return Ok(Action::Done);
        }
        let api = Api::all(self.ctx.client.clone());
        finalizer::set(&api, class.as_ref(), CLASS, step == Step::Protect).await.map(|()| Action::Done)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn steps() {
        for (deleting, finalizers, want) in [
            (false, vec![], Step::Protect),
            (false, vec!["a"], Step::Protect),
            (false, vec![CLAIM], Step::Nothing),
            (true, vec!["a", CLAIM], Step::LetGoUnlessUsed),
            (true, vec!["a"], Step::Nothing),
        ] {
            let meta = ObjectMeta {
                deletion_timestamp: deleting.then(crate::clock::now_time),
                finalizers: Some(finalizers.iter().map(ToString::to_string).collect()),
                ..ObjectMeta::default()
            };
            assert_eq!(plan(&meta, CLAIM), want, "{deleting} {finalizers:?}");
        }
    }

    #[test]
    fn classes_are_let_go() {
        let claim = |wanted: &str| {
            let claim = json!({"metadata": {"name": "c"}, "spec": {"volumeAttributesClassName": wanted},
                "status": {"currentVolumeAttributesClassName": "b", "modifyVolumeStatus": {
                    "status": "Pending", "targetVolumeAttributesClassName": ""}}});
            std::sync::Arc::new(serde_json::from_value::<PersistentVolumeClaim>(claim).unwrap())
        };
        let changed = client::Event::Modified { old: claim("a"), new: claim("d") };
        for (event, want) in [
            (client::Event::Added(claim("a")), vec![]),
            (changed, vec!["a"]),
            (client::Event::Deleted(claim("a")), vec!["a", "b"]),
        ] {
            let mut found: Vec<String> = released(&event, classes_of_claim).into_iter().map(|key| key.name).collect();
            found.sort();
            assert_eq!(found, want);
        }
    }

    #[test]
    fn a_pod_on_a_node_uses_its_claims() {
        let volumes = json!([{"name": "a", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "b", "emptyDir": {}},
            {"name": "c", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]);
        for (node, want) in [(json!("n"), vec!["data", "p-c"]), (json!(null), vec![])] {
            let pod =
                json!({"metadata": {"name": "p"}, "spec": {"nodeName": node, "containers": [], "volumes": volumes}});
            let mut found: Vec<_> = used(&serde_json::from_value(pod).unwrap()).into_iter().collect();
            found.sort();
            assert_eq!(found, want);
        }
    }
}
