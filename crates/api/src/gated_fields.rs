//! Fields behind feature gates: while its gate is off, what a client sends of a field is dropped without a word, unless
//! the object that it changes already has something behind that gate.
//!
//! Reads `data/gated_fields.txt`. A field is named by its type, so templates and other holders need no lines of their own.
//! Invariant: a document that has nothing behind a gate stays as it is.

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

use meta::Value;
use meta::schema::{FieldRef, TypeId, TypeRef};

/// Whether a gate is on.
pub type Gates<'a> = &'a dyn Fn(&str) -> bool;

struct Gated {
    gate: &'static str,
    field: &'static str,
    /// The struct is not left behind empty.
    alone: bool,
    /// What it is where nothing is said, while the gate is on.
    default: Option<&'static str>,
}

/// A struct with gated fields, or on the way to one.
#[derive(Default)]
struct Holder {
    gated: Vec<Gated>,
    deeper: Vec<FieldRef<'static>>,
}

static HOLDERS: LazyLock<HashMap<TypeId, Holder>> = LazyLock::new(|| {
    let mut holders = read(include_str!("data/gated_fields.txt"));
    loop {
        let known = holders.len();
        for ty in crate::schema().named() {
            let deeper: Vec<_> = ty.fields().filter(|f| holders.contains_key(&item(f.ty()).id())).collect();
            if !deeper.is_empty() {
                holders.entry(ty.id()).or_default().deeper = deeper;
            }
        }
        if holders.len() == known {
            return holders;
        }
    }
});

fn read(text: &'static str) -> HashMap<TypeId, Holder> {
    let mut holders: HashMap<TypeId, Holder> = HashMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ');
        let (Some(gate), Some(group), Some((name, field))) =
            (words.next(), words.next(), words.next().and_then(|w| w.split_once('.')))
        else {
            continue;
        };
        let more = words.next();
        let (alone, default) = (more == Some("alone"), more.and_then(|word| word.strip_prefix("default=")));
        let package = format!("io.k8s.api.{group}.");
        for ty in crate::schema().named().filter(|ty| ty.name() == name && ty.package().starts_with(&package)) {
            holders.entry(ty.id()).or_default().gated.push(Gated { gate, field, alone, default });
        }
    }
    holders
}

/// What stands in lists and maps of this type, however deep; the type itself if it is neither.
fn item(ty: TypeRef<'static>) -> TypeRef<'static> {
    ty.element().map_or(ty, item)
}

/// Drops the fields of `new` whose gate is off and which `old`, the object before, had nothing of.
pub fn drop_fields(ty: TypeRef<'static>, new: &mut Value, old: Option<&Value>, gates: Gates) {
    let mut had = None;
    walk(ty, new, &mut |gate| !gates(gate) && !had.get_or_insert_with(|| used(ty, old)).contains(gate));
}

/// The defaults of a kind that stand behind a gate that is on: a member, a field of it, and its text.
pub fn defaults(ty: TypeRef<'static>, gates: Gates) -> Vec<(&'static str, &'static str, &'static str)> {
    let gated = |member: FieldRef<'static>| {
        let gated = HOLDERS.get(&member.ty().id()).into_iter().flat_map(|holder| &holder.gated);
        gated.map(move |gated| (member.name(), gated))
    };
    let all = ty.fields().flat_map(gated).filter(|(_, gated)| gates(gated.gate));
    all.filter_map(|(member, gated)| Some((member, gated.field, gated.default?))).collect()
}

/// The gates that the object has something behind.
fn used(ty: TypeRef<'static>, object: Option<&Value>) -> BTreeSet<&'static str> {
    let mut found = BTreeSet::new();
    if let Some(object) = object {
        walk(ty, &mut object.clone(), &mut |gate| {
            found.insert(gate);
            false
        });
    }
    found
}

/// Removes every field whose gate `goes`; answers whether the value itself is to go.
fn walk(ty: TypeRef<'static>, value: &mut Value, goes: &mut dyn FnMut(&'static str) -> bool) -> bool {
    match (value, ty.element()) {
        (Value::Array(items), Some(ty)) => items.iter_mut().for_each(|item| _ = walk(ty, item, goes)),
        (Value::Object(items), Some(ty)) => items.values_mut().for_each(|item| _ = walk(ty, item, goes)),
        (Value::Object(members), None) => {
            let Some(holder) = HOLDERS.get(&ty.id()) else { return false };
            for field in &holder.deeper {
                if members.get_mut(field.name()).is_some_and(|member| walk(field.ty(), member, goes)) {
                    members.remove(field.name());
                }
            }
            for gated in &holder.gated {
                if members.contains_key(gated.field) && goes(gated.gate) {
                    members.remove(gated.field);
                    if gated.alone && members.is_empty() {
                        return true;
                    }
                }
            }
        }
        _ => {}
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feature_gates;
    use meta::json;

    /// The gates as they are by default.
    const DEFAULT: Gates<'static> = &|gate| feature_gates::default_of(gate) == Some(true);

    #[test]
    fn every_line_names_a_field() {
        let text = include_str!("data/gated_fields.txt");
        let found: BTreeSet<(&str, &str)> = read(text)
            .iter()
            .flat_map(|(id, holder)| holder.gated.iter().map(|g| (crate::schema().get(*id), g)))
            .filter_map(|(ty, gated)| ty.field(gated.field).map(|_| (ty.name(), gated.field)))
            .collect();
        let off = |line: &str| feature_gates::default_of(line.split(' ').next().expect("a gate")) == Some(false);
        assert!(text.lines().filter(|line| !line.starts_with('#')).all(off), "a gate that is not off");
        assert_eq!(found.len(), text.lines().filter(|line| !line.starts_with('#')).count(), "{found:?}");
    }

    #[test]
    fn old_use_keeps_what_is_behind_a_gate() {
        let ty = crate::schema().find("io.k8s.api.core.v1.Pod").expect("Pod");
        let pod = |lifecycle: Value, mount: Value| json!({"spec": {"containers": [{"name": "c", "lifecycle": lifecycle, "volumeMounts": [mount]}]}});
        let signal = json!({"stopSignal": "SIGTERM"});
        let mount = json!({"name": "v", "bindMountOptions": ["noexec"]});
        let all = pod(signal.clone(), mount.clone());
        let mut plain = pod(Value::object(), json!({"name": "v"}));
        plain.at_mut(&["spec", "containers"]).and_then(Value::as_array_mut).expect("containers")[0]
            .remove(&["lifecycle"]);
        let signalled = pod(signal, json!({"name": "v"}));
        let only_stop: Gates = &|gate| gate == "ContainerStopSignals";
        for (old, gates, want) in [
            (None, DEFAULT, &plain),
            (Some(&plain), DEFAULT, &plain),
            (Some(&signalled), DEFAULT, &signalled),
            (Some(&all), DEFAULT, &all),
            (Some(&plain), only_stop, &signalled),
        ] {
            let mut new = all.clone();
            drop_fields(ty, &mut new, old, gates);
            assert_eq!(new, *want);
        }
    }
}
