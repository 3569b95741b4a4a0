//! The garbage collector: deletes objects whose owners are gone, carries out foreground deletion and orphaning.
//! Reads: metadata of everything. Writes: deletes objects, changes ownerReferences and finalizers. Invariant: deletes only what
//! was found ownerless live, by uid and version.

mod graph;
mod judge;
mod watches;

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{Action, WorkQueue};
use futures::future::BoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::PartialObjectMeta;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use crate::context::{Ctx, During, Error, Result};
use crate::discovery::Served;
use crate::owner;
use graph::{FOREGROUND, Graph, Node, ORPHAN, Work};
use judge::{State, Verdict};
use watches::{Kinds, Shared, lock};

const WORKERS: usize = 20;
/// Owners found absent that are remembered.
const ABSENT_MAX: usize = 500;
/// How long a changed CustomResourceDefinition gets to be served.
const SETTLE: Duration = Duration::from_secs(2);

struct Collector {
    ctx: Ctx,
    shared: Arc<Shared>,
    absent: Mutex<Absent>,
}

/// The latest owners that were found absent, by uid and namespace; a uid never comes back.
#[derive(Default)]
struct Absent {
    known: HashSet<(String, String)>,
    order: VecDeque<(String, String)>,
}

impl Absent {
    fn insert(&mut self, key: (String, String)) {
        if self.known.insert(key.clone()) {
            self.order.push_back(key);
        }
        while self.order.len() > ABSENT_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }
}

pub fn start(ctx: Ctx) -> BoxFuture<'static, ()> {
    let shared = Arc::new(Shared {
        graph: Mutex::new(Graph::default()),
        queue: WorkQueue::new(),
        kinds: Mutex::new(Kinds::default()),
        rediscover: Notify::new(),
    });
    Box::pin(async move {
        let tasks = TaskTracker::new();
        let (queue, shutdown) = (shared.queue.clone(), ctx.shutdown.clone());
        let this = Arc::new(Collector { ctx: ctx.clone(), shared: shared.clone(), absent: Mutex::default() });
        let workers = client::run_workers(queue, WORKERS, shutdown, move |work| {
            let this = this.clone();
            async move { this.work(work).await }
        });
        tokio::join!(workers, keep_discovering(&ctx, &shared, &tasks));
        tasks.close();
        tasks.wait().await;
    })
}

async fn keep_discovering(ctx: &Ctx, shared: &Arc<Shared>, tasks: &TaskTracker) {
    loop {
        let found = watches::rediscover(shared, &ctx.client, tasks, &ctx.shutdown).await;
        let pause = match found {
            Ok(()) => ctx.config.discovery_period,
            Err(error) => {
                tracing::debug!(%error, "the garbage collector cannot discover kinds, will retry");
                Duration::from_secs(1)
            }
        };
        let hint = async {
            shared.rediscover.notified().await;
            tokio::time::sleep(SETTLE).await;
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = hint => {}
            () = ctx.shutdown.cancelled() => return,
        }
    }
}

type MetaApi = Api<PartialObjectMeta<DynamicObject>>;

impl Collector {
    async fn work(&self, work: Work) -> Result<Action> {
        // before every watch has shown what there is, an object may seem to have no dependents
        if !lock(&self.shared.kinds).synced() {
            self.shared.queue.add_after(work, Duration::from_millis(500));
            return Ok(Action::Done);
        }
        match &work {
            Work::Judge(uid) => self.judge(uid).await?,
            Work::Orphan(uid) => self.orphan(uid).await?,
        }
        Ok(Action::Done)
    }

    fn api(&self, served: &Served, namespace: &str) -> MetaApi {
        if served.namespaced {
            Api::namespaced_with(self.ctx.client.clone(), namespace, &served.resource)
        } else {
            Api::all_with(self.ctx.client.clone(), &served.resource)
        }
    }

    fn served(&self, node: &Node) -> Option<Served> {
        let kinds = lock(&self.shared.kinds);
        match (&node.named, node.kind) {
            (Some(reference), _) => kind_of(&kinds, reference),
            (None, Some(kind)) => kinds.by_number(kind).cloned(),
            (None, None) => None,
        }
    }

    /// The object as it is, if it still is the one of this uid.
    async fn live(&self, served: &Served, namespace: &str, name: &str, uid: &str) -> Result<Option<ObjectMeta>> {
        let api = self.api(served, namespace);
        let found = api.get_opt(name).await;
        let found = found.during(|| format!("cannot read {} {namespace}/{name}", served.resource.kind))?;
        Ok(found.map(|object| object.metadata).filter(|meta| meta.uid.as_deref() == Some(uid)))
    }

    fn gone(&self, uid: &str) {
        let work = lock(&self.shared.graph).remove(uid);
        for work in work {
            self.shared.queue.add(work);
        }
    }

    async fn judge(&self, uid: &str) -> Result<()> {
        let Some(node) = lock(&self.shared.graph).get(uid).cloned() else { return Ok(()) };
        if node.deleting && !node.foreground {
            return Ok(());
        }
        let Some(served) = self.served(&node) else {
            let kind = node.named.as_ref().map(|reference| format!("{} {}", reference.api_version, reference.kind));
            return Err(Error::Other(format!(
                "owner {} is of a kind that is not served: {}",
                node.name,
                kind.unwrap_or_default()
            )));
        };
        if served.namespaced && node.namespace.is_empty() {
            // a cluster-wide object cannot be owned by a namespaced one: nothing can be said about such an owner
            return Ok(());
        }
        let Some(meta) = self.live(&served, &node.namespace, &node.name, uid).await? else {
            self.gone(uid);
            return Ok(());
        };
        if node.is_assumed() {
            // it exists; its own watch will show it
            return Ok(());
        }
        let api = self.api(&served, &node.namespace);
        if node.foreground {
            return self.finish_foreground(&api, uid, &meta).await;
        }
        let mut states = Vec::new();
        for reference in meta.owner_references.iter().flatten() {
            match self.owner_state(reference, &node).await? {
                Some(state) => states.push(state),
                None => return Ok(()),
            }
        }
        let dependents = lock(&self.shared.graph).dependents(uid);
        let circular = dependents.iter().any(|(_, node)| node.foreground);
        match judge::judge(&meta, &states, !dependents.is_empty(), circular) {
            Verdict::Keep => Ok(()),
            Verdict::Disown(owners) => self.change(&api, &meta, json!({"ownerReferences": owners})).await,
            Verdict::Delete { policy, unblock } => {
                if unblock {
                    let mut owners: Vec<OwnerReference> = meta.owner_references.clone().unwrap_or_default();
                    owners.iter_mut().for_each(|owner| owner.block_owner_deletion = Some(false));
                    self.change(&api, &meta, json!({"ownerReferences": owners})).await?;
                }
                self.delete(&api, &meta, policy, unblock).await
            }
        }
    }

    /// How an owner fares; None if nothing can be said about it.
    async fn owner_state(&self, reference: &OwnerReference, of: &Node) -> Result<Option<State>> {
        if let Some(known) = lock(&self.shared.graph).get(&reference.uid)
            && !known.is_assumed()
            && (known.namespace.is_empty() || known.namespace == of.namespace)
        {
            return Ok(Some(if known.foreground { State::Waiting } else { State::Alive }));
        }
        let served = kind_of(&lock(&self.shared.kinds), reference);
        let Some(served) = served else {
            let (version, kind) = (&reference.api_version, &reference.kind);
            return Err(Error::Other(format!(
                "owner {} is of a kind that is not served: {version} {kind}",
                reference.name
            )));
        };
        if served.namespaced && of.namespace.is_empty() {
            return Ok(None);
        }
        let namespace = if served.namespaced { of.namespace.to_string() } else { String::new() };
        let key = (reference.uid.clone(), namespace);
        if lock(&self.absent).known.contains(&key) {
            return Ok(Some(State::Absent));
        }
        let live = self.live(&served, &of.namespace, &reference.name, &reference.uid).await?;
        Ok(Some(match live {
            None => {
                lock(&self.absent).insert(key);
                State::Absent
            }
            Some(meta) => {
                let waits = meta.finalizers.iter().flatten().any(|finalizer| finalizer == FOREGROUND);
                if meta.deletion_timestamp.is_some() && waits { State::Waiting } else { State::Alive }
            }
        }))
    }

    async fn finish_foreground(&self, api: &MetaApi, uid: &str, meta: &ObjectMeta) -> Result<()> {
        let blockers = lock(&self.shared.graph).blockers(uid);
        if blockers.is_empty() {
            return self.drop_finalizer(api, meta, FOREGROUND).await;
        }
        for (uid, _) in blockers.into_iter().filter(|(_, node)| !node.foreground) {
            self.shared.queue.add(Work::Judge(uid));
        }
        Ok(())
    }

    async fn orphan(&self, uid: &str) -> Result<()> {
        let Some(node) = lock(&self.shared.graph).get(uid).cloned() else { return Ok(()) };
        let Some(served) = self.served(&node) else { return Ok(()) };
        let dependents = lock(&self.shared.graph).dependents(uid);
        for (dependent_uid, dependent) in dependents {
            let Some(kind) = self.served(&dependent) else { continue };
            let live = self.live(&kind, &dependent.namespace, &dependent.name, &dependent_uid).await?;
            let Some(meta) = live else { continue };
            let owners: Vec<&OwnerReference> =
                meta.owner_references.iter().flatten().filter(|owner| owner.uid != uid).collect();
            if owners.len() != meta.owner_references.as_ref().map_or(0, Vec::len) {
                let api = self.api(&kind, &dependent.namespace);
                self.change(&api, &meta, json!({"ownerReferences": owners})).await?;
            }
        }
        match self.live(&served, &node.namespace, &node.name, uid).await? {
            Some(meta) => self.drop_finalizer(&self.api(&served, &node.namespace), &meta, ORPHAN).await,
            None => Ok(()),
        }
    }

    async fn drop_finalizer(&self, api: &MetaApi, meta: &ObjectMeta, finalizer: &str) -> Result<()> {
        let rest: Vec<&String> = meta.finalizers.iter().flatten().filter(|known| *known != finalizer).collect();
        if rest.len() == meta.finalizers.as_ref().map_or(0, Vec::len) {
            return Ok(());
        }
        self.change(api, meta, json!({"finalizers": rest})).await
    }

    /// Changes metadata of exactly the version that was judged.
    async fn change(&self, api: &MetaApi, meta: &ObjectMeta, mut metadata: Value) -> Result<()> {
        let name = meta.name.as_deref().unwrap_or_default();
        metadata["uid"] = json!(meta.uid);
        metadata["resourceVersion"] = json!(meta.resource_version);
        let patch = json!({ "metadata": metadata });
        let outcome = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        outcome.unless_gone(|| format!("cannot change {}/{name}", api.resource_url())).map(drop)
    }

    async fn delete(&self, api: &MetaApi, meta: &ObjectMeta, policy: PropagationPolicy, moved: bool) -> Result<()> {
        let name = meta.name.as_deref().unwrap_or_default();
        tracing::debug!(name, kind = api.resource_url(), ?policy, "collecting");
        // not by version if we changed it ourselves a moment ago
        let resource_version = meta.resource_version.clone().filter(|_| !moved);
        let params = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(Preconditions { uid: meta.uid.clone(), resource_version }),
            ..DeleteParams::default()
        };
        api.delete(name, &params).await.unless_gone(|| format!("cannot delete {}/{name}", api.resource_url())).map(drop)
    }
}

fn kind_of(kinds: &Kinds, reference: &OwnerReference) -> Option<Served> {
    let group = owner::group_of(reference);
    let version = reference.api_version.rsplit('/').next().unwrap_or_default();
    kinds.discovered.of_kind(group, version, &reference.kind).cloned()
}
