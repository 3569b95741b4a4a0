//! What `metadata` must look like, for every kind: names, namespace, labels, annotations, owners, finalizers.
//!
//! Reads documents, writes nothing. Invariant: built-in and custom kinds are held to the same rules; only the rule for
//! names differs. Wording is upstream's.

use meta::field::{Error, Errors, Path};
use meta::gvk::GroupVersion;
use meta::{Map, Value, names, selector};

/// What is wrong with a name, in upstream's words.
pub type NameRule = fn(&str) -> Vec<String>;

const ANNOTATIONS_MAX_BYTES: usize = 256 * 1024;
const MANAGER_MAX_BYTES: usize = 128;

/// Checks the metadata of an object that is about to be created, after its name was generated.
pub fn validate_create(object: &Value, name_rule: NameRule, namespaced: bool) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("metadata");
    let base = object.str_at(&["metadata", "generateName"]).unwrap_or_default();
    if !base.is_empty() {
        // The hyphen at its end is not the name's end.
        let start = if base.len() > 1 { base.strip_suffix('-').unwrap_or(base) } else { base };
        errors.extend(name_rule(start).into_iter().map(|m| Error::invalid(&path.child("generateName"), base, m)));
    }
    let name = object.str_at(&["metadata", "name"]).unwrap_or_default();
    if name.is_empty() {
        errors.push(Error::required(&path.child("name"), "name or generateName is required"));
    } else {
        errors.extend(name_rule(name).into_iter().map(|m| Error::invalid(&path.child("name"), name, m)));
    }
    let namespace = object.str_at(&["metadata", "namespace"]).unwrap_or_default();
    let at = path.child("namespace");
    match (namespaced, namespace.is_empty()) {
        (true, true) => errors.push(Error::required(&at, "")),
        (true, false) => {
            errors.extend(names::dns1123_label(namespace).into_iter().map(|m| Error::invalid(&at, namespace, m)));
        }
        (false, false) => errors.push(Error::forbidden(&at, "not allowed on this type")),
        (false, true) => {}
    }
    validate_common(object, &mut errors);
    errors
}

/// Checks the metadata of an object that replaces `old`.
pub fn validate_update(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("metadata");
    if !old["metadata"]["deletionTimestamp"].is_null() {
        let before = old.array_at(&["metadata", "finalizers"]);
        let added: Vec<String> = new
            .array_at(&["metadata", "finalizers"])
            .iter()
            .filter(|f| !before.contains(f))
            .map(|f| f.to_string())
            .collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            errors.push(Error::forbidden(&path.child("finalizers"), detail));
        }
    }
    if new.str_at(&["metadata", "resourceVersion"]).unwrap_or_default().is_empty() {
        errors.push(Error::invalid(&path.child("resourceVersion"), "", "must be specified for an update"));
    }
    let generation = |v: &Value| v.int_at(&["metadata", "generation"]).unwrap_or(0);
    if generation(new) < generation(old) {
        errors.push(Error::invalid(&path.child("generation"), generation(new), "must not be decremented"));
    }
    for name in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let value = &new["metadata"][name];
        if *value != old["metadata"][name] {
            errors.push(Error::invalid(&path.child(name), value, "field is immutable"));
        }
    }
    validate_common(new, &mut errors);
    errors
}

fn validate_common(object: &Value, errors: &mut Errors) {
    let path = Path::new("metadata");
    let metadata = &object["metadata"];
    if let Some(generation) = metadata.int_at(&["generation"]).filter(|g| *g < 0) {
        errors.push(Error::invalid(&path.child("generation"), generation, "must be greater than or equal to 0"));
    }
    if let Some(Value::Object(labels)) = metadata.get("labels") {
        selector::validate_labels(labels, &path.child("labels"), errors);
    }
    if let Some(Value::Object(annotations)) = metadata.get("annotations") {
        validate_annotations(annotations, &path.child("annotations"), errors);
    }
    validate_owners(metadata, &path.child("ownerReferences"), errors);
    validate_finalizers(metadata, &path.child("finalizers"), errors);
    validate_bare_finalizers(object, &path.child("finalizers"), errors);
    validate_managed_fields(metadata, &path.child("managedFields"), errors);
}

/// Checks the keys and the total size of annotations.
pub fn validate_annotations(annotations: &Map, path: &Path, errors: &mut Errors) {
    let mut bytes = 0;
    for (key, value) in annotations.iter() {
        // Compat: upper case is allowed in the prefix of an annotation's key, so upstream lowers the whole key.
        let wrong = names::qualified_name(&key.to_lowercase());
        errors.extend(wrong.into_iter().map(|m| Error::invalid(path, key, m)));
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > ANNOTATIONS_MAX_BYTES {
        errors.push(Error::too_long(path, ANNOTATIONS_MAX_BYTES));
    }
}

fn validate_owners(metadata: &Value, path: &Path, errors: &mut Errors) {
    let owners = metadata.array_at(&["ownerReferences"]);
    let mut controller: Option<String> = None;
    for (i, owner) in owners.iter().enumerate() {
        let at = path.index(i);
        let text = |name: &str| owner.str_at(&[name]).unwrap_or_default();
        let api_version = text("apiVersion");
        if api_version.is_empty() {
            errors.push(Error::required(&at.child("apiVersion"), "must not be empty"));
        } else if GroupVersion::parse(api_version).is_none() {
            let detail = "must be <group>/<version> or <version>";
            errors.push(Error::invalid(&at.child("apiVersion"), api_version, detail));
        }
        for name in ["kind", "name", "uid"] {
            if text(name).is_empty() {
                errors.push(Error::required(&at.child(name), "must not be empty"));
            }
        }
        if api_version == "v1" && text("kind") == "Event" {
            errors.push(Error::invalid(&at, owner, "/v1, Kind=Event is disallowed from being an owner"));
        }
        if owner.bool_at(&["controller"]) == Some(true) {
            let this = format!("{}/{}", text("kind"), text("name"));
            match &controller {
                Some(first) => {
                    let detail = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    );
                    errors.push(Error::invalid(path, &metadata["ownerReferences"], detail));
                }
                None => controller = Some(this),
            }
        }
    }
}

fn validate_finalizers(metadata: &Value, path: &Path, errors: &mut Errors) {
    let finalizers = metadata.array_at(&["finalizers"]);
    for finalizer in finalizers.iter().filter_map(Value::as_str) {
        let wrong = names::qualified_name(finalizer);
        errors.extend(wrong.into_iter().map(|m| Error::invalid(path, finalizer, m)));
    }
    let has = |name: &str| finalizers.iter().any(|f| f.as_str() == Some(name));
    if has("orphan") && has("foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(Error::invalid(path, &metadata["finalizers"], detail));
    }
}

/// Compat: built-in kinds take no other finalizers without a domain than these; custom resources do.
fn validate_bare_finalizers(object: &Value, path: &Path, errors: &mut Errors) {
    let text = |member: &str| object.str_at(&[member]).unwrap_or_default();
    let is_ours = || {
        let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
        // Definitions and API services are of other makers.
        !matches!(group, "apiextensions.k8s.io" | "apiregistration.k8s.io")
            && crate::resource::all_with_previews()
                .iter()
                .any(|r| r.kind == text("kind") && r.group == group && r.version == version)
    };
    for (i, finalizer) in object.array_at(&["metadata", "finalizers"]).iter().enumerate() {
        let name = finalizer.as_str().unwrap_or_default();
        errors.extend(bare_finalizer(name, &path.index(i)).filter(|_| is_ours()));
    }
}

/// The error of a finalizer without a domain that is none of the standard ones.
pub(super) fn bare_finalizer(name: &str, at: &Path) -> Option<Error> {
    let detail = "name is neither a standard finalizer name nor is it fully qualified";
    let stands = name.contains('/') || ["kubernetes", "orphan", "foregroundDeletion"].contains(&name);
    (!stands).then(|| Error::invalid(at, name, detail))
}

fn validate_managed_fields(metadata: &Value, path: &Path, errors: &mut Errors) {
    for (i, entry) in metadata.array_at(&["managedFields"]).iter().enumerate() {
        let at = path.index(i);
        let text = |name: &str| entry.str_at(&[name]).unwrap_or_default();
        if !["Apply", "Update"].contains(&text("operation")) {
            errors.push(Error::not_supported(&at.child("operation"), text("operation"), &["Apply", "Update"]));
        }
        if !["", "FieldsV1"].contains(&text("fieldsType")) {
            errors.push(Error::invalid(&at.child("fieldsType"), text("fieldsType"), "must be `FieldsV1`"));
        }
        errors.extend(validate_field_manager(text("manager"), &at.child("manager")));
    }
}

/// Checks the name of a field manager: short and printable.
pub fn validate_field_manager(manager: &str, path: &Path) -> Errors {
    if manager.len() > MANAGER_MAX_BYTES {
        return vec![Error::too_long(path, MANAGER_MAX_BYTES)];
    }
    let unprintable = manager.chars().enumerate().find(|(_, c)| c.is_control());
    let error = unprintable.map(|(i, c)| {
        let detail = format!("invalid character U+{:04X} (at position {i})", c as u32);
        Error::invalid(path, manager, detail)
    });
    error.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::json;

    #[test]
    fn faults_as_upstream() {
        let old = json!({"metadata":
            {"name": "a", "uid": "1", "generation": 2, "resourceVersion": "1", "deletionTimestamp": "t"}});
        golden::check!("object_meta.txt", |case| {
            let (verb, object) = case.split_once(" {").expect("VERB OBJECT");
            let object = meta::parse(format!("{{{object}").as_bytes()).expect("JSON");
            let errors = match verb {
                "update" => validate_update(&object, &old),
                _ => validate_create(&object, names::dns1123_subdomain, verb == "create"),
            };
            errors.iter().map(|e| format!("{e}\n")).collect()
        });
    }
}
