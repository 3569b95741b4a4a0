//! Puts an applied document over the live one, and takes away what is no longer applied.

use compact_str::CompactString;

use super::fields::is_here;
use super::shape::{Shape, Slot, items, members};
use crate::schema::TypeRef;
use crate::{Map, Value};

/// The live object with the applied one's fields set. A null leaves what has fields or items of its own.
pub(super) fn merge(live: &Value, applied: &Value, ty: TypeRef<'_>) -> Value {
    merge_at(Some(live), applied, Slot::root(ty))
}

fn merge_at(live: Option<&Value>, applied: &Value, slot: Slot<'_>) -> Value {
    match slot.shape(applied) {
        Shape::Leaf => match live {
            Some(live) if applied.is_null() && !matches!(slot.shape(live), Shape::Leaf) => live.clone(),
            _ => applied.clone(),
        },
        Shape::Fields => {
            let mut merged = members(live).clone();
            for (name, value) in members(Some(applied)).iter() {
                let value = merge_at(merged.get(name), value, slot.field(name));
                merged.insert(name, value);
            }
            Value::Object(merged)
        }
        Shape::Set | Shape::Keyed => merge_items(items(live), items(Some(applied)), slot),
    }
}

/// Items of both lists: the applied ones in their order, the others where they stood among them.
fn merge_items(live: &[Value], applied: &[Value], slot: Slot<'_>) -> Value {
    let steps = |list: &[Value]| list.iter().map(|item| slot.item_step(item)).collect::<Vec<CompactString>>();
    let (live_steps, applied_steps) = (steps(live), steps(applied));
    let mut merged = Vec::with_capacity(live.len().max(applied.len()));
    let (mut l, mut a) = (0, 0);
    while l < live.len() || a < applied.len() {
        // The next applied item that is live too: live items up to it go first, unless they are applied elsewhere.
        let next_shared = applied_steps[a..].iter().find(|s| live_steps.contains(s));
        if l < live.len() && Some(&live_steps[l]) != next_shared {
            if !applied_steps.contains(&live_steps[l]) {
                merged.push(live[l].clone());
            }
            l += 1;
            continue;
        }
        if a < applied.len() {
            let twin = live_steps.iter().position(|s| *s == applied_steps[a]);
            merged.push(merge_at(twin.map(|at| &live[at]), &applied[a], slot.item()));
            if twin.is_some() && twin == Some(l) {
                l += 1;
            }
            a += 1;
        }
    }
    Value::Array(merged)
}

/// Removes from `object` the fields of `last` that are not in `owned`. Declared fields stay for what is in `owned` below
/// them; items of lists and entries of maps go with all that others own below them, unless these own them too.
pub(super) fn prune(object: &mut Value, last: &Map, owned: &Map, ty: TypeRef<'_>) {
    prune_at(object, last, Some(owned), Slot::root(ty));
}

fn prune_at(value: &mut Value, last: &Map, owned: Option<&Map>, slot: Slot<'_>) {
    let shape = slot.shape(value);
    for (step, node) in last.iter().filter(|(step, _)| *step != ".") {
        let Some(node) = node.as_object() else { continue };
        let kept = owned.and_then(|o| o.get(step)).and_then(Value::as_object);
        match (&shape, step.strip_prefix("f:")) {
            (Shape::Fields, Some(name)) => {
                let child = slot.field(name);
                let Value::Object(fields) = value else { return };
                let gone = if child.named { kept.is_none() } else { is_given_up(node, kept) };
                if gone {
                    fields.remove(name);
                } else if let Some(below) = fields.get_mut(name) {
                    let before = below.is_empty();
                    prune_at(below, node, kept, child);
                    if !before && super::shape::is_empty_container(Some(below)) {
                        // Compat: what lost all it had stays, as null (custom resources then may not fit their schema).
                        *below = Value::Null;
                    }
                }
            }
            (Shape::Keyed | Shape::Set, None) => {
                let Value::Array(list) = value else { return };
                let Some(at) = list.iter().position(|item| slot.item_step(item) == step) else { continue };
                if is_given_up(node, kept) {
                    list.remove(at);
                } else {
                    prune_at(&mut list[at], node, kept, slot.item());
                }
            }
            _ => {}
        }
    }
}

fn is_given_up(node: &Map, kept: Option<&Map>) -> bool {
    is_here(node) && !kept.is_some_and(is_here)
}
