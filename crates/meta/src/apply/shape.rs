//! How server-side apply sees a value: as a leaf, as fields, or as items that have a name.
//!
//! Asks the schema; where there is none, maps are granular and lists are atomic, as upstream deduces. Invariant: the
//! step of an item is the same text for equal keys, so sets can be compared as text.

use compact_str::CompactString;

use crate::json::write_string;
use crate::schema::{FieldRef, Kind, ListKind, TypeRef};
use crate::{Map, Value};

/// The step of an item that has none of its list's keys.
pub(super) const NAMELESS: &str = "k:{}";

/// The type at one place of an object.
#[derive(Clone, Copy)]
pub(super) struct Slot<'s> {
    pub ty: Option<TypeRef<'s>>,
    /// The field says that it is replaced as a whole.
    atomic: bool,
    /// Go writes the field although nobody set it, so it never comes into being.
    pub always: bool,
    /// The field is declared, not a key of a map.
    pub named: bool,
}

/// What a value is made of.
pub(super) enum Shape {
    Leaf,
    /// Fields of a struct or entries of a map.
    Fields,
    /// Items told apart by keys.
    Keyed,
    /// Items told apart by value.
    Set,
}

impl<'s> Slot<'s> {
    pub fn root(ty: TypeRef<'s>) -> Self {
        Slot { ty: Some(ty), atomic: false, always: true, named: true }
    }

    const UNKNOWN: Slot<'static> = Slot { ty: None, atomic: false, always: false, named: false };

    fn of_field(field: FieldRef<'s>) -> Self {
        let always = field.is_written_when_unset();
        Slot { ty: Some(field.ty()), atomic: field.is_atomic(), always, named: true }
    }

    pub fn field(self, name: &str) -> Slot<'s> {
        match self.ty {
            Some(ty) if ty.kind() == Kind::Struct => ty.field(name).map_or(Self::UNKNOWN, Self::of_field),
            Some(ty) => Slot { ty: ty.child(name), ..Self::UNKNOWN },
            None => Self::UNKNOWN,
        }
    }

    pub fn item(self) -> Slot<'s> {
        Slot { ty: self.ty.and_then(TypeRef::element), ..Self::UNKNOWN }
    }

    /// A list that is null until somebody sets it, were it to nothing.
    pub fn is_always_list(self) -> bool {
        self.always && self.ty.is_some_and(|ty| matches!(ty.kind(), Kind::List(_)))
    }

    pub fn shape(self, value: &Value) -> Shape {
        if self.atomic {
            return Shape::Leaf;
        }
        match (self.ty, value) {
            (Some(ty), Value::Array(_)) => match ty.kind() {
                Kind::List(ListKind::Map) => Shape::Keyed,
                Kind::List(ListKind::Set) => Shape::Set,
                _ => Shape::Leaf,
            },
            // A field says for itself whether it is atomic, whatever its type is elsewhere.
            (Some(ty), Value::Object(_)) if ty.is_atomic() && !self.named => Shape::Leaf,
            (_, Value::Object(_)) => Shape::Fields,
            _ => Shape::Leaf,
        }
    }

    /// The step that names an item of a keyed list or of a set.
    pub fn item_step(self, item: &Value) -> CompactString {
        let mut out = Vec::with_capacity(40);
        match self.ty {
            Some(ty) if ty.kind() == Kind::List(ListKind::Map) => {
                let mut keys: Vec<&str> = ty.list_keys().collect();
                keys.sort_unstable();
                out.extend_from_slice(b"k:{");
                let mut first = true;
                for key in keys {
                    let default;
                    let value = match item.get(key) {
                        Some(value) => value,
                        None => match ty.element().and_then(|e| e.field(key)).and_then(FieldRef::default) {
                            Some(value) => {
                                default = value;
                                &default
                            }
                            None => continue,
                        },
                    };
                    if !first {
                        out.push(b',');
                    }
                    first = false;
                    write_string(&mut out, key);
                    out.push(b':');
                    value.write_to(&mut out);
                }
                out.push(b'}');
            }
            _ => {
                out.extend_from_slice(b"v:");
                item.write_to(&mut out);
            }
        }
        CompactString::from_utf8_lossy(&out)
    }

    /// The items of a keyed list or set with their steps, sorted by step; then further items of that step.
    pub fn steps(self, items: &[Value]) -> Vec<(CompactString, &Value, Vec<&Value>)> {
        let mut steps: Vec<_> = items.iter().map(|item| (self.item_step(item), item, Vec::new())).collect();
        steps.sort_by(|a, b| a.0.cmp(&b.0)); // stable
        steps.dedup_by(|again, first| {
            let same = again.0 == first.0;
            if same {
                first.2.push(again.1);
            }
            same
        });
        steps
    }
}

/// Fields, items and members all end up as steps; an empty one is a leaf.
pub(super) fn is_empty_container(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(a)) => a.is_empty(),
        Some(Value::Object(m)) => m.is_empty(),
        _ => false,
    }
}

pub(super) fn forget_empty_lists(value: &mut Value, slot: Slot<'_>) {
    match value {
        Value::Array(items) if items.is_empty() && slot.is_always_list() => *value = Value::Null,
        Value::Array(items) => items.iter_mut().for_each(|item| forget_empty_lists(item, slot.item())),
        Value::Object(map) => map.iter_mut().for_each(|(name, member)| forget_empty_lists(member, slot.field(name))),
        _ => {}
    }
}

static EMPTY: Map = Map::new();

/// The members of an object; none for anything else.
pub(super) fn members(value: Option<&Value>) -> &Map {
    value.and_then(Value::as_object).unwrap_or(&EMPTY)
}

/// The items of a list; none for anything else.
pub(super) fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
