//! The fields that an applied document sets, once it is known to fit its type.
//!
//! Pure. Invariant: what fits has a step of its own for every item of a keyed list and of a set. The words of misfits are
//! upstream's, which shows values as Go prints them.

use compact_str::CompactString;

use super::fields::{HERE, field_step, step_text};
use super::shape::{NAMELESS, Shape, Slot, items, members};
use crate::patch::{go_text, go_type};
use crate::schema::{Kind, ListKind, Scalar, TypeRef};
use crate::{Map, Value};

pub(super) fn fields_of(document: &Value, ty: TypeRef<'_>) -> Result<Map, String> {
    let mut misfits = Vec::new();
    check(document, Slot::root(ty), "", &mut misfits);
    match misfits.as_slice() {
        [] => Ok(fields_at(document, Slot::root(ty)).unwrap_or_default()),
        [one] => Err(one.clone()),
        many => Err(format!("errors:\n  {}", many.join("\n  "))),
    }
}

fn check(value: &Value, slot: Slot<'_>, path: &str, misfits: &mut Vec<String>) {
    let Some(ty) = slot.ty.filter(|_| !value.is_null()) else { return };
    if let Some(why) = misfit(value, ty) {
        return misfits.push(format!("{path}: {why}"));
    }
    for (name, member) in members(Some(value)).iter() {
        if ty.kind() == Kind::Struct && ty.field(name).is_none() && !ty.preserves_unknown() {
            // Compat: upstream looks no further in the object that holds it.
            return misfits.push(format!("{path}.{name}: field not declared in schema"));
        }
        check(member, slot.field(name), &format!("{path}.{name}"), misfits);
    }
    let Kind::List(kind) = ty.kind() else { return };
    let mut seen: Vec<CompactString> = Vec::new();
    for (at, item) in items(Some(value)).iter().enumerate() {
        let why = match (kind, item) {
            (ListKind::Atomic, _) => None,
            (ListKind::Set, Value::Null) => {
                Some("associative list without keys has an element that's an explicit null".to_string())
            }
            (ListKind::Map, Value::Null) => Some("associative list with keys may not have a null element".to_string()),
            (ListKind::Map, Value::Object(_)) if slot.item_step(item) == NAMELESS => {
                let keys: Vec<String> = ty.list_keys().map(|key| format!("{key:?}")).collect();
                Some(format!(
                    "associative list with keys has an element that omits all key fields [{}] (and doesn't have default \
                     values for any key fields)",
                    keys.join(" ")
                ))
            }
            (ListKind::Map, Value::Object(_)) | (ListKind::Set, _) => None,
            (ListKind::Map, _) => Some("associative list with keys may not have non-map elements".to_string()),
        };
        if let Some(why) = why {
            misfits.push(format!("{path}: element {at}: {why}"));
            // Compat: of a keyed list the first such item is the last that upstream looks at.
            if kind == ListKind::Map {
                return;
            }
            continue;
        }
        let mut below = format!("{path}[{at}]");
        if kind != ListKind::Atomic {
            let step = slot.item_step(item);
            below = format!("{path}{}", step_text(&step));
            if seen.contains(&step) {
                misfits.push(format!("{path}: duplicate entries for key {}", step_text(&step)));
            }
            seen.push(step);
        }
        check(item, slot.item(), &below, misfits);
    }
}

/// Why a value is not of a kind that its type can have at all.
fn misfit(value: &Value, ty: TypeRef<'_>) -> Option<String> {
    use Scalar::*;
    let (fits, expected) = match ty.kind() {
        Kind::Struct | Kind::Map => (matches!(value, Value::Object(_)), "map"),
        Kind::List(_) => (matches!(value, Value::Array(_)), "list"),
        Kind::Scalar(Bool) => (matches!(value, Value::Bool(_)), "boolean"),
        Kind::Scalar(String | Bytes) => {
            let shown = || format!("expected string, got &value.valueUnstructured{{Value:{}}}", go_syntax(value));
            return value.as_str().is_none().then(shown);
        }
        Kind::Scalar(Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 | Float64) => {
            let fits = matches!(value, Value::Int(_) | Value::Float(_));
            return (!fits).then(|| format!("expected numeric (int or float), got {}", go_type(value)));
        }
        _ => return None,
    };
    (!fits).then(|| format!("expected {expected}, got &{{{}}}", go_text(value)))
}

/// A value as Go's `%#v` prints it.
fn go_syntax(value: &Value) -> String {
    let parts: Vec<String> = match value {
        Value::Object(map) => map.iter().map(|(key, value)| format!("{key:?}:{}", go_syntax(value))).collect(),
        Value::Array(items) => items.iter().map(go_syntax).collect(),
        other => return other.to_string(),
    };
    format!("{}{{{}}}", go_type(value), parts.join(", "))
}

/// `None`: the value sets nothing, as an empty list of items does.
fn fields_at(value: &Value, slot: Slot<'_>) -> Option<Map> {
    let set: Map = match slot.shape(value) {
        Shape::Leaf => return Some(Map::new()),
        Shape::Fields if value.is_empty() => return Some(Map::new()),
        Shape::Fields => members(Some(value))
            .iter()
            .filter_map(|(name, member)| {
                let child = slot.field(name);
                let below = fields_at(member, child);
                let below = if child.named { below? } else { with_itself(below) };
                Some((field_step(name), Value::Object(below)))
            })
            .collect(),
        Shape::Set => items(Some(value)).iter().map(|item| (slot.item_step(item), Value::object())).collect(),
        Shape::Keyed => items(Some(value))
            .iter()
            .map(|item| (slot.item_step(item), Value::Object(with_itself(fields_at(item, slot.item())))))
            .collect(),
    };
    Some(set).filter(|set| !set.is_empty())
}

/// Keys of maps and items of lists are fields themselves, whatever stands below them.
fn with_itself(set: Option<Map>) -> Map {
    let mut set = set.unwrap_or_default();
    if !set.is_empty() {
        set.insert(HERE, Value::object());
    }
    set
}
