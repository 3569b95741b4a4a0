//! PATCH of an object: JSON patch, merge patch, strategic merge patch, and server-side apply.
//!
//! Invariant: a patch is applied to the newest version, again when that changed in between.

use meta::{Reason, Status, Value, patch as patches};

use crate::body::Response;
use crate::call::Call;
use crate::options::{Validation, WriteOptions};
use crate::write::{self, Endpoint};
use crate::{decode, managed, metadata, reply};

const MEDIA_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

pub enum Patch {
    Json(Value),
    Merge(Value),
    Strategic(Value),
    Apply(Value),
}

impl Patch {
    /// Reads a patch by its media type.
    pub fn parse(call: &Call, body: &[u8]) -> Result<Patch, Status> {
        let json = || {
            meta::parse(body).map_err(|e| {
                Status::bad_request(format!("error decoding patch: {e}"))
            })
        };
        match decode::media_type(&call.headers) {
            "application/json-patch+json" => json().map(Patch::Json),
            "application/merge-patch+json" => json().map(Patch::Merge),
            "application/strategic-merge-patch+json" => json().map(Patch::Strategic),
            "application/apply-patch+yaml" => {
                let (value, _) = decode::yaml(body).map_err(|e| Status::bad_request(format!("error decoding YAML: {e}")))?;
                Ok(Patch::Apply(value))
            }
            _ => Err(Status::unsupported_media_type(&MEDIA_TYPES)),
        }
    }
}

pub async fn patch(call: &Call, body: &[u8]) -> Result<Response, Status> {
    change(call, body, Endpoint::Main).await
}

pub async fn change(call: &Call, body: &[u8], endpoint: Endpoint) -> Result<Response, Status> {
    let mut options = WriteOptions::parse(call, "PatchOptions")?;
    match Patch::parse(call, body)? {
        Patch::Apply(document) => {
            options.applied = true;
            apply(call, document, endpoint, options).await
        }
        _ if call.query.has("force") => {
            let error = meta::field::Error::forbidden(
                &meta::field::Path::new("force"),
                "may not be specified for non-apply patch",
            );
            Err(Status::invalid(&meta::GroupKind::new("meta.k8s.io", "PatchOptions"), "", &[error]))
        }
        patch => {
            let make = |old: &Value| patched(call, old, &patch, options.validation);
            let object = write::update(call, endpoint, &options, make).await?;
            Ok(reply::object(call, 200, &object))
        }
    }
}

/// The old document (in its stored version) with the patch applied to its served version.
pub fn patched(call: &Call, old: &Value, patch: &Patch, validation: Validation) -> Result<Value, Status> {
    let served = &call.served;
    let mut document = old.clone();
    write::from_stored(call, &mut document);
    let failed = |e: patches::PatchError| {
        let mut status = e.to_status();
        if matches!(e, patches::PatchError::DoesNotFit(_)) {
            tracing::debug!("a patch of {} {:?} does not fit: {e}", served.gr, call.path.name);
            status = status.with_causes(vec![]);
        }
        status
    };
    match patch {
        Patch::Json(patch) => patches::json_patch(&mut document, patch).map_err(failed)?,
        Patch::Merge(patch) => patches::merge_patch(&mut document, patch).map_err(failed)?,
        Patch::Strategic(patch) => match served.ty {
            Some(ty) => patches::strategic_merge(&mut document, patch, ty).map_err(failed)?,
            None => return Err(Status::unsupported_media_type(&MEDIA_TYPES[..2])),
        },
        Patch::Apply(_) => return Err(Status::internal("an apply is no patch of this kind")),
    }
    if document.get("apiVersion") != Some(&served.api_version.as_str().into())
        || document.get("kind") != Some(&served.kind.as_str().into())
    {
        return Err(Status::bad_request(format!(
            "the patch may not change apiVersion or kind of {} {:?}",
            served.gr, call.path.name
        )));
    }
    decode::prune(call, &mut document, Vec::new(), validation, &served.api_version, &served.kind, served.ty)?;
    write::to_stored(call, &mut document);
    metadata::check_names(call, &call.target, &mut document)?;
    (call.target.rules.defaults)(&mut document);
    Ok(document)
}

/// Server-side apply: merges the document into the object, or creates it.
async fn apply(call: &Call, mut document: Value, endpoint: Endpoint, options: WriteOptions) -> Result<Response, Status> {
    let served = &call.served;
    check_apply(call, &document)?;
    prune_applied(call, &mut document, options.validation)?;
    write::to_stored(call, &mut document);
    if metadata::name(&document).is_empty() {
        document.set(&["metadata", "name"], call.path.name.as_str());
    }
    metadata::check_names(call, &call.target, &mut document)?;
    let subresource = endpoint.subresource();
    for _ in 0..2 {
        let changed = write::update(call, endpoint, &options, |old| {
            let mut merged = managed::applied(&call.target, old, &document, &options, subresource)?;
            normalize(call, &mut merged)?;
            Ok(merged)
        })
        .await;
        match changed {
            Ok(object) => return Ok(reply::object(call, 200, &object)),
            Err(status) if status.reason == Reason::NotFound && endpoint == Endpoint::Main => {}
            Err(status) => return Err(status),
        }
        if metadata::version(&document).is_some() || !document["metadata"]["uid"].is_empty() {
            return Err(Status::conflict(&served.gr, &call.path.name, "uid mismatch: the object does not exist"));
        }
        let mut new = managed::applied(&call.target, &Value::Null, &document, &options, subresource)?;
        normalize(call, &mut new)?;
        match write::create_prepared(call, new, &options).await {
            Ok(object) => return Ok(reply::created(call, &object, &options)),
            // Somebody else made it in between: then it is an update after all.
            Err(status) if status.reason == Reason::AlreadyExists => {}
            Err(status) => return Err(status),
        }
    }
    Err(Status::modified(&served.gr, &call.path.name))
}

fn check_apply(call: &Call, document: &Value) -> Result<(), Status> {
    if call.query.get("fieldManager").is_empty() {
        let path = meta::field::Path::new("fieldManager");
        let error = meta::field::Error::required(&path, "is required for apply patch");
        return Err(Status::invalid(&meta::GroupKind::new("meta.k8s.io", "PatchOptions"), "", &[error]));
    }
    if !document["metadata"]["managedFields"].is_empty() {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    for (member, expected) in [("apiVersion", &call.served.api_version), ("kind", &call.served.kind)] {
        let found = document.str_at(&[member]).unwrap_or_default();
        if found != expected {
            return Err(Status::bad_request(format!(
                "the applied object must say {member}: {expected}, but says {found:?}"
            )));
        }
    }
    Ok(())
}

/// Reports unknown fields of the applied document and drops them, without filling in anything.
fn prune_applied(call: &Call, document: &mut Value, validation: Validation) -> Result<(), Status> {
    let mut full = document.clone();
    let served = &call.served;
    decode::prune(call, &mut full, Vec::new(), validation, &served.api_version, &served.kind, served.ty)?;
    keep_known(document, &full);
    Ok(())
}

/// Takes out of `document` what `known` does not have at the same place, and takes over its way of writing values.
fn keep_known(document: &mut Value, known: &Value) {
    match (document, known) {
        (Value::Object(map), Value::Object(known)) => {
            map.retain(|key, value| match known.get(key) {
                Some(known) => {
                    keep_known(value, known);
                    true
                }
                // An empty value that is not written back is known all the same.
                None => value.is_empty(),
            });
        }
        (Value::Array(items), Value::Array(known)) if items.len() == known.len() => {
            items.iter_mut().zip(known).for_each(|(item, known)| keep_known(item, known));
        }
        (document, known) => *document = known.clone(),
    }
}

/// What a decoded object of the kind looks like.
fn normalize(call: &Call, document: &mut Value) -> Result<(), Status> {
    let target = &call.target;
    decode::prune(call, document, Vec::new(), Validation::Ignore, &target.api_version, &target.kind, target.ty)?;
    (target.rules.defaults)(document);
    Ok(())
}
