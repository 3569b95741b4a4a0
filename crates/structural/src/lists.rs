//! Sets and keyed lists: no item twice, and which item of an old list is the same as one of a new list.
//!
//! Invariant: linear in the number of items: items are compared by the text of what tells them apart.

use std::collections::HashSet;

use meta::field::{Error, Errors, Path};
use meta::{Map, Value};

use crate::{ListType, Node};

/// The items that stand more than once, in every list of the value.
pub fn check(node: &Node, value: &Value) -> Errors {
    let mut errors = Errors::new();
    walk(node, value, &Path::default(), &mut errors);
    errors
}

fn walk(node: &Node, value: &Value, path: &Path, errors: &mut Errors) {
    match value {
        Value::Object(map) => {
            for (key, item) in map.iter() {
                if let Some(property) = node.property(key) {
                    walk(property, item, &path.child(key), errors);
                } else if let Some(values) = &node.values {
                    walk(values, item, &path.key(key), errors);
                }
            }
        }
        Value::Array(items) => {
            if matches!(node.list, ListType::Map(_)) {
                // Compat: upstream names the first, and leaves nulls to the schema.
                let other = items.iter().position(|item| item.as_object().is_none() && !item.is_null());
                let detail = "must be an object for an array of list-type map";
                errors.extend(other.map(|i| Error::invalid(&path.index(i), &items[i], detail)));
            }
            let mut seen = HashSet::new();
            for (i, item) in items.iter().enumerate() {
                let key = match &node.list {
                    ListType::Atomic => continue,
                    ListType::Set => item.clone(),
                    ListType::Map(_) if item.as_object().is_none() => continue,
                    ListType::Map(keys) => keys_of(node, keys, item),
                };
                if !seen.insert(key.to_string()) {
                    errors.push(Error::duplicate(&path.index(i), key));
                }
            }
            if let Some(node) = &node.items {
                items.iter().enumerate().for_each(|(i, item)| walk(node, item, &path.index(i), errors));
            }
        }
        _ => {}
    }
}

/// What tells an item apart: its keys, defaults standing in for missing ones.
fn keys_of(list: &Node, keys: &[String], item: &Value) -> Value {
    let default = |key: &str| list.items.as_ref()?.property(key)?.default.as_ref();
    let found = keys.iter().filter_map(|k| Some((k.as_str().into(), item.get(k).or_else(|| default(k))?.clone())));
    Value::Object(found.collect::<Map>())
}

/// The item of an old keyed list that has the keys of `item`.
pub fn counterpart<'o>(list: &Node, item: &Value, old: &'o [Value]) -> Option<&'o Value> {
    let ListType::Map(keys) = &list.list else { return None };
    let wanted = keys_of(list, keys, item);
    old.iter().find(|o| keys_of(list, keys, o) == wanted)
}
