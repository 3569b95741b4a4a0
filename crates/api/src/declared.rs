//! Validation that types declare: a table instead of code, for kinds and fields that upstream has no hand-written
//! validation of.
//!
//! Reads `data/declared.txt`, which is made of the `+k8s:` tags of the API's types. Source: KEP-5073, declarative
//! validation. Invariant: what an update leaves as it was is not looked at again.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::LazyLock;

use meta::field::{Error, Errors, Path};
use meta::{Value, names};

/// A group's folder in the published API, and a type.
pub type TypeName = (&'static str, &'static str);

struct Field {
    name: &'static str,
    /// Zero and an empty text are values.
    is_pointer: bool,
    is_list: bool,
    item: TypeName,
    checks: Vec<Check>,
    /// What makes two items of a list the same.
    keys: Vec<&'static str>,
    /// One of those of which exactly one is set.
    is_member: bool,
}

enum Check {
    Required,
    Immutable,
    NoSet,
    NoUnset,
    NoModify,
    NoAddItem,
    NoRemoveItem,
    /// A number that only grows.
    Monotonic,
    Minimum(i64),
    Maximum(i64),
    MaxItems(usize),
    MaxBytes(usize),
    MaxLength(usize),
    Enum(Vec<&'static str>),
    Format(fn(&str) -> Vec<String>),
    PoolName,
    /// Not among `OWN_PRIORITIES`.
    OpenPriority,
}

static TYPES: LazyLock<HashMap<TypeName, Vec<Field>>> = LazyLock::new(|| {
    let mut types: HashMap<TypeName, Vec<Field>> = HashMap::new();
    let mut holder = ("", "");
    for line in include_str!("data/declared.txt").lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.trim_start().split(' ');
        match (words.next(), words.next()) {
            (Some(name), Some(ty)) if line.starts_with(' ') => {
                let item = (holder.0, ty.trim_start_matches(['*', '[', ']']));
                let mut field = Field {
                    name,
                    is_pointer: ty.starts_with('*'),
                    is_list: ty.starts_with('['),
                    item,
                    checks: vec![],
                    keys: vec![],
                    is_member: false,
                };
                for word in words {
                    match word.split_once('=').unwrap_or((word, "")) {
                        ("optional", _) => {}
                        ("unionMember", _) => field.is_member = true,
                        ("key", key) => field.keys.push(key),
                        ("custom", _) => field.checks.extend(custom_check(holder, name)),
                        (word, value) => field.checks.push(check_named(word, value)),
                    }
                }
                types.entry(holder).or_default().push(field);
            }
            (Some("group"), Some(group)) => holder.0 = group,
            (Some("type"), Some(name)) => holder.1 = name,
            _ => {}
        }
    }
    types
});

/// What a field is checked for that is declared to have a function for it; kinds may do it themselves.
fn custom_check(holder: TypeName, field: &str) -> Option<Check> {
    match (holder, field) {
        (("core", "EvictionResponder"), "name") | (("lifecycle", "EvictionRequestSpec"), "requester") => {
            Some(Check::Format(open_domain))
        }
        (("core", "EvictionResponder"), "priority") => Some(Check::OpenPriority),
        _ => None,
    }
}

fn check_named(word: &str, value: &'static str) -> Check {
    let number = || value.parse().expect("a number");
    let size = || value.parse().expect("a size");
    match word {
        "required" => Check::Required,
        "immutable" => Check::Immutable,
        "NoSet" => Check::NoSet,
        "NoUnset" => Check::NoUnset,
        "NoModify" => Check::NoModify,
        "monotonic" => Check::Monotonic,
        "NoAddItem" => Check::NoAddItem,
        "NoRemoveItem" => Check::NoRemoveItem,
        "minimum" => Check::Minimum(number()),
        "maximum" => Check::Maximum(number()),
        "maxItems" => Check::MaxItems(size()),
        "maxBytes" => Check::MaxBytes(size()),
        "maxLength" => Check::MaxLength(size()),
        "enum" => Check::Enum(value.split(',').collect()),
        "format" => match value {
            "k8s-long-name" => Check::Format(long_name),
            "k8s-long-name-caseless" => Check::Format(names::caseless_subdomain),
            "k8s-short-name" => Check::Format(names::dns1123_label),
            "k8s-label-key" => Check::Format(names::qualified_name),
            "k8s-prefixed-label-key" => Check::Format(prefixed_key),
            "k8s-uuid" => Check::Format(uuid),
            "k8s-path-segment-name" => Check::Format(names::path_segment),
            "k8s-resource-fully-qualified-name" => Check::Format(names::fully_qualified),
            "k8s-resource-pool-name" => Check::PoolName,
            _ => unreachable!("no format {value}"),
        },
        _ => unreachable!("no check {word}"),
    }
}

/// As `names::dns1123_subdomain`, with what is declared to be too long so in bytes.
pub fn long_name(s: &str) -> Vec<String> {
    names::dns1123_subdomain(s).into_iter().map(in_bytes).collect()
}

fn in_bytes(fault: String) -> String {
    fault.replace("no more than 253 characters", "no more than 253 bytes")
}

fn prefixed_key(s: &str) -> Vec<String> {
    let mut wrong: Vec<String> = names::qualified_name(s).into_iter().map(in_bytes).collect();
    if wrong.is_empty() && !s.contains('/') {
        wrong.push("must include a prefix (e.g. 'example.com/key')".into());
    }
    wrong
}

fn uuid(s: &str) -> Vec<String> {
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let mut parts = s.split('-');
    let fits = |length: usize, part: Option<&str>| part.is_some_and(|p| p.len() == length && p.bytes().all(is_hex));
    let is = [8, 4, 4, 4, 12].into_iter().all(|length| fits(length, parts.next())) && parts.next().is_none();
    if is { vec![] } else { vec!["must be a lowercase UUID in 8-4-4-4-12 format".into()] }
}

/// Of a prefixed key whose domain may not be Kubernetes' own.
fn open_domain(key: &str) -> Vec<String> {
    let domain = key.split('/').next().unwrap_or_default().trim_end_matches('.').to_lowercase();
    let own = ["k8s.io", "kubernetes.io"];
    let is_own = own.iter().any(|own| domain.strip_suffix(own).is_some_and(|sub| sub.is_empty() || sub.ends_with('.')));
    if is_own { vec!["domain names *.k8s.io, *.kubernetes.io are reserved".into()] } else { vec![] }
}

/// Priorities of responders that only Kubernetes' own have.
pub const OWN_PRIORITIES: RangeInclusive<i64> = 0..=999;
pub const OWN_PRIORITIES_DETAIL: &str = "priorities 0-999 are reserved for responders with *.k8s.io suffix";

/// Checks what stands at this path of an object, a value of this type, that is to be created, or to replace that of `old`.
pub fn check(ty: TypeName, at: &Path, new: &Value, old: Option<&Value>, errors: &mut Errors) {
    check_struct(ty, new, old, at, errors);
}

fn check_struct(ty: TypeName, new: &Value, old: Option<&Value>, at: &Path, errors: &mut Errors) {
    let fields = TYPES.get(&ty).map_or(&[][..], Vec::as_slice);
    check_union(fields, new, old, at, errors);
    for field in fields {
        let (value, before) = (&new[field.name], old.map(|old| &old[field.name]));
        let same = before.is_some_and(|before| before == value || !field.is_set(before) && !field.is_set(value));
        if !same && field.check(value, before, &at.child(field.name), errors) {
            field.go_deeper(value, before, &at.child(field.name), errors);
        }
    }
}

/// Of the members of a union, exactly one is set; an update that leaves it at those that were is fine.
fn check_union(fields: &[Field], new: &Value, old: Option<&Value>, at: &Path, errors: &mut Errors) {
    let members = || fields.iter().filter(|field| field.is_member);
    let set_in = |object: &Value| -> Vec<&str> {
        members().filter(|field| field.is_set(&object[field.name])).map(|field| field.name).collect()
    };
    let set = set_in(new);
    if members().next().is_none() || set.len() == 1 || old.is_some_and(|old| set_in(old) == set) {
        return;
    }
    let all = members().map(|field| format!("`{}`", field.name)).collect::<Vec<_>>().join(", ");
    let (shown, how) = match set.is_empty() {
        true => (String::new(), "must specify one of"),
        false => (format!("{{{}}}", set.join(", ")), "must specify exactly one of"),
    };
    errors.push(Error::invalid(at, shown, format!("{how}: {all}")));
}

impl Field {
    fn is_set(&self, value: &Value) -> bool {
        match value {
            Value::Null => false,
            Value::Array(items) => !items.is_empty(),
            Value::Object(_) => true,
            Value::String(text) => self.is_pointer || !text.is_empty(),
            scalar => self.is_pointer || scalar.as_i64() != Some(0),
        }
    }

    /// Checks the field itself; answers whether to look at what stands below it.
    fn check(&self, value: &Value, before: Option<&Value>, at: &Path, errors: &mut Errors) -> bool {
        let (is_set, was_set) = (self.is_set(value), before.map(|before| self.is_set(before)));
        let fixed = |what: &str| Error::invalid(at, Value::Null, what);
        let known = errors.len();
        if was_set.is_some() && self.checks.iter().any(|check| matches!(check, Check::Immutable)) {
            errors.push(fixed("field is immutable"));
        }
        for check in &self.checks {
            match (check, was_set, is_set) {
                (Check::NoSet, Some(false), true) => errors.push(fixed("field cannot be set once created")),
                (Check::NoUnset, Some(true), false) => errors.push(fixed("field cannot be cleared once set")),
                (Check::NoModify, Some(true), true) => errors.push(fixed("field cannot be modified once set")),
                (Check::Required, _, false) => errors.push(Error::required(at, "")),
                (Check::MaxItems(max), ..) if items(value).len() > *max => {
                    errors.push(Error::too_many(at, items(value).len(), *max));
                }
                _ => {}
            }
        }
        if errors.len() > known {
            return false;
        }
        for check in &self.checks {
            self.check_value(check, value, before, at, errors);
        }
        // A struct that is not given is an empty one.
        is_set || !(self.is_pointer || self.is_list)
    }

    fn check_value(&self, check: &Check, value: &Value, before: Option<&Value>, at: &Path, errors: &mut Errors) {
        let number = value.as_i64();
        let text = value.as_str().filter(|_| self.is_set(value));
        let mut refuse = |is: bool, what: String| {
            if is {
                errors.push(Error::invalid(at, value, what));
            }
        };
        match check {
            Check::Minimum(least) => {
                refuse(number.is_some_and(|n| n < *least), format!("must be greater than or equal to {least}"))
            }
            Check::Maximum(most) => {
                refuse(number.is_some_and(|n| n > *most), format!("must be less than or equal to {most}"))
            }
            Check::Monotonic => {
                let past = before.and_then(Value::as_i64).unwrap_or(i64::MIN);
                refuse(number.is_some_and(|n| n < past), format!("may not be decreased from {past}"))
            }
            Check::Format(faults) => {
                text.map(faults).unwrap_or_default().into_iter().for_each(|fault| refuse(true, fault))
            }
            Check::OpenPriority => {
                refuse(number.is_some_and(|n| OWN_PRIORITIES.contains(&n)), OWN_PRIORITIES_DETAIL.into())
            }
            Check::PoolName => check_pool_name(text.unwrap_or("x"), at, errors),
            Check::MaxBytes(max) if text.is_some_and(|text| text.len() > *max) => {
                errors.push(Error::too_long(at, *max))
            }
            Check::MaxLength(max) if text.is_some_and(|text| text.chars().count() > *max) => {
                errors.push(Error::too_long(at, *max).with_unit("characters"))
            }
            Check::Enum(values) if text.is_some_and(|text| !values.contains(&text)) => {
                errors.push(Error::not_supported(at, value, values))
            }
            Check::NoAddItem => {
                for (i, item) in items(value).iter().enumerate() {
                    if before.is_some_and(|before| self.twin(item, before).is_none()) {
                        errors.push(Error::forbidden(&at.index(i), "item may not be added"));
                    }
                }
            }
            Check::NoRemoveItem => {
                let gone = |item: &Value| self.twin(item, value).is_none();
                if items(before.unwrap_or(&Value::Null)).iter().any(gone) {
                    errors.push(Error::forbidden(at, "item may not be removed"));
                }
            }
            _ => {}
        }
    }

    /// The item of a list that has the same keys.
    fn twin<'v>(&self, item: &Value, list: &'v Value) -> Option<&'v Value> {
        items(list).iter().find(|other| self.keys.iter().all(|key| item[*key] == other[*key]))
    }

    /// An item as a message shows it, its members in the order of the type.
    fn shown(&self, item: &Value) -> String {
        let fields = TYPES.get(&self.item).map_or(&[][..], Vec::as_slice).iter();
        let members = fields.filter_map(|field| Some(format!("\"{}\":{}", field.name, item.get(field.name)?)));
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    }

    fn go_deeper(&self, value: &Value, before: Option<&Value>, at: &Path, errors: &mut Errors) {
        let Value::Array(all) = value else {
            // Nothing in what was not there counts as unchanged.
            let before = before.filter(|before| !self.is_pointer || self.is_set(before));
            return check_struct(self.item, value, before, at, errors);
        };
        for (i, item) in all.iter().enumerate().filter(|_| !self.keys.is_empty()) {
            if self.twin(item, value).is_some_and(|first| !std::ptr::eq(first, item)) {
                errors.push(Error::duplicate_raw(&at.index(i), &self.shown(item)));
            }
        }
        for (i, item) in all.iter().enumerate() {
            let twin = before.filter(|_| !self.keys.is_empty()).and_then(|before| self.twin(item, before));
            let known = before.is_some_and(|before| items(before).contains(item));
            if !known {
                check_struct(self.item, item, twin, &at.index(i), errors);
            }
        }
    }
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}

fn check_pool_name(name: &str, at: &Path, errors: &mut Errors) {
    if name.len() > 253 {
        errors.push(Error::too_long(at, 253));
    }
    for (i, segment) in name.split('/').enumerate() {
        match segment.is_empty() {
            true => errors.push(Error::invalid(at, name, format!("segment {i}: must not be empty"))),
            false => {
                let faults = names::dns1123_subdomain(segment);
                errors.extend(faults.into_iter().map(|m| Error::invalid(at, segment, format!("segment {i}: {m}"))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::json;

    #[test]
    fn every_line_is_understood() {
        let fields: usize = TYPES.values().map(Vec::len).sum();
        let of_fields = include_str!("data/declared.txt").lines().filter(|line| line.starts_with(' '));
        assert_eq!(fields, of_fields.count());
    }

    #[test]
    fn what_did_not_change_is_not_looked_at_again() {
        let group =
            |claims: Value| json!({"spec": {"schedulingPolicy": {"gang": {"minCount": 0}}, "resourceClaims": claims}});
        let old = group(json!([]));
        let told = |new: &Value, old: Option<&Value>| {
            let mut errors = Errors::new();
            check(("scheduling", "PodGroup"), &Path::default(), new, old, &mut errors);
            errors.iter().map(Error::to_string).collect::<Vec<_>>()
        };
        assert_eq!(told(&old, None), ["spec.schedulingPolicy.gang.minCount: Required value"]);
        assert_eq!(told(&old, Some(&old)), [""; 0]);
        let new = group(json!([{"name": "a", "resourceClaimName": "b"}]));
        assert_eq!(told(&new, Some(&old)), ["spec.resourceClaims: Invalid value: null: field is immutable"]);
    }

    #[test]
    fn formats() {
        let uid = "12345678-1234-1234-1234-123456789abc";
        for (text, is) in [(uid, true), (&uid.to_uppercase(), false), (&uid.replace('-', ""), false), ("x", false)] {
            assert_eq!(uuid(text).is_empty(), is, "{text}");
        }
        for (key, is) in [("a.io/b", true), ("xk8s.io/b", true), ("k8s.io/b", false), ("x.K8S.io./b", false)] {
            assert_eq!(open_domain(key).is_empty(), is, "{key}");
        }
        for (key, is) in [("a.io/b", true), ("b", false), ("a/b/c", false), ("A.io/b", false)] {
            assert_eq!(prefixed_key(key).is_empty(), is, "{key}");
        }
    }
}
