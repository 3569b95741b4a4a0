//! What defaulting shares: an absent member, a null and (for text) an empty string count as unset.

use meta::Value;

/// Sets a text that is absent or empty.
pub fn text(value: &mut Value, member: &str, default: &str) {
    if value.str_at(&[member]).unwrap_or_default().is_empty() {
        value.set(&[member], default);
    }
}

/// Sets anything else that is absent.
pub fn unset(value: &mut Value, member: &str, default: impl Into<Value>) {
    value.set_default(&[member], default);
}

/// Calls `visit` on the object at `path`, if there is one.
pub fn at(value: &mut Value, path: &[&str], visit: impl FnOnce(&mut Value)) {
    if let Some(found) = value.at_mut(path)
        && found.as_object().is_some()
    {
        visit(found);
    }
}

/// Calls `visit` on every item of the list at `path`.
pub fn each(value: &mut Value, path: &[&str], visit: impl FnMut(&mut Value)) {
    if let Some(Value::Array(items)) = value.at_mut(path) {
        items.iter_mut().for_each(visit);
    }
}
