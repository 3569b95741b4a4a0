//! PATCH of an object: JSON patch, merge patch, strategic merge patch, and server-side apply.
//!
//! Invariant: a patch is applied to the newest version, again when that changed in between.

use std::sync::Arc;

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
    /// Reads a patch by its media type. The notes are what strict decoding says of the patch itself.
    pub fn parse(call: &Call, body: &[u8]) -> Result<(Patch, Vec<String>), Status> {
        const MAP: &str = "map[string]interface {}";
        let bad = |what: &str, error: String| Status::bad_request(format!("{what}{error}"));
        let (read, again) = match meta::parse_noting_duplicates(body) {
            Ok((value, again)) => (Ok(value), again),
            Err(error) => (Err(error), Vec::new()),
        };
        let json = |what: &str, go_type: &str| match read {
            // Compat: whatever is wrong with the JSON.
            Err(_) => Err(Status::bad_request("invalid JSON patch")),
            // Compat: Go reads null as no operations, no members.
            Ok(Value::Null) if go_type != MAP => Ok(Value::Array(Vec::new())),
            Ok(Value::Null) if what.is_empty() => Ok(Value::object()),
            Ok(Value::Null) => Err(Status::bad_request("Invalid JSON Patch")),
            Ok(Value::Array(all)) if go_type != MAP => {
                match all.iter().find(|item| !matches!(item, Value::Object(_) | Value::Null)) {
                    Some(item) => Err(bad(
                        what,
                        format!("json: cannot unmarshal {} into Go value of type {}", item.type_name(), &go_type[2..]),
                    )),
                    None => Ok(Value::Array(all)),
                }
            }
            Ok(v)
                if matches!(v, Value::Array(_)) != (go_type != MAP)
                    || !matches!(v, Value::Array(_) | Value::Object(_)) =>
            {
                Err(bad(what, format!("json: cannot unmarshal {} into Go value of type {go_type}", v.type_name())))
            }
            Ok(value) => Ok(value),
        };
        match decode::media_type(&call.headers) {
            "application/json-patch+json" => {
                let patch = json("error decoding patch: ", "[]handlers.jsonPatchOp")?;
                let notes = notes_of_json_patch(&patch, &again, body);
                Ok((Patch::Json(patch), notes))
            }
            "application/merge-patch+json" => {
                Ok((Patch::Merge(json("error decoding patch: ", MAP)?), decode::in_order(Vec::new(), &again, body)))
            }
            "application/strategic-merge-patch+json" if call.served.custom.is_some() => {
                Err(Status::unsupported_media_type(&CUSTOM_MEDIA_TYPES))
            }
            "application/strategic-merge-patch+json" => {
                Ok((Patch::Strategic(json("", MAP)?), decode::in_order(Vec::new(), &again, body)))
            }
            "application/apply-patch+yaml" => {
                let (value, notes) =
                    decode::yaml_noting_duplicates(body).map_err(|error| match error.split_once("yaml: ") {
                        Some((_, why)) if body.first() != Some(&b'{') => {
                            bad("error encoding patch: yaml: ", why.into())
                        }
                        _ => bad("error decoding patch: ", error),
                    })?;
                match value {
                    Value::Null => Ok((Patch::Apply(Value::object()), notes)),
                    Value::Object(_) => Ok((Patch::Apply(value), notes)),
                    other => Err(bad(
                        "error decoding patch: error unmarshaling JSON: while decoding JSON: ",
                        format!("json: cannot unmarshal {} into Go value of type {MAP}", other.type_name()),
                    )),
                }
            }
            _ if call.served.custom.is_some() => Err(Status::unsupported_media_type(&CUSTOM_MEDIA_TYPES)),
            // Compat: the framework below upstream's handlers refuses these.
            _ => Err(Status::new(415, Reason::UnsupportedMediaType, "415: Unsupported Media Type").with_causes(vec![])),
        }
    }
}

/// What is unknown or stands twice in a JSON patch, and what comes to stand twice in the object by it.
fn notes_of_json_patch(patch: &Value, again: &[String], body: &[u8]) -> Vec<String> {
    let operations = patch.as_array().into_iter().flatten();
    let unknown = operations.enumerate().flat_map(|(i, operation)| {
        let members = operation.as_object().into_iter().flat_map(|map| map.keys());
        let others = members.filter(|member| !matches!(*member, "op" | "path" | "from" | "value"));
        others.map(move |member| format!("unknown field \"[{i}].{member}\""))
    });
    let added = again.iter().filter_map(|path| {
        let (i, below) = path.strip_prefix('[')?.split_once("].value")?;
        let place = patch.as_array()?.get(i.parse::<usize>().ok()?)?.str_at(&["path"])?;
        let steps = place.split('/').skip(1).enumerate().map(|(i, step)| match step.parse::<usize>() {
            Ok(index) => format!("[{index}]"),
            Err(_) => format!("{}{step}", if i == 0 { "" } else { "." }),
        });
        Some(format!("duplicate field \"{}{below}\"", steps.collect::<String>()))
    });
    let own = decode::in_order(unknown.collect(), again, body);
    own.into_iter().map(|note| format!("json patch {note}")).chain(added).collect()
}

pub async fn patch(call: &Call, body: &[u8]) -> Result<Response, Status> {
    change(call, body, Endpoint::Main).await
}

pub async fn change(call: &Call, body: &[u8], endpoint: Endpoint) -> Result<Response, Status> {
    let mut options = WriteOptions::parse(call, "PatchOptions")?;
    let (patch, notes) = Patch::parse(call, body)?;
    match patch {
        Patch::Apply(document) => {
            options.applied = true;
            let validation = options.validation;
            if validation == Validation::Strict && !notes.is_empty() {
                let why = format!("yaml: unmarshal errors:\n  {}", notes.join("\n  "));
                return Err(Status::bad_request(format!(
                    "error strict decoding patch: error converting YAML to JSON: {why}"
                )));
            }
            let answer = apply(call, document, endpoint, options).await?;
            if validation == Validation::Warn {
                notes.into_iter().for_each(|note| call.warn(note));
            }
            Ok(answer)
        }
        _ if call.query.has("force") => {
            let error = meta::field::Error::forbidden(
                &meta::field::Path::new("force"),
                "may not be specified for non-apply patch",
            );
            Err(Status::invalid(&meta::GroupKind::new("meta.k8s.io", "PatchOptions"), "", &[error]))
        }
        patch => {
            let make = |old: &Value| patched(call, old, &patch, &notes, options.validation);
            let object = write::update(call, endpoint, &options, make).await?;
            Ok(reply::object(call, 200, &object))
        }
    }
}

/// The old document (in its stored version) with the patch applied to its served version.
pub fn patched(
    call: &Call,
    old: &Value,
    patch: &Patch,
    notes: &[String],
    validation: Validation,
) -> Result<Value, Status> {
    let served = &call.served;
    let mut document = changed(call, old, patch)?;
    let notes = match served.strip(&mut document) {
        Ok(unknown) => [notes, &unknown].concat(),
        Err(error) => {
            // Compat: metadata of custom resources is read apart.
            let apart = served.custom.is_some().then(|| {
                let whole = "Go struct field PartialObjectMetadata.metadata of type";
                error.0.replace("ObjectMeta.metadata.", "ObjectMeta.").replace(whole, "Go value of type")
            });
            return Err(not_of_the_kind(patch, &changed(call, old, patch)?, apart.as_ref().unwrap_or(&error.0)));
        }
    };
    if validation == Validation::Strict && !notes.is_empty() {
        return Err(not_of_the_kind(patch, &changed(call, old, patch)?, &DecodeError::strict(&notes).0));
    }
    decode::report(call, notes, validation, call.path.version.as_str(), &served.kind)?;
    keep_uid(call, old, &document)?;
    write::to_stored(call, &mut document);
    metadata::check_names(call, &call.target, &mut document)?;
    call.target.defaults(&mut document);
    Ok(document)
}

/// Compat: a patch has no precondition on the uid, as a replacement has; it may not change it.
fn keep_uid(call: &Call, old: &Value, new: &Value) -> Result<(), Status> {
    let uid = |of: &Value| of.str_at(&["metadata", "uid"]).unwrap_or_default().to_string();
    if uid(new).is_empty() || uid(new) == uid(old) {
        return Ok(());
    }
    let path = meta::field::Path::new("metadata").child("uid");
    let error = meta::field::Error::invalid(&path, uid(new), "field is immutable");
    let kind = meta::GroupKind::new(&*call.served.info.group, &call.served.kind);
    Err(Status::invalid(&kind, &call.path.name, &[error]))
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
            Some(ty) => {
                let mut patch = patch.clone();
                ty.convert_numbers(&mut patch);
                patches::strategic_merge(&mut document, &patch, ty).map_err(failed)?;
            }
            None => return Err(Status::unsupported_media_type(&MEDIA_TYPES[..2])),
        },
        Patch::Apply(_) => return Err(Status::internal("an apply is no patch of this kind")),
    }
    if served.custom.is_some() && decode::without_kind(&document).is_none() {
        let [version, kind] = said(&document);
        if kind.is_empty() {
            return Err(not_of_the_kind(patch, &document, &format!("Object 'Kind' is missing in '{document}'")));
        }
        if (version, kind) != (&served.api_version, &served.kind) {
            return Err(other_custom_kind(call, version, kind));
        }
    }
    check_kind(call, patch, &document, &served.api_version, &served.kind)?;
    Ok(document)
}

/// The version and kind that a document says it is of.
fn said(document: &Value) -> [&str; 2] {
    ["apiVersion", "kind"].map(|member| document.str_at(&[member]).unwrap_or_default())
}

/// Refuses a patched document that says that it is of another kind now.
pub fn check_kind(call: &Call, patch: &Patch, document: &Value, api_version: &str, kind: &str) -> Result<(), Status> {
    if let (Patch::Json(_) | Patch::Merge(_), Some(why)) = (patch, decode::without_kind(document)) {
        return Err(not_of_the_kind(patch, document, &why));
    }
    let [found_version, found_kind] = said(document);
    if found_version.is_empty() {
        return if call.served.custom.is_some() { Ok(()) } else { Err(metadata::nameless(call)) };
    }
    if found_version != api_version || !found_kind.is_empty() && found_kind != kind {
        let why = decode::why_other_kind((found_version, found_kind), (api_version, kind))?;
        return Err(not_of_the_kind(patch, document, &why));
    }
    Ok(())
}

/// Compat: custom resources are held against their kind as their other fields are, under the name they came with.
fn other_custom_kind(call: &Call, version: &str, kind: &str) -> Status {
    let path = |member: &str| meta::field::Path::new(member);
    let wrong = |member, found: &str, must: &str| {
        (found != must).then(|| meta::field::Error::invalid(&path(member), found, format!("must be {must}")))
    };
    let errors: Vec<_> =
        [wrong("apiVersion", version, &call.served.api_version), wrong("kind", kind, &call.served.kind)]
            .into_iter()
            .flatten()
            .collect();
    let group = version.split_once('/').map_or("", |(group, _)| group);
    Status::invalid(&meta::GroupKind::new(group, kind), &call.path.name, &errors)
}

/// Compat: the patch is what upstream calls invalid then: the patched document's JSON, or a strategic patch as Go
/// prints a map.
fn not_of_the_kind(patch: &Patch, document: &Value, why: &str) -> Status {
    let shown = match patch {
        Patch::Strategic(patch) => patches::go_text(patch),
        _ => document.to_string(),
    };
    let own = if matches!(patch, Patch::Strategic(_)) { restored(why) } else { None };
    let why = own.as_deref().unwrap_or(why);
    let error = meta::field::Error::invalid(&meta::field::Path::new("patch"), shown, why);
    Status::invalid(&meta::GroupKind::new("", ""), "", &[error])
}

/// Compat: a strategic patch is read by other means than JSON's decoder, with words of their own for a wrong type.
fn restored(why: &str) -> Option<String> {
    let (found, ty) = why.strip_prefix("json: cannot unmarshal ")?.split_once(" into Go struct field ")?;
    let ty = ty.rsplit_once(" of type ")?.1;
    let found = match found.split_once(' ').unwrap_or((found, "")) {
        ("number", number) if ty.starts_with("int") && number.contains('.') => {
            return Some(format!("cannot convert float64 to {ty}"));
        }
        ("number", _) => "int64",
        ("object", _) => "map",
        ("array", _) => "slice",
        (other, _) => other,
    };
    Some(match ty {
        "string" if found == "int64" => "cannot convert int64 to string".into(),
        "string" | "bool" | "int32" | "int64" => format!("unrecognized type: {ty}"),
        "[]uint8" | "[]byte" if found == "slice" => "unrecognized type: uint8".into(),
        _ if ty.starts_with("[]") => format!("cannot restore slice from {found}"),
        _ if ty.starts_with("map[") => format!("cannot restore map from {found}"),
        _ => format!("cannot restore struct from: {found}"),
    })
}

/// Server-side apply: merges the document into the object, or creates it.
async fn apply(
    call: &Call,
    mut document: Value,
    endpoint: Endpoint,
    options: WriteOptions,
) -> Result<Response, Status> {
    let served = &call.served;
    check_apply(call, &document, &served.api_version, &served.kind)?;
    if let Some(ty) = served.ty {
        ty.convert_numbers(&mut document);
    }
    let spoken = managed::spoken(call, &call.target);
    if Arc::ptr_eq(spoken, &call.target) {
        write::to_stored(call, &mut document);
    }
    let subresource = endpoint.subresource();
    let described = meta::apply::described(&document);
    let whole = (subresource == "status").then(|| document.clone());
    managed::keep_own(spoken, &mut document, subresource);
    for _ in 0..2 {
        let changed = write::update(call, endpoint, &options, |old| {
            keep_uid(call, old, &document)?;
            if let Some(whole) = &whole {
                // What the endpoint does not write has to fit all the same.
                managed::check(spoken, whole)?;
                let mut whole = whole.clone();
                if !Arc::ptr_eq(spoken, &call.target) {
                    write::to_stored(call, &mut whole);
                }
                convert(call, &mut whole, &described)?;
            }
            let mut merged = managed::applied(call, old, &document, &options, subresource)?;
            normalize(call, &mut merged, &described)?;
            Ok(if meta::apply::differ_in_times(old, &merged) { old.clone() } else { merged })
        })
        .await;
        match changed {
            Ok(object) => return Ok(reply::object(call, 200, &object)),
            // Compat: what may be created by replacing it is, though a status alone is no valid object.
            Err(status)
                if status.reason == Reason::NotFound
                    && (endpoint == Endpoint::Main
                        || endpoint == Endpoint::Status && call.target.rules.create_on_update) => {}
            Err(status) => return Err(status),
        }
        if let Some(uid) = document.str_at(&["metadata", "uid"]).filter(|uid| !uid.is_empty()) {
            let why =
                format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(Status::conflict(&served.gr, &call.path.name, why));
        }
        let mut new = managed::applied(call, &Value::Null, &document, &options, subresource)?;
        normalize(call, &mut new, &described)?;
        match write::create_prepared(call, new, &options).await {
            Ok(object) => return Ok(reply::created(call, &object, &options)),
            // Somebody else made it in between: then it is an update after all.
            Err(status) if status.reason == Reason::AlreadyExists => {}
            Err(status) => return Err(status),
        }
    }
    Err(Status::modified(&served.gr, &call.path.name))
}

/// What is applied is somebody's, owns nothing yet, and is of this kind.
pub fn check_apply(call: &Call, document: &Value, api_version: &str, kind: &str) -> Result<(), Status> {
    if call.query.get("fieldManager").is_empty() {
        let path = meta::field::Path::new("fieldManager");
        let error = meta::field::Error::required(&path, "is required for apply patch");
        return Err(Status::invalid(&meta::GroupKind::new("meta.k8s.io", "PatchOptions"), "", &[error]));
    }
    if document.at(&["metadata", "managedFields"]).is_some_and(|list| !list.is_null()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    check_applied_kind(document, api_version, kind)
}

/// What is applied has to say that it is of this kind.
fn check_applied_kind(document: &Value, api_version: &str, kind: &str) -> Result<(), Status> {
    if said(document) != [api_version, kind] {
        return Err(Status::bad_request(format!("invalid object type: {}", meta::apply::kind_of(document))));
    }
    Ok(())
}

/// What a decoded object of the kind looks like. `described` is the applied document.
fn normalize(call: &Call, document: &mut Value, described: &str) -> Result<(), Status> {
    convert(call, document, described)?;
    metadata::check_names(call, &call.target, document)?;
    call.target.defaults_of_applied(document);
    Ok(())
}

fn convert(call: &Call, document: &mut Value, described: &str) -> Result<(), Status> {
    let kind = meta::apply::kind_of(document);
    call.target.strip(document).map(drop).map_err(|e| {
        let why = restored(&e.0).unwrap_or(e.0);
        let why = why.replace("illegal base64", "error decoding from json: illegal base64");
        let message = format!(
            "failed to convert new object ({described}) to proper version: unable to convert unstructured object to \
             {kind}: {why}"
        );
        Status::new(500, Reason::Unknown, message)
    })
}
