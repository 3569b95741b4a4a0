//! Whole objects inside of custom resources (`x-kubernetes-embedded-resource`): their apiVersion, kind and metadata.
//!
//! Invariant: the root object's own metadata is checked elsewhere, with that of all kinds.

use meta::field::{Error, Errors, Path};
use meta::gvk::GroupVersion;
use meta::{Value, names, selector};

use crate::Node;

pub fn check(node: &Node, value: &Value, path: &str, root: bool, errors: &mut Errors) {
    match value {
        Value::Object(map) => {
            if node.embedded && !root {
                object(value, &Path::new(path), errors);
            }
            for (key, item) in map.iter() {
                let Some(child) = node.child(key) else { continue };
                let below = if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
                check(child, item, &below, false, errors);
            }
        }
        Value::Array(items) => {
            let Some(node) = &node.items else { return };
            for (i, item) in items.iter().enumerate() {
                check(node, item, &format!("{path}[{i}]"), false, errors);
            }
        }
        _ => {}
    }
}

fn object(value: &Value, path: &Path, errors: &mut Errors) {
    let mut text = |name: &str| {
        let at = path.child(name);
        match value.get(name) {
            None => errors.push(Error::required(&at, "")),
            Some(Value::String(s)) if s.is_empty() => errors.push(Error::invalid(&at, "", "must not be empty")),
            Some(Value::String(s)) => return s.as_str(),
            Some(other) => errors.push(Error::invalid(&at, other, "must be a string")),
        }
        ""
    };
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if !api_version.is_empty() && GroupVersion::parse(api_version).is_none() {
        let detail = format!("unexpected GroupVersion string: {api_version}");
        errors.push(Error::invalid(&path.child("apiVersion"), api_version, detail));
    }
    if !kind.is_empty() {
        let wrong = names::dns1035_label(&kind.to_lowercase());
        let detail = |m: String| format!("may have mixed case, but should otherwise match: {m}");
        errors.extend(wrong.into_iter().map(|m| Error::invalid(&path.child("kind"), kind, detail(m))));
    }
    let path = path.child("metadata");
    let metadata = &value["metadata"];
    if let Some(other) = value.get("metadata").filter(|m| m.as_object().is_none()) {
        errors.push(Error::type_invalid(&path, other, "must be an object"));
    }
    for member in ["name", "namespace", "generateName"] {
        if let Some(name) = metadata.str_at(&[member]) {
            let wrong = names::path_segment(name);
            errors.extend(wrong.into_iter().map(|m| Error::invalid(&path.child(member), name, m)));
        }
    }
    if let Some(Value::Object(labels)) = metadata.get("labels") {
        selector::validate_labels(labels, &path.child("labels"), errors);
    }
}
