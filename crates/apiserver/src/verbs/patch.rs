//! PATCH of an object: JSON patch, merge patch, strategic merge patch, and server-side apply.
//!
//! Invariant: a patch is applied to the newest version, again when that changed in between.

use meta::schema::TypeRef;
use meta::schema::prune::DecodeError;
use meta::{Reason, Status, Value, patch as patches};

use crate::body::Response;
use crate::call::Call;
use crate::options::{Validation, WriteOptions};
use crate::write::{self, Endpoint};
use crate::{decode, managed, metadata, reply};

const MEDIA_TYPES: [&str; 4] = [
    "application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];
/// Custom resources have no strategic merge.
const CUSTOM_MEDIA_TYPES: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];

pub enum Patch {
    Json(Value),
    Merge(Value),
    Strategic(Value),
    Apply(Value),
}

impl Patch {
    /// Reads a patch by its media type.
    pub fn parse(call: &Call, body: &[u8]) -> Result<Patch, Status> {
        const MAP: &str = "map[string]interface {}";
        let bad = |what: &str, error: String| Err(Status::bad_request(format!("{what}{error}")));
        let json = |what: &str, go_type: &str| match meta::parse(body) {
            Err(error) => bad(what, error.to_string()),
            Ok(v)
                if matches!(v, Value::Array(_)) != (go_type != MAP)
                    || !matches!(v, Value::Array(_) | Value::Object(_)) =>
            {
                bad(what, format!("json: cannot unmarshal {} into Go value of type {go_type}", v.type_name()))
            }
            Ok(value) => Ok(value),
        };
        match decode::media_type(&call.headers) {
            "application/json-patch+json" => json("error decoding patch: ", "[]interface {}").map(Patch::Json),
            "application/merge-patch+json" => json("error decoding patch: ", MAP).map(Patch::Merge),
            "application/strategic-merge-patch+json" if call.served.custom.is_some() => {
                Err(Status::unsupported_media_type(&CUSTOM_MEDIA_TYPES))
            }
            "application/strategic-merge-patch+json" => json("", MAP).map(Patch::Strategic),
            "application/apply-patch+yaml" => {
                let (value, _) =
                    decode::yaml(body).map_err(|e| Status::bad_request(format!("error decoding YAML: {e}")))?;
                Ok(Patch::Apply(value))
            }
            _ if call.served.custom.is_some() => Err(Status::unsupported_media_type(&CUSTOM_MEDIA_TYPES)),
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
    let mut document = changed(call, old, patch)?;
    let notes = match served.strip(&mut document) {
        Ok(notes) => notes,
        Err(error) => return Err(not_of_the_kind(patch, &changed(call, old, patch)?, &error.0)),
    };
    if validation == Validation::Strict && !notes.is_empty() {
        return Err(not_of_the_kind(patch, &changed(call, old, patch)?, &DecodeError::strict(&notes).0));
    }
    decode::report(call, notes, validation, call.path.version.as_str(), &served.kind)?;
    write::to_stored(call, &mut document);
    metadata::check_names(call, &call.target, &mut document)?;
    call.target.defaults(&mut document);
    Ok(document)
}

/// The bare effect of the patch, whatever comes of it.
fn changed(call: &Call, old: &Value, patch: &Patch) -> Result<Value, Status> {
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
    Ok(document)
}

/// Compat: the patch is what upstream calls invalid then: the patched document's JSON, or a strategic patch as Go
/// prints a map.
fn not_of_the_kind(patch: &Patch, document: &Value, why: &str) -> Status {
    let shown = match patch {
        Patch::Strategic(patch) => go_text(patch),
        _ => document.to_string(),
    };
    let error = meta::field::Error::invalid(&meta::field::Path::new("patch"), shown, why);
    Status::invalid(&meta::GroupKind::new("", ""), "", &[error])
}

/// A value as Go's `%v` prints it.
fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_text).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let members: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{}", go_text(value))).collect();
            format!("map[{}]", members.join(" "))
        }
        other => other.to_string(),
    }
}

/// Server-side apply: merges the document into the object, or creates it.
async fn apply(
    call: &Call,
    mut document: Value,
    endpoint: Endpoint,
    options: WriteOptions,
) -> Result<Response, Status> {
    let served = &call.served;
    check_apply(call, &document)?;
    prune_applied(call, &mut document)?;
    write::to_stored(call, &mut document);
    if metadata::name(&document).is_empty() {
        document.set(&["metadata", "name"], call.path.name.as_str());
    }
    metadata::check_names(call, &call.target, &mut document)?;
    let subresource = endpoint.subresource();
    managed::keep_own(&call.target, &mut document, subresource);
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
    let version = document.str_at(&["apiVersion"]).unwrap_or_default();
    if version != call.served.api_version {
        return Err(Status::bad_request(format!(
            "Incorrect version specified in apply patch. Specified patch version: {version}, expected: {}",
            call.served.api_version
        )));
    }
    let kind = document.str_at(&["kind"]).unwrap_or_default();
    if kind != call.served.kind {
        let expected = &call.served.kind;
        return Err(Status::bad_request(format!("the applied object must say kind: {expected}, but says {kind:?}")));
    }
    Ok(())
}

/// Refuses unknown fields of the applied document, without filling in anything.
fn prune_applied(call: &Call, document: &mut Value) -> Result<(), Status> {
    let mut full = document.clone();
    let served = &call.served;
    let version = call.path.version.as_str();
    let notes = served.strip(&mut full).map_err(|e| e.status(version, &served.kind))?;
    if let Some(ty) = served.tracked()
        && !notes.is_empty()
    {
        return Err(untyped(call, document, ty, &notes));
    }
    keep_known(document, &full);
    Ok(())
}

/// Compat: whatever field validation was asked for, upstream's apply knows no unknown fields, and says so with code 500.
fn untyped(call: &Call, document: &Value, ty: TypeRef<'_>, notes: &[String]) -> Status {
    let errors: Vec<String> = notes
        .iter()
        .map(|note| match note.split('"').nth(1).filter(|_| note.starts_with("unknown field")) {
            Some(path) => format!("{}: field not declared in schema", apply_path(document, ty, path)),
            None => note.clone(),
        })
        .collect();
    let errors = match errors.as_slice() {
        [one] => one.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    };
    let group_version = format!("{}/{}", call.path.group, call.path.version);
    let (namespace, name) = (call.path.namespace.as_str(), call.path.name.as_str());
    let message = format!(
        "failed to create typed patch object ({namespace}/{name}; {group_version}, Kind={}): {errors}",
        call.served.kind
    );
    Status::new(500, Reason::Unknown, message)
}

/// `spec.containers[0].nope` as server-side apply writes it: `.spec.containers[name="web"].nope`.
fn apply_path(document: &Value, ty: TypeRef<'_>, path: &str) -> String {
    let (mut at, mut ty, mut out) = (Some(document), Some(ty), String::new());
    for part in path.split('.') {
        let (name, indices) = part.split_once('[').map_or((part, ""), |(name, rest)| (name, rest));
        out.push('.');
        out.push_str(name);
        (at, ty) = (at.and_then(|v| v.get(name)), ty.and_then(|t| t.child(name)));
        for index in indices.split('[').filter_map(|text| text.strip_suffix(']')) {
            let item = index.parse::<usize>().ok().and_then(|i| at?.as_array()?.get(i));
            let keys: Vec<String> = ty
                .into_iter()
                .flat_map(|list| list.list_keys())
                .filter_map(|key| Some(format!("{key}={}", item?.get(key)?)))
                .collect();
            out.push_str(&format!("[{}]", if keys.is_empty() { index.to_string() } else { keys.join(",") }));
            (at, ty) = (item, ty.and_then(|list| list.element()));
        }
    }
    out
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
    target.strip(document).map_err(|e| e.status(&target.info.version, &target.kind))?;
    target.defaults(document);
    Ok(())
}
