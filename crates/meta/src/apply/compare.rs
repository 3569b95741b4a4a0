//! What changed between two versions of an object, and which fields a document sets, both as sets of fields.
//!
//! Pure; runs on every write. Invariant: equal documents give empty sets.

use std::cmp::Ordering;
use std::mem::discriminant;

use compact_str::CompactString;

use super::fields::{HERE, field_step};
use super::shape::{NAMELESS, Shape, Slot, is_empty_container, items, members};
use crate::schema::TypeRef;
use crate::{Map, Value};

/// The difference between two versions.
#[derive(Default, Debug, PartialEq)]
pub(super) struct Change {
    /// Added or changed.
    pub taken: Map,
    pub removed: Map,
    /// The new version holds empty lists, which are owned as what they are, and nothing once they are stored.
    pub empty_lists: bool,
    /// An item of a keyed list, in either version, has none of its keys.
    pub nameless: bool,
}

/// Compares two objects; null stands for no object.
pub(super) fn compare(old: &Value, new: &Value, ty: TypeRef<'_>) -> Change {
    let change = walk(Some(old).filter(|v| !v.is_null()), Some(new), Slot::root(ty), (true, true));
    Change {
        taken: change.taken.unwrap_or_default(),
        removed: change.removed.unwrap_or_default(),
        empty_lists: change.empty_lists,
        nameless: change.nameless,
    }
}

fn holds_empty_list(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty() || items.iter().any(holds_empty_list),
        Value::Object(map) => map.values().any(holds_empty_list),
        _ => false,
    }
}

#[derive(Default)]
struct Node {
    taken: Option<Map>,
    removed: Option<Map>,
    empty_lists: bool,
    nameless: bool,
}

/// `above` says whether the parent stands in the old and in the new version.
fn walk(old: Option<&Value>, new: Option<&Value>, slot: Slot<'_>, above: (bool, bool)) -> Node {
    let was = old.is_some() || (slot.always && above.0);
    let is = new.is_some() || (slot.always && above.1);
    let added = is && !was;
    let gone = was && !is;
    let [some_old, some_new] = [old, new].map(|value| value.filter(|value| !value.is_null()));
    let value = some_new.or(old).unwrap_or(&Value::Null);
    // What was a text, say, and is a map now changed itself, not only below.
    let turned = matches!((some_old, some_new), (Some(old), Some(new)) if discriminant(old) != discriminant(new));
    let shape = if is_empty_container(old) && is_empty_container(new) { Shape::Leaf } else { slot.shape(value) };
    let mut node = Node::default();
    match shape {
        Shape::Leaf => {
            let set = matches!((old, new), (None | Some(Value::Null), Some(Value::Array(_))));
            let changed = !same(old, new) || set && slot.is_always_list();
            node.empty_lists = changed && new.is_some_and(holds_empty_list);
            if added || (was && is && changed) {
                node.taken = Some(Map::new());
            } else if gone {
                node.removed = Some(Map::new());
            }
            if let Some(old) = old.filter(|old| changed && !matches!(slot.shape(old), Shape::Leaf)) {
                // What stood below something that has nothing below it now.
                node.removed = walk(Some(old), Some(&Value::Null), slot, above).removed;
            }
        }
        Shape::Fields => {
            let mut children = Children::with_capacity(members(new).len());
            merge_sorted(
                members(old).iter(),
                members(new).iter(),
                |a, b| a.0.cmp(b.0),
                |a, b| {
                    let name = a.or(b).map_or("", |(name, _)| name);
                    let change = walk(a.map(|(_, v)| v), b.map(|(_, v)| v), slot.field(name), (was, is));
                    children.push(|| field_step(name), change);
                },
            );
            children.into_node(added || turned, gone, &mut node);
        }
        Shape::Keyed | Shape::Set => {
            let (old, new) = (slot.steps(items(old)), slot.steps(items(new)));
            let nameless = old.iter().chain(&new).any(|(step, ..)| step == NAMELESS);
            let mut children = Children::with_capacity(new.len());
            merge_sorted(
                old.iter(),
                new.iter(),
                |a, b| a.0.cmp(&b.0),
                |a, b| {
                    let step = a.or(b).map_or(CompactString::default(), |(step, ..)| step.clone());
                    // Compat: items that share their keys are one field, whatever they hold.
                    let change = if [a, b].into_iter().flatten().all(|(_, _, further)| further.is_empty()) {
                        walk(a.map(|(_, v, _)| *v), b.map(|(_, v, _)| *v), slot.item(), (was, is))
                    } else if b.is_none() {
                        Node { removed: Some(Map::new()), ..Node::default() }
                    } else {
                        Node { taken: (a != b).then(Map::new), ..Node::default() }
                    };
                    children.push(|| step, change);
                },
            );
            children.into_node(added || turned, gone, &mut node);
            node.nameless |= nameless;
            node.empty_lists |= new.is_empty() && slot.is_always_list();
        }
    }
    node
}

/// Equal, where an absent value equals what Go writes for it.
fn same(old: Option<&Value>, new: Option<&Value>) -> bool {
    match (old, new) {
        (Some(a), Some(b)) => a == b || (a.is_empty() && b.is_empty() && (a.is_null() || b.is_null())),
        (Some(v), None) | (None, Some(v)) => v.is_empty(),
        (None, None) => true,
    }
}

/// Calls `visit` for the union of two sorted runs, equal entries together.
fn merge_sorted<T: Copy>(
    a: impl Iterator<Item = T>,
    b: impl Iterator<Item = T>,
    order: impl Fn(&T, &T) -> Ordering,
    mut visit: impl FnMut(Option<T>, Option<T>),
) {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    loop {
        let next = match (a.peek(), b.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(x), Some(y)) => order(x, y),
        };
        match next {
            Ordering::Less => visit(a.next(), None),
            Ordering::Greater => visit(None, b.next()),
            Ordering::Equal => visit(a.next(), b.next()),
        }
    }
}

/// Collects the changes below a node, in the order of their steps.
struct Children {
    taken: Vec<(CompactString, Value)>,
    removed: Vec<(CompactString, Value)>,
    empty_lists: bool,
    nameless: bool,
}

impl Children {
    fn with_capacity(taken: usize) -> Self {
        // Room for all and the node's own mark: on a creation everything is taken.
        Children { taken: Vec::with_capacity(taken + 1), removed: Vec::new(), empty_lists: false, nameless: false }
    }

    fn push(&mut self, step: impl FnOnce() -> CompactString, change: Node) {
        self.empty_lists |= change.empty_lists;
        self.nameless |= change.nameless;
        match (change.taken, change.removed) {
            (None, None) => {}
            (Some(taken), None) => self.taken.push((step(), Value::Object(taken))),
            (None, Some(removed)) => self.removed.push((step(), Value::Object(removed))),
            (Some(taken), Some(removed)) => {
                let step = step();
                self.taken.push((step.clone(), Value::Object(taken)));
                self.removed.push((step, Value::Object(removed)));
            }
        }
    }

    fn into_node(mut self, added: bool, gone: bool, node: &mut Node) {
        if added {
            self.taken.insert(0, (HERE.into(), Value::object()));
        }
        if gone {
            self.removed.insert(0, (HERE.into(), Value::object()));
        }
        // A mark alone is written as an empty node.
        let map = |entries: Vec<(CompactString, Value)>| match entries.as_slice() {
            [] => None,
            [(step, _)] if step == HERE => Some(Map::new()),
            _ => Some(entries.into_iter().collect()),
        };
        node.taken = map(self.taken);
        node.removed = map(self.removed);
        node.empty_lists = self.empty_lists;
        node.nameless = self.nameless;
    }
}
