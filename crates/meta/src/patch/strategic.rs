//! Strategic merge patch: a merge patch that knows which lists are keyed, with directives for the rest.
//!
//! Source: "Update API Objects in Place Using kubectl patch" and the directive notes of sig-api-machinery. Invariant: no
//! directive (`$patch`, `$retainKeys`, `$setElementOrder/x`, `$deleteFromPrimitiveList/x`) reaches what was there before.

use super::{PatchError, go_text, go_type};
use crate::schema::{FieldRef, Kind, TypeRef};
use crate::{Map, Value};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

/// Applies `patch` to an object of type `ty`.
pub fn strategic_merge(document: &mut Value, patch: &Value, ty: TypeRef<'_>) -> Result<(), PatchError> {
    let Value::Object(patch) = patch else {
        return Err(malformed(format!(
            "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            patch.type_name()
        )));
    };
    // Compat: a strategic patch changes an object of a type, which says its kind itself.
    let kind: Vec<_> = ["apiVersion", "kind"].iter().filter_map(|m| Some((*m, document.get(m)?.clone()))).collect();
    merge_map(document.make_object(), patch, Some(ty))?;
    kind.into_iter().for_each(|(member, said)| document.set(&[member], said));
    Ok(())
}

fn unknown_directive(directive: &Value, patch: &Map) -> PatchError {
    // Compat: what Go's `%s` makes of something else than text.
    let directive = match directive {
        Value::Null => "%!s(<nil>)".into(),
        Value::Int(number) => format!("%!s(int64={number})"),
        Value::Float(number) => format!("%!s(float64={number})"),
        Value::Bool(truth) => format!("%!s(bool={truth})"),
        other => go_text(other),
    };
    let patch = go_text(&Value::Object(patch.clone()));
    PatchError::Broken(format!("unknown patch type: {directive} in map: {patch}"))
}

fn malformed(message: impl Into<String>) -> PatchError {
    PatchError::Malformed(message.into())
}

/// What the schema says about one member of an object.
#[derive(Clone, Copy, Default)]
struct Member<'s> {
    ty: Option<TypeRef<'s>>,
    field: Option<FieldRef<'s>>,
}

impl<'s> Member<'s> {
    fn of(ty: Option<TypeRef<'s>>, name: &str) -> Self {
        match ty {
            Some(ty) if ty.kind() == Kind::Struct => {
                let field = ty.field(name);
                Member { ty: field.map(FieldRef::ty), field }
            }
            Some(ty) => Member { ty: ty.child(name), field: None },
            None => Member::default(),
        }
    }

    fn merges_lists(self) -> bool {
        self.field.is_some_and(FieldRef::merges)
    }

    fn merge_key(self) -> Option<&'s str> {
        self.field.and_then(FieldRef::merge_key)
    }

    fn item(self) -> Option<TypeRef<'s>> {
        self.ty.and_then(TypeRef::element)
    }
}

fn merge_map(target: &mut Map, patch: &Map, ty: Option<TypeRef<'_>>) -> Result<(), PatchError> {
    if let Some(directive) = patch.get(PATCH) {
        match directive.as_str() {
            Some("replace") => {
                *target = patch.clone();
                target.remove(PATCH);
            }
            Some("delete") => *target = Map::new(),
            _ => {
                return Err(unknown_directive(directive, patch));
            }
        }
        return Ok(());
    }
    retain_keys(target, patch)?;
    for (key, order) in patch.iter() {
        if let Some(name) = key.strip_prefix(SET_ORDER) {
            check_order(ty, name, order, patch.get(name), target.get(name))?;
        }
    }
    for (key, value) in patch.iter().filter(|(key, _)| !key.starts_with(DELETE_FROM)) {
        if let Some(name) = key.strip_prefix(SET_ORDER) {
            // A list that the patch also changes is ordered when its own key comes.
            if !patch.contains_key(name) {
                order_existing(target, name, value, Member::of(ty, name))?;
            }
        } else if key != RETAIN_KEYS {
            merge_member(target, key, value, patch.get(&format!("{SET_ORDER}{key}")), Member::of(ty, key))?;
        }
    }
    for (key, value) in patch.iter() {
        if let Some(name) = key.strip_prefix(DELETE_FROM) {
            delete_from_primitives(target, name, value)?;
        }
    }
    Ok(())
}

fn merge_member(
    target: &mut Map,
    key: &str,
    value: &Value,
    order: Option<&Value>,
    member: Member<'_>,
) -> Result<(), PatchError> {
    if value.is_null() {
        target.remove(key);
        return Ok(());
    }
    match (target.get_mut(key), value) {
        (Some(Value::Object(old)), Value::Object(new)) => {
            if member.field.is_some_and(FieldRef::replaces) {
                *old = without_nulls(new);
                Ok(())
            } else {
                merge_map(old, new, member.ty)
            }
        }
        (Some(Value::Array(old)), Value::Array(new)) if member.merges_lists() => merge_list(old, new, order, member),
        (None | Some(_), new) => {
            if let Some(new) = plain(new) {
                target.insert(key, new);
            }
            Ok(())
        }
    }
}

/// A list of a patch names its items in the order that goes with it.
fn check_order(
    ty: Option<TypeRef<'_>>,
    name: &str,
    order: &Value,
    patch: Option<&Value>,
    target: Option<&Value>,
) -> Result<(), PatchError> {
    let broken = |why: String| Err(PatchError::Broken(why));
    let member = Member::of(ty, name);
    if let Some(ty) = ty.filter(|ty| ty.kind() == Kind::Struct && member.field.is_none()) {
        return broken(format!("unable to find api field in struct {} for the json field {name:?}", ty.name()));
    }
    let Value::Array(order) = order else {
        return broken(format!("expected a []interface {{}}, but received a {}", go_type(order)));
    };
    if patch.or(target).is_none() {
        return Ok(());
    }
    let merge_key = member.merge_key();
    if let Some(at) = order.iter().position(|item| merge_key.is_some() && !matches!(item, Value::Object(_))) {
        return broken(format!("value for key {at} is not a map"));
    }
    if let (Some(key), Some(nameless)) =
        (merge_key, order.iter().find(|item| merge_key.is_some_and(|key| item.get(key).is_none())))
    {
        return Err(nameless_item(nameless, key));
    }
    let Some(Value::Array(list)) = patch else { return Ok(()) };
    let mut rest = list.iter().filter(|item| item.get(PATCH).is_none()).peekable();
    for item in order {
        rest.next_if(|wanted| same(wanted, item, merge_key));
    }
    match rest.next() {
        None => Ok(()),
        Some(_) => broken(format!(
            "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
            go_text(&Value::Array(list.clone())),
            go_text(&Value::Array(order.clone()))
        )),
    }
}

/// Removes from the target what the patch's `$retainKeys` does not list.
fn retain_keys(target: &mut Map, patch: &Map) -> Result<(), PatchError> {
    let Some(list) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(kept) = list else {
        return Err(malformed("invalid patch format of retainKeys"));
    };
    let listed = |key: &str| kept.iter().any(|k| k.as_str() == Some(key));
    let mut given = patch.iter().filter(|(key, value)| !value.is_null() && !key.starts_with('$'));
    if given.any(|(key, _)| !listed(key)) {
        return Err(malformed("invalid patch format of retainKeys"));
    }
    target.retain(|key, _| listed(key));
    Ok(())
}

fn delete_from_primitives(target: &mut Map, name: &str, items: &Value) -> Result<(), PatchError> {
    if let Some(Value::Array(old)) = target.get_mut(name) {
        let Value::Array(items) = items else {
            return Err(malformed("invalid patch format of primitive list"));
        };
        old.retain(|item| !items.contains(item));
    }
    Ok(())
}

fn order_existing(target: &mut Map, name: &str, order: &Value, member: Member<'_>) -> Result<(), PatchError> {
    let Value::Array(order) = order else {
        return Err(malformed("invalid patch format of setElementOrder list"));
    };
    if let Some(Value::Array(old)) = target.get_mut(name)
        && member.merges_lists()
    {
        let before = old.clone();
        reorder(old, order, &before, member.merge_key());
    }
    Ok(())
}

/// Two items of a merged list are the same when their merge keys are; scalars when they are equal.
fn same(a: &Value, b: &Value, merge_key: Option<&str>) -> bool {
    match merge_key {
        Some(key) => matches!((a.get(key), b.get(key)), (Some(a), Some(b)) if a == b),
        None => a == b,
    }
}

fn merge_list(
    old: &mut Vec<Value>,
    new: &[Value],
    order: Option<&Value>,
    member: Member<'_>,
) -> Result<(), PatchError> {
    let before;
    let merge_key = member.merge_key();
    let mut named: Vec<Value> = Vec::new(); // the patch's items, for the order
    let objects = new.iter().chain(old.iter()).any(|item| matches!(item, Value::Object(_)));
    if objects && new.iter().chain(old.iter()).any(|item| !matches!(item, Value::Object(_))) {
        let lists = [go_text(&Value::Array(old.clone())), go_text(&Value::Array(new.to_vec()))];
        return Err(PatchError::Broken(format!("list element types are not identical: [{}]", lists.join(" "))));
    }
    if !objects {
        before = old.clone();
        for item in std::mem::take(old).iter().chain(new) {
            if !old.contains(item) {
                old.push(item.clone());
            }
        }
        named.extend(new.iter().cloned());
    } else {
        let Some(merge_key) = merge_key else {
            return Err(PatchError::DoesNotFit("cannot merge lists of objects without a merge key".into()));
        };
        let replace = new.iter().any(|item| item.str_at(&[PATCH]) == Some("replace"));
        if replace {
            old.clear();
        }
        if let Some(nameless) = old.iter().find(|item| !new.is_empty() && item.get(merge_key).is_none()) {
            return Err(nameless_item(nameless, merge_key));
        }
        // Directives come first: what is deleted may stand in the patch anew.
        let (directives, plain): (Vec<&Value>, Vec<&Value>) = new.iter().partition(|item| item.get(PATCH).is_some());
        for item in directives {
            merge_item(old, item, merge_key, member, replace)?;
        }
        before = old.clone();
        for item in plain {
            merge_item(old, item, merge_key, member, replace)?;
            named.push(item.clone());
        }
        if replace {
            return Ok(());
        }
    }
    match order {
        Some(Value::Array(order)) => reorder(old, order, &before, merge_key),
        Some(_) => return Err(malformed("invalid patch format of setElementOrder list")),
        None => reorder(old, &named, &before, merge_key),
    }
    Ok(())
}

fn nameless_item(item: &Value, key: &str) -> PatchError {
    PatchError::Broken(format!("map: {} does not contain declared merge key: {key}", go_text(item)))
}

fn merge_item(
    old: &mut Vec<Value>,
    item: &Value,
    merge_key: &str,
    member: Member<'_>,
    replace: bool,
) -> Result<(), PatchError> {
    let Value::Object(patch) = item else { return Ok(()) };
    let directive = patch.get(PATCH);
    if directive.and_then(Value::as_str) == Some("replace") {
        return Ok(()); // The item only says that the list is replaced.
    }
    if let Some(other) = directive.filter(|d| !matches!(d.as_str(), Some("delete" | "merge"))) {
        return Err(unknown_directive(other, patch));
    }
    let Some(key) = patch.get(merge_key) else {
        return Err(nameless_item(item, merge_key));
    };
    match directive {
        Some(Value::String(s)) if s == "delete" => {
            old.retain(|o| o.get(merge_key) != Some(key));
            return Ok(());
        }
        Some(Value::String(s)) if s == "merge" => {
            return Err(PatchError::Broken("merging lists cannot yet be specified in the patch".into()));
        }
        _ => {}
    }
    let found = if replace { None } else { old.iter_mut().find(|o| o.get(merge_key) == Some(key)) };
    match found {
        Some(existing) => merge_map(existing.make_object(), patch, member.item()),
        None => {
            // Compat: a new item is what it says, directives below it too, which are unknown fields then.
            old.push(item.clone());
            Ok(())
        }
    }
}

/// Orders a merged list: the items that `order` names as it names them, the others where they stood among them before.
fn reorder(list: &mut Vec<Value>, order: &[Value], before: &[Value], merge_key: Option<&str>) {
    let place = |item: &Value, among: &[Value]| among.iter().position(|o| same(o, item, merge_key));
    let (mut named, mut others): (Vec<_>, Vec<_>) =
        list.drain(..).map(|item| (place(&item, order), item)).partition(|(at, _)| at.is_some());
    named.sort_by_key(|(at, _)| *at); // stable
    for (at, item) in &mut others {
        *at = place(item, before);
    }
    others.sort_by_key(|(at, _)| at.unwrap_or(usize::MAX));
    let mut named = named.into_iter().map(|(_, item)| item).peekable();
    for (at, other) in others {
        // A named item goes first when it is new or stood further in front.
        while let Some(next) = named.peek() {
            let first = match place(next, before) {
                None => true,
                Some(was) => at.is_some_and(|at| was < at),
            };
            if !first {
                break;
            }
            list.extend(named.next());
        }
        list.push(other);
    }
    list.extend(named);
}

/// A value from the patch as the object gets it where there was none: no nulls inside new objects.
/// `None`: nothing comes of what says what becomes of it as a whole. Compat: other directives are unknown fields then.
fn plain(value: &Value) -> Option<Value> {
    match value {
        Value::Object(members) if members.contains_key(PATCH) => None,
        Value::Object(members) => Some(Value::Object(without_nulls(members))),
        Value::Array(items) => Some(Value::Array(items.iter().filter_map(plain).collect())),
        other => Some(other.clone()),
    }
}

fn without_nulls(members: &Map) -> Map {
    members.iter().filter(|(_, v)| !v.is_null()).filter_map(|(k, v)| Some((k.into(), plain(v)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{json, test_schema};

    #[test]
    fn merges_as_upstream() {
        golden::check!("../tests/strategic.txt", |case| {
            let (_, case) = case.split_once(": ").expect("a name");
            let (document, patch) = case.split_once(" + ").expect("a document and a patch");
            let spec = |text: &str| {
                let mut whole = Value::object();
                whole.set(&["spec"], crate::parse(text.as_bytes()).expect("JSON"));
                whole
            };
            let mut got = spec(document);
            match strategic_merge(&mut got, &spec(patch), test_schema::pod()) {
                Ok(()) => got["spec"].to_string(),
                Err(error) => format!("!{error}"),
            }
        });
        let refused = strategic_merge(&mut json!({}), &json!([]), test_schema::pod()).expect_err("a list");
        assert_eq!(refused.to_string(), "json: cannot unmarshal array into Go value of type map[string]interface {}");
    }
}
