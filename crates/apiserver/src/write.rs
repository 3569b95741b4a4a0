//! Creating and changing objects: everything between a decoded document and the store.
//!
//! Order, as upstream: managed fields, mutating admission, the kind's preparation, allocation, validation, validating
//! admission, quotas, store. Invariant: a change is worked out on a known version of the object and stored only if that is
//! still the newest; otherwise it is worked out again.

use std::sync::Arc;

use api::gated_fields;
use bytes::Bytes;
use meta::{Status, Value};

use crate::admission::{self, Operation, Review, resource_quota};
use crate::alloc;
use crate::beyond;
use crate::call::Call;
use crate::custom;
use crate::managed;
use crate::metadata;
use crate::object::Object;
use crate::options::WriteOptions;
use crate::registry::Served;
use crate::storage::Written;
use crate::unenforced;

/// How often a change is worked out anew because somebody else was faster.
const MAX_ATTEMPTS: usize = 16;
/// How often a name is made up anew because it was taken. Source: KEP-4420.
const MAX_NAMES: usize = 8;

/// How often a service is given something else because what was chosen was taken meanwhile.
const MAX_CHOICES: usize = 64;

/// Which part of the object an endpoint may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Main,
    Status,
    /// Any other subresource: its own code has changed what it may, and nothing is restored or validated here.
    Sub(&'static str),
}

impl Endpoint {
    pub fn subresource(self) -> &'static str {
        match self {
            Endpoint::Main => "",
            Endpoint::Status => "status",
            Endpoint::Sub(name) => name,
        }
    }
}

/// Creates an object from a decoded document in its served version.
pub async fn create(call: &Call, mut document: Value, options: &WriteOptions) -> Result<Arc<Object>, Status> {
    let served = &call.target;
    metadata::merge_owners(call, &mut document, "");
    to_stored(call, &mut document);
    metadata::settle_namespace(call, served, &mut document)?;
    served.defaults(&mut document);
    document.remove(&["metadata", "deletionGracePeriodSeconds"]);
    managed::created(call, served, &mut document, options);
    create_prepared(call, document, options).await
}

/// Creates an object whose managed fields are settled.
pub async fn create_prepared(call: &Call, document: Value, options: &WriteOptions) -> Result<Arc<Object>, Status> {
    let warning = unenforced::warning(&call.target.info.group, &call.target.kind, &document);
    let made = create_named(call, document, options).await?;
    if let Some(warning) = warning {
        call.warn(warning);
    }
    Ok(made)
}

/// Creates an object, under the name that it has or under one made up.
async fn create_named(call: &Call, mut document: Value, options: &WriteOptions) -> Result<Arc<Object>, Status> {
    let served = &call.target;
    let mut asked = review(call, served, Operation::Create, "", options.dry_run);
    admission::mutate(&mut asked, &mut document, None).await?;
    metadata::merge_owners(call, &mut document, " after mutating admission happens");
    if served.custom.as_ref().is_some_and(|c| c.terminating) {
        let why = "create not allowed while custom resource definition is terminating";
        return Err(Status::forbidden(&served.gr, metadata::name(&document), why));
    }
    metadata::fill_new(&mut document);
    let generates = metadata::name(&document).is_empty();
    for _ in 1..if generates { MAX_NAMES } else { 1 } {
        let mut named = document.clone();
        metadata::generate_name(&mut named);
        match store_new(call, served, named, options).await {
            Err(status) if status.reason == meta::Reason::AlreadyExists => {}
            made => return made,
        }
    }
    metadata::generate_name(&mut document);
    store_new(call, served, document, options).await
}

async fn store_new(
    call: &Call,
    served: &Arc<Served>,
    mut document: Value,
    options: &WriteOptions,
) -> Result<Arc<Object>, Status> {
    drop_gated(call, served, &mut document, None);
    // The name and the uid are settled by now: some kinds label their pods with them.
    (served.rules.prepare_create)(&mut document);
    if served.custom.is_some() && served.is_storage() {
        // The status that a client sent is gone: its default comes with the first answer, as with every later one.
        served.defaults(&mut document);
    }
    admission::certificates::set_requester(call, served, &mut document);
    alloc::carry_over(served, &mut document, None);
    let name = metadata::name(&document).to_string();
    let mut errors = judge(call, served).check(&document, None, false);
    beyond::check(call, served, &document, &mut errors).await?;
    if !errors.is_empty() {
        return Err(Status::invalid(&served.gk, &name, &errors));
    }
    warn(call, served, &document, None);
    if served.is_core("services") {
        for _ in 0..MAX_CHOICES {
            if let Some(made) = store_allocated(call, served, document.clone(), &name, options).await? {
                return Ok(made);
            }
        }
    }
    let made = store_allocated(call, served, document, &name, options).await?;
    made.ok_or_else(|| Status::modified(&served.gr, &name))
}

/// Whose rules count: those of the version that was asked for, which may have some of its own (events).
pub fn judge<'c>(call: &'c Call, served: &'c Arc<Served>) -> &'c Served {
    if Arc::ptr_eq(served, &call.target) { &call.served } else { served }
}

/// Drops what a built-in kind has behind feature gates that are off. Its owners keep it, as upstream.
fn drop_gated(call: &Call, served: &Served, new: &mut Value, old: Option<&Value>) {
    if let Some(ty) = served.ty {
        gated_fields::drop_fields(ty, new, old, &|gate| call.shared.config.feature_gates.is_on(gate));
    }
}

/// Tells the client what is odd about an object that is good enough to be stored.
fn warn(call: &Call, served: &Served, new: &Value, old: Option<&Value>) {
    for text in api::kinds::warnings(&served.gk.group, &served.gk.kind, new, old) {
        call.warn(text);
    }
}

/// `None`: somebody else was faster to take what the object was to be given.
async fn store_allocated(
    call: &Call,
    served: &Arc<Served>,
    mut document: Value,
    name: &str,
    options: &WriteOptions,
) -> Result<Option<Arc<Object>>, Status> {
    let storage = &call.shared.storage;
    let allocation = alloc::allocate(&call.shared, served, &mut document, None).await?;
    let mut asked = review(call, served, Operation::Create, "", options.dry_run);
    admission::validate(&mut asked, Some(&document), None).await?;
    let key = served.key(metadata::namespace(&document), name);
    let value = metadata::stored_bytes(&mut document);
    let taken = |there: Option<&Object>| {
        let mut status = Status::already_exists(&served.gr, name);
        if there.is_some_and(|there| !there.document()["metadata"]["deletionTimestamp"].is_null()) {
            status.message = format!("object is being deleted: {}", status.message);
        }
        status
    };
    if options.dry_run {
        resource_quota::charge(&asked, &document, None).await?;
        if let Some(there) = storage.get(served, &key).await? {
            return Err(taken(Some(&there)));
        }
        return stored_object(&key, value, 0).map(Some);
    }
    let lease = call.shared.leases.for_new(call, served).await?;
    let stored = custom::to_stored(&call.shared, served, &document, &value).await?;
    for _ in 0..MAX_ATTEMPTS {
        let charge = resource_quota::charge(&asked, &document, None).await?;
        let allocation = allocation.clone().with(charge.beside);
        match allocation.write(&call.shared, served, &key, 0, Some((stored.clone(), lease))).await? {
            Written::At(revision) => return written(call, served, &key, value, stored, revision).await.map(Some),
            Written::Changed(there) => return Err(taken(there.as_deref())),
            Written::Contended if served.is_core("services") => break,
            // A quota changed in between.
            Written::Contended => {}
        }
    }
    Ok(None)
}

/// What an answer shows of a document that was stored: all of it, or what its storage version kept.
async fn written(
    call: &Call,
    served: &Served,
    key: &str,
    value: Bytes,
    stored: Bytes,
    revision: u64,
) -> Result<Arc<Object>, Status> {
    if served.is_storage() || served.custom.is_none() {
        return stored_object(key, value, revision);
    }
    custom::present(&call.shared, served, stored_object(key, stored, revision)?).await
}

pub fn stored_object(key: &str, value: Bytes, revision: u64) -> Result<Arc<Object>, Status> {
    let object = Object::read(key, value, revision);
    object.map(Arc::new).ok_or_else(|| Status::internal("the object has no metadata"))
}

/// What became of a change.
pub enum Changed {
    Stored(Arc<Object>),
    /// The change removed the last reason to keep an object that was being deleted.
    Deleted(Arc<Object>),
}

impl Changed {
    pub fn object(self) -> Arc<Object> {
        match self {
            Changed::Stored(object) | Changed::Deleted(object) => object,
        }
    }
}

/// Changes the object that the path names. `make` works out the new document (in the stored version) from the old one;
/// it runs again when the object changed in between.
pub async fn update(
    call: &Call,
    endpoint: Endpoint,
    options: &WriteOptions,
    make: impl FnMut(&Value) -> Result<Value, Status> + Send,
) -> Result<Arc<Object>, Status> {
    let key = call.key();
    update_key(call, &call.target, &key, &call.path.name, endpoint, options, make).await.map(Changed::object)
}

/// Changes the object at `key`.
pub async fn update_key(
    call: &Call,
    served: &Arc<Served>,
    key: &str,
    name: &str,
    endpoint: Endpoint,
    options: &WriteOptions,
    mut make: impl FnMut(&Value) -> Result<Value, Status> + Send,
) -> Result<Changed, Status> {
    let storage = &call.shared.storage;
    // The cache may lag behind; an error worked out from it is only believed once the store says the same.
    let mut fresh = false;
    let mut current = served.cache.get(key);
    for _ in 0..MAX_ATTEMPTS {
        let Some(existing) = current.clone() else {
            if fresh {
                return Err(Status::not_found(&judge(call, served).gr, name));
            }
            fresh = true;
            current = storage.read(served, key).await?;
            continue;
        };
        match attempt(call, served, key, name, endpoint, options, &existing, &mut make).await {
            Ok(Attempt::Done(changed)) => return Ok(changed),
            Ok(Attempt::Raced(newer)) => {
                fresh = true;
                current = newer;
            }
            Err(status) if fresh => return Err(status),
            Err(status) => {
                fresh = true;
                let newer = storage.read(served, key).await?;
                if newer.as_ref().is_some_and(|n| n.rv == existing.rv) {
                    return Err(status);
                }
                current = newer;
            }
        }
    }
    Err(Status::modified(&served.gr, name))
}

enum Attempt {
    Done(Changed),
    Raced(Option<Arc<Object>>),
}

#[allow(clippy::too_many_arguments)] // the loop's state, passed on as it is
async fn attempt(
    call: &Call,
    served: &Arc<Served>,
    key: &str,
    name: &str,
    endpoint: Endpoint,
    options: &WriteOptions,
    existing: &Arc<Object>,
    make: &mut (impl FnMut(&Value) -> Result<Value, Status> + Send),
) -> Result<Attempt, Status> {
    // A custom resource may be stored in another version.
    let shown = custom::present(&call.shared, served, existing.clone()).await?;
    let old = shown.document();
    let mut new = make(&old)?;
    if !served.namespaced {
        new.remove(&["metadata", "namespace"]);
    }
    check_version(call, served, endpoint, name, &mut new, &old)?;
    let generation = new.int_at(&["metadata", "generation"]);
    metadata::keep(&mut new, &old);
    if let (Endpoint::Sub(_), Some(generation)) = (endpoint, generation) {
        new.set(&["metadata", "generation"], generation);
    }
    if endpoint == Endpoint::Status {
        // Before the fields are counted to their owners: what is restored here was not changed by anybody.
        served.rules.prepare_status(&mut new, &old);
    }
    if !options.applied {
        managed::updated(call, served, &mut new, &old, options, endpoint.subresource());
    }
    let mut asked = review(call, served, Operation::Update, endpoint.subresource(), options.dry_run);
    asked.name = name.to_string();
    admission::mutate(&mut asked, &mut new, Some(&old)).await?;
    metadata::merge_owners(call, &mut new, " after mutating admission happens");
    drop_gated(call, served, &mut new, Some(&old));
    let errors = match endpoint {
        Endpoint::Main => {
            alloc::carry_over(served, &mut new, Some(&old));
            (served.rules.prepare_update)(&mut new, &old);
            judge(call, served).check(&new, Some(&old), false)
        }
        Endpoint::Status => {
            let mut errors = served.check(&new, Some(&old), true);
            beyond::check_status(call, served, &new, &old, &mut errors).await?;
            errors
        }
        Endpoint::Sub(_) if served.custom.is_some() => served.check(&new, Some(&old), false),
        Endpoint::Sub(_) => Vec::new(),
    };
    if !errors.is_empty() {
        return Err(Status::invalid(&served.gk, name, &errors));
    }
    let allocation = match endpoint {
        Endpoint::Main => {
            let allocation = alloc::allocate(&call.shared, served, &mut new, Some(&old)).await?;
            warn(call, served, &new, Some(&old));
            allocation
        }
        _ => alloc::Allocation::default(),
    };
    admission::validate(&mut asked, Some(&new), Some(&old)).await?;
    let charge = resource_quota::charge(&asked, &new, Some(&old)).await?;
    let gone = is_ready_to_go(served, &new);
    let value = metadata::stored_bytes(&mut new);
    if options.dry_run {
        return Ok(Attempt::Done(Changed::Stored(stored_object(key, value, existing.rv)?)));
    }
    if gone {
        let allocation = alloc::release(&call.shared, served, existing).await?;
        return Ok(match allocation.write(&call.shared, served, key, existing.rv, None).await? {
            Written::At(revision) => Attempt::Done(Changed::Deleted(stored_object(key, value, revision)?)),
            Written::Changed(newer) => Attempt::Raced(newer),
            Written::Contended => Attempt::Raced(Some(existing.clone())),
        });
    }
    let stored = custom::to_stored(&call.shared, served, &new, &value).await?;
    if stored == existing.stored() {
        // Compat: a change that changes nothing is not written, and the version stays (apiserver GuaranteedUpdate).
        return Ok(Attempt::Done(Changed::Stored(shown)));
    }
    let lease = call.shared.leases.for_new(call, served).await?;
    Ok(
        match allocation
            .with(charge.beside)
            .write(&call.shared, served, key, existing.rv, Some((stored.clone(), lease)))
            .await?
        {
            Written::At(revision) => {
                Attempt::Done(Changed::Stored(written(call, served, key, value, stored, revision).await?))
            }
            Written::Changed(newer) => Attempt::Raced(newer),
            Written::Contended => Attempt::Raced(Some(existing.clone())),
        },
    )
}

/// The version that the new document builds on must be the old one's.
fn check_version(
    call: &Call,
    served: &Arc<Served>,
    endpoint: Endpoint,
    name: &str,
    new: &mut Value,
    old: &Value,
) -> Result<(), Status> {
    if let Some(uid) = new.str_at(&["metadata", "uid"]).filter(|u| !u.is_empty()) {
        let was = old.str_at(&["metadata", "uid"]).unwrap_or_default();
        if uid != was {
            let namespace = old.str_at(&["metadata", "namespace"]).unwrap_or_default();
            return Err(other_uid(call, served, namespace, name, uid, was));
        }
    }
    let gr = &judge(call, served).gr;
    let current = metadata::version(old).unwrap_or_default();
    match metadata::version(new) {
        Some(asked) if asked.parse::<u64>().is_err() => {
            let why = format!("strconv.ParseUint: parsing {asked:?}: invalid syntax");
            return Err(Status::new(500, meta::Reason::Unknown, why));
        }
        Some(asked) if asked != current => return Err(Status::modified(gr, name)),
        Some(_) => {}
        None if served.rules.unconditional_update => new.set(&["metadata", "resourceVersion"], current),
        None if matches!(endpoint, Endpoint::Sub(_)) => {}
        None => {
            let path = meta::field::Path::new("metadata").child("resourceVersion");
            let error = meta::field::Error::invalid(&path, 0, "must be specified for an update");
            let kind = meta::GroupKind::new(&*gr.group, &*gr.resource);
            return Err(Status::invalid(&kind, name, &[error]));
        }
    }
    Ok(())
}

/// The object has another uid than the client said; none when it is not there.
pub fn other_uid(call: &Call, served: &Arc<Served>, namespace: &str, name: &str, uid: &str, was: &str) -> Status {
    let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {was}");
    Status::conflict(&judge(call, served).gr, name, invalid_object(served, &served.key(namespace, name), &why))
}

/// Compat: the words of upstream's storage layer, which clients match.
pub fn invalid_object(served: &Served, key: &str, why: &str) -> String {
    let key = served.store_key(key);
    let key = String::from_utf8_lossy(&key);
    format!("StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: {why}")
}

/// An object that is being deleted goes once nobody holds it any more.
fn is_ready_to_go(served: &Served, document: &Value) -> bool {
    metadata::is_deleting(document)
        && metadata::finalizers(document).is_empty()
        && document.int_at(&["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0) == 0
        && (!served.is_core("namespaces") || document.array_at(&["spec", "finalizers"]).is_empty())
}

/// Turns a document of the served version into the stored one.
pub fn to_stored(call: &Call, document: &mut Value) {
    if let Some(conversion) = &call.served.conversion {
        conversion.to_stored(document);
    }
}

/// Turns a document of the stored version into the served one.
pub fn from_stored(call: &Call, document: &mut Value) {
    if let Some(conversion) = &call.served.conversion {
        conversion.to_served(document);
    }
}

pub fn review<'a>(
    call: &'a Call,
    served: &'a Arc<Served>,
    operation: Operation,
    subresource: &'a str,
    dry_run: bool,
) -> Review<'a> {
    Review {
        call,
        shared: &call.shared,
        served,
        operation,
        subresource,
        namespace: if served.is_core("namespaces") { call.path.name.clone() } else { call.path.namespace.clone() },
        name: call.path.name.clone(),
        dry_run,
        deletion: None,
    }
}
