//! Keeps the registry true to the stored definitions, writes their status, and clears up behind those that go.
//!
//! Reads: CustomResourceDefinitions from the watch cache. Writes: their status; deletes the objects of a definition that
//! is being deleted, then takes its finalizer away. Every server does all of this: whatever one does twice changes
//! nothing. Invariant: what is served is what some stored state of the definitions says.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::discovery::version_order;
use api::kinds::conditions;
use api::kinds::customresourcedefinition::FINALIZER;
use api::resource::{Resource, Stage, Subresource, Text};
use meta::{GroupVersion, Status, Value, json, time};

use super::names::{self, Condition, Taken};
use super::{Custom, PLAIN, Shape, WITH_STATUS};
use crate::bootstrap::own_call_on;
use crate::custom::conversion::Strategy;
use crate::metadata;
use crate::object::Object;
use crate::options::{DeleteOptions, WriteOptions};
use crate::registry::Served;
use crate::request::Verb;
use crate::shared::Shared;
use crate::verbs::delete::delete_key;
use crate::write::{self, Endpoint};

const GROUP: &str = "apiextensions.k8s.io";
const PLURAL: &str = "customresourcedefinitions";
const MANAGER: &str = "kube-apiserver";
/// How soon what did not work, or waits for finalizers, is looked at again.
const AGAIN: Duration = Duration::from_millis(500);

/// What is known of the definitions, by name.
#[derive(Default)]
pub struct Definitions {
    known: Mutex<HashMap<String, Known>>,
    /// One more than the revision that the registry shows; 0 before the first.
    shown: AtomicU64,
}

struct Known {
    rv: u64,
    /// What the served versions are made from.
    made_from: Value,
    established: bool,
    versions: Vec<Arc<Served>>,
    /// Where the objects are, whatever is served.
    storage: Option<Arc<Served>>,
}

/// Brings the registry up to what the cache says now: whoever has seen a definition established, or gone, here, finds it so.
pub fn sync(shared: &Shared) {
    let Some(own) = shared.registry.stored(GROUP, PLURAL) else { return };
    if shared.definitions.shown.load(Ordering::Acquire) == own.cache.since() + 1 {
        return;
    }
    let mut known = shared.definitions.known.lock().unwrap_or_else(PoisonError::into_inner);
    // Read under the lock: an older picture never replaces a newer one.
    let now = own.cache.snapshot("", "", 0, false, |_| true);
    let objects = now.objects;
    let mut next = HashMap::with_capacity(objects.len());
    let mut changed = false;
    for object in &objects {
        let old = known.remove(object.name.as_str());
        let new = match old {
            Some(old) if old.rv == object.rv => old,
            old => {
                let new = read(shared, object, old);
                changed |= new.1;
                new.0
            }
        };
        next.insert(object.name.to_string(), new);
    }
    changed |= !known.is_empty();
    known.values().for_each(Known::end);
    *known = next;
    if changed {
        let all = known.values().filter(|k| k.established).flat_map(|k| k.versions.iter().cloned());
        shared.registry.set_custom(all.collect::<Vec<_>>());
    }
    shared.definitions.shown.store(now.since + 1, Ordering::Release);
}

impl Known {
    fn end(&self) {
        self.versions.iter().chain(&self.storage).filter_map(|s| s.custom.as_ref()).for_each(|c| c.ended.cancel());
    }
}

/// Reads a definition that is new or changed; says whether what is served changes by it.
fn read(shared: &Shared, object: &Object, old: Option<Known>) -> (Known, bool) {
    let document = object.document_without_owners();
    let established = conditions::holds(&document, "Established");
    let mut made_from = Value::object();
    made_from.set(&["spec"], &document["spec"]);
    made_from.set(&["names"], &document["status"]["acceptedNames"]);
    made_from.set(&["uid"], object.uid.as_str());
    made_from.set(&["terminating"], object.deleting);
    if let Some(old) = old {
        if old.made_from == made_from {
            let changed = old.established != established;
            return (Known { rv: object.rv, established, ..old }, changed);
        }
        old.end();
    }
    let (versions, storage) = make(shared, &document, object.deleting);
    (Known { rv: object.rv, made_from, established, versions, storage }, true)
}

fn text(value: &Value, path: &[&str]) -> Text {
    value.str_at(path).unwrap_or_default().to_string().into()
}

/// The served versions of a definition, and the one in which its objects are stored.
fn make(shared: &Shared, definition: &Value, terminating: bool) -> (Vec<Arc<Served>>, Option<Arc<Served>>) {
    let conversion = Arc::new(Strategy::read(&definition["spec"]["conversion"]));
    let read = |version: &Value| {
        let info = resource(definition, version, terminating);
        let api_version = format!("{}/{}", info.group, info.version);
        let shape = Shape::new(version, &api_version, &info.kind);
        let sound = shape.is_ok();
        let shape = shape.or_else(|error| {
            tracing::warn!("{api_version} of {} is not served: {error}", info.plural);
            // Its objects can be deleted all the same.
            Shape::new(&Value::object(), &api_version, &info.kind)
        });
        Some((info, Arc::new(shape.ok()?), sound))
    };
    let written = definition.array_at(&["spec", "versions"]);
    let made: Vec<_> = written.iter().filter_map(|version| Some((version, read(version)?))).collect();
    let shapes: Arc<[Arc<Shape>]> = made.iter().map(|(_, (_, shape, _))| shape.clone()).collect();
    let (mut versions, mut storage) = (Vec::new(), None);
    for (version, (info, shape, sound)) in made {
        let mut custom = Custom::new(version, shape, shapes.clone(), conversion.clone(), terminating);
        custom.deprecation = deprecation(definition, version);
        let cache = shared.storage.feed.cache(&info.key_prefix(""));
        let mut served = Served::new(Arc::new(info), cache);
        served.rules = if served.has_status { &WITH_STATUS } else { &PLAIN };
        served.custom = Some(Box::new(custom));
        let served = Arc::new(served);
        if version.bool_at(&["storage"]) == Some(true) {
            storage = Some(served.clone());
        }
        if sound && version.bool_at(&["served"]) == Some(true) {
            versions.push(served);
        }
    }
    (versions, storage)
}

/// The schema of a version, and which of its fields selectors may name: OpenAPI documents say both.
fn published(schema: &Value, version: &Value) -> Value {
    let mut schema = schema.clone();
    let fields = version.array_at(&["selectableFields"]).iter().filter_map(|f| f.str_at(&["jsonPath"]));
    let fields: Vec<Value> = fields.map(|path| json!({"fieldPath": path.trim_start_matches('.')})).collect();
    if !fields.is_empty() {
        schema.set(&["x-kubernetes-selectable-fields"], fields);
    }
    schema
}

fn resource(definition: &Value, version: &Value, terminating: bool) -> Resource {
    let spec = &definition["spec"];
    let names = &definition["status"]["acceptedNames"];
    let list = |member: &str| -> Vec<Text> {
        names.array_at(&[member]).iter().filter_map(|n| Some(n.as_str()?.to_string().into())).collect()
    };
    let (group, plural, kind) =
        (text(spec, &["group"]), text(spec, &["names", "plural"]), text(spec, &["names", "kind"]));
    let name = text(version, &["name"]);
    let versions = spec.array_at(&["versions"]);
    let stored = versions.iter().find(|v| v.bool_at(&["storage"]) == Some(true));
    let verbs: &[&'static str] = if terminating {
        &["delete", "deletecollection", "get", "list", "watch"]
    } else {
        &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"]
    };
    let subresource = |name: &'static str, group: Text, version: Text, kind: Text| Subresource {
        name: name.into(),
        group,
        version,
        kind,
        connect: false,
        verbs: ["get", "patch", "update"].map(Text::from).to_vec(),
    };
    let offers = |name: &str| version.at(&["subresources", name]).is_some_and(|s| !s.is_null());
    let mut subresources = Vec::new();
    if offers("scale") {
        subresources.push(subresource("scale", "autoscaling".into(), "v1".into(), "Scale".into()));
    }
    if offers("status") {
        subresources.push(subresource("status", group.clone(), name.clone(), kind.clone()));
    }
    Resource {
        stage: Stage::of(&name),
        list_kind: text(spec, &["names", "listKind"]),
        singular: text(spec, &["names", "singular"]),
        short_names: list("shortNames"),
        categories: list("categories"),
        namespaced: spec.str_at(&["scope"]) == Some("Namespaced"),
        verbs: verbs.iter().map(|v| Text::from(*v)).collect(),
        subresources,
        prefix: format!("/registry/{group}/{plural}").into(),
        storage: GroupVersion::new(&*group, stored.map(|v| text(v, &["name"])).unwrap_or_default()),
        type_name: "".into(),
        schema: version.at(&["schema", "openAPIV3Schema"]).map(|s| Arc::new(published(s, version))),
        group,
        version: name,
        kind,
        plural,
    }
}

/// What clients of a deprecated version are told.
fn deprecation(definition: &Value, version: &Value) -> Option<String> {
    if version.bool_at(&["deprecated"]) != Some(true) {
        return None;
    }
    if let Some(own) = version.str_at(&["deprecationWarning"]) {
        return Some(own.to_string());
    }
    let (group, kind) = (text(definition, &["spec", "group"]), text(definition, &["spec", "names", "kind"]));
    let name = text(version, &["name"]);
    let on = |v: &&Value| v.bool_at(&["served"]) == Some(true) && v.bool_at(&["deprecated"]) != Some(true);
    let others = definition.array_at(&["spec", "versions"]).iter().filter(on).map(|v| text(v, &["name"]));
    let best = others.min_by_key(|v| version_order(v)).filter(|v| version_order(v) < version_order(&name));
    let instead = best.map(|v| format!("; use {group}/{v} {kind}")).unwrap_or_default();
    Some(format!("{group}/{name} {kind} is deprecated{instead}"))
}

/// Follows the definitions until the server stops.
pub async fn keep(shared: Arc<Shared>) {
    let Some(own) = shared.registry.stored(GROUP, PLURAL) else { return };
    let mut changes = own.cache.changes();
    loop {
        changes.mark_unchanged();
        sync(&shared);
        let again = tend(&shared, &own).await;
        tokio::select! {
            () = shared.shutdown.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(AGAIN), if again => {}
        }
    }
}

/// Does for each definition what is to be done; says whether something is left to do.
async fn tend(shared: &Arc<Shared>, own: &Arc<Served>) -> bool {
    let objects = own.cache.snapshot("", "", 0, false, |_| true).objects;
    let mut documents: Vec<Value> = objects.iter().map(|o| o.document_without_owners()).collect();
    documents.sort_by_cached_key(|d| d.str_at(&["metadata", "creationTimestamp"]).unwrap_or_default().to_string());
    let mut again = false;
    for i in 0..documents.len() {
        let name = metadata::name(&documents[i]).to_string();
        let done = if metadata::is_deleting(&documents[i]) {
            finalize(shared, own, &name, &documents[i]).await
        } else {
            let mut taken = Taken::default();
            let group = |d: &Value| d.str_at(&["spec", "group"]).map(str::to_string);
            let others = documents.iter().enumerate().filter(|(j, d)| *j != i && group(d) == group(&documents[i]));
            others.for_each(|(_, d)| taken.add(d));
            let status = names::status(&documents[i], &taken, time::now());
            if status == documents[i]["status"] {
                continue;
            }
            let written = write_status(shared, own, &name, |old| names::status(old, &taken, time::now())).await;
            written.map(|()| {
                documents[i].set(&["status"], status);
                true
            })
        };
        again |= match done {
            Ok(done) => !done,
            Err(status) => {
                tracing::debug!("the definition {name} waits: {status}");
                true
            }
        };
    }
    again
}

async fn write_status(
    shared: &Arc<Shared>,
    own: &Arc<Served>,
    name: &str,
    make: impl Fn(&Value) -> Value + Send + Sync,
) -> Result<(), Status> {
    let call = own_call_on(shared, Verb::Update, own.clone(), "", name);
    write::update(&call, Endpoint::Status, &WriteOptions::own(MANAGER), |old| {
        let mut new = old.clone();
        new.set(&["status"], make(old));
        Ok(new)
    })
    .await?;
    Ok(())
}

/// Marks a definition whose deletion begins: its objects go first.
pub fn terminate(definition: &mut Value, finalizers: &mut Vec<Value>, now: time::Timestamp) {
    if !finalizers.contains(&FINALIZER.into()) {
        finalizers.push(FINALIZER.into());
    }
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon".to_string();
    let condition = Condition("Terminating", "True", "InstanceDeletionPending", message);
    condition.put(definition.slot(&["status"]), now);
}

/// Deletes the objects of a definition; once none is left, lets the definition go.
async fn finalize(shared: &Arc<Shared>, own: &Arc<Served>, name: &str, definition: &Value) -> Result<bool, Status> {
    if !metadata::finalizers(definition).iter().any(|f| f.as_str() == Some(FINALIZER)) {
        return Ok(true);
    }
    let storage = {
        let known = shared.definitions.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(name).and_then(|k| k.storage.clone())
    };
    if let Some(storage) = storage {
        shared.storage.fresh().await?;
        let objects = storage.cache.snapshot("", "", 0, false, |_| true).objects;
        if !objects.is_empty() {
            let condition = || {
                let message = "CustomResource deletion is in progress".to_string();
                Condition("Terminating", "True", "InstanceDeletionInProgress", message)
            };
            write_status(shared, own, name, |old| {
                let mut status = old["status"].clone();
                condition().put(&mut status, time::now());
                status
            })
            .await?;
            for object in objects.iter().filter(|o| !o.deleting) {
                let call = own_call_on(shared, Verb::Delete, storage.clone(), &object.namespace, &object.name);
                match delete_key(&call, &storage, &object.key, &object.name, &DeleteOptions::default()).await {
                    Err(status) if status.reason != meta::Reason::NotFound => return Err(status),
                    _ => {}
                }
            }
            shared.storage.fresh().await?;
            if !storage.cache.is_empty() {
                return Ok(false);
            }
        }
    }
    let call = own_call_on(shared, Verb::Update, own.clone(), "", name);
    let options = WriteOptions::own(MANAGER);
    let gone = write::update(&call, Endpoint::Main, &options, |old| {
        let mut new = old.clone();
        new.slot(&["metadata", "finalizers"]).make_array().retain(|f| f.as_str() != Some(FINALIZER));
        Ok(new)
    });
    match gone.await {
        Err(status) if status.reason != meta::Reason::NotFound => Err(status),
        _ => Ok(true),
    }
}
