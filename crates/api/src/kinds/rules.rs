//! Declarative validation: a path, and what must hold there.
//!
//! A path is dotted; `[]` after a name goes through the items of a list, `{}` through the values of a map. Reads
//! documents only. Invariant: a rule below an absent object says nothing, so that optional parts stay optional.

use meta::field::{Error, Errors, Path};
use meta::{Value, names};

/// What must hold at a path.
#[derive(Clone, Copy)]
pub enum Check {
    /// Present and not empty. The text is the detail of the message.
    Required(&'static str),
    /// When present, one of these.
    OneOf(&'static [&'static str]),
    /// Present, and one of these.
    RequiredOneOf(&'static [&'static str]),
    /// One of these, where the object around it is given.
    AnyOneOf(&'static [&'static str]),
    /// When given, even as an empty text, one of these.
    GivenOneOf(&'static [&'static str]),
    /// When present, at least 0.
    NonNegative,
    /// When present, at least 1; the detail is upstream's.
    Positive,
    /// When present, between these, both included.
    Range(i64, i64),
    /// When present and not empty, what this function finds no fault with.
    Name(fn(&str) -> Vec<String>),
    /// What this function finds no fault with, given or not.
    AnyName(fn(&str) -> Vec<String>),
    /// As `AnyName`, when given.
    GivenName(fn(&str) -> Vec<String>),
    /// No more bytes.
    MaxBytes(usize),
    /// No more items.
    MaxItems(usize),
    /// When present, an amount that is not negative.
    Amount,
    /// A port number, given or not.
    AnyPort,
    /// When present, a port number.
    Port,
    /// The same as in the old object.
    Immutable,
    /// As `Immutable`, for a field whose value upstream does not show.
    Fixed,
    /// Labels: keys and values.
    Labels,
    /// A label selector in its object form.
    Selector,
}

impl Check {
    /// The check can find fault with a value that is not there.
    fn minds_absence(self) -> bool {
        matches!(
            self,
            Check::Required(_)
                | Check::RequiredOneOf(_)
                | Check::AnyName(_)
                | Check::AnyOneOf(_)
                | Check::AnyPort
                | Check::Selector
        )
    }
}

pub type Rule = (&'static str, Check);

/// Checks all rules in their order.
pub fn check(object: &Value, rules: &[Rule], errors: &mut Errors) {
    check_at(object, &Path::default(), rules, errors);
}

/// Checks rules whose paths begin at `base`.
pub fn check_at(object: &Value, base: &Path, rules: &[Rule], errors: &mut Errors) {
    for (path, check) in rules {
        if !matches!(check, Check::Immutable | Check::Fixed) {
            walk(object, base, path, check.minds_absence(), &mut |value, at| apply(value, at, *check, errors));
        }
    }
}

/// Checks the `Immutable` rules against the old object.
pub fn check_immutable(new: &Value, old: &Value, rules: &[Rule], errors: &mut Errors) {
    for (path, check) in rules.iter().filter(|(_, check)| matches!(check, Check::Immutable | Check::Fixed)) {
        if at(new, path) != at(old, path) {
            let shown = if matches!(check, Check::Fixed) { &Value::Null } else { at(new, path) };
            errors.push(Error::invalid(&Path::new(path), shown, "field is immutable"));
        }
    }
}

/// The value at a dotted path.
pub(super) fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(object, |value, member| &value[member])
}

/// Visits the values at `path`; absent ones only `with_absent`, so that no path is spelled out for them in vain.
fn walk(value: &Value, at: &Path, path: &str, with_absent: bool, visit: &mut dyn FnMut(&Value, &Path)) {
    if path.is_empty() {
        return visit(value, at);
    }
    let (step, rest) = path.split_once('.').unwrap_or((path, ""));
    if let Some(name) = step.strip_suffix("[]") {
        for (i, item) in value.array_at(&[name]).iter().enumerate() {
            walk(item, &at.child(name).index(i), rest, with_absent, visit);
        }
    } else if let Some(name) = step.strip_suffix("{}") {
        if let Some(map) = value[name].as_object() {
            for (key, item) in map.iter() {
                walk(item, &at.child(name).key(key), rest, with_absent, visit);
            }
        }
    } else {
        let next = &value[step];
        // A spec that is not there is an empty one.
        let implied = with_absent && step == "spec" && *at == Path::default();
        if next.is_null() && !(rest.is_empty() && with_absent) && !implied {
            return;
        }
        walk(next, &at.child(step), rest, with_absent, visit);
    }
}

fn apply(value: &Value, at: &Path, check: Check, errors: &mut Errors) {
    let number = value.as_i64();
    match check {
        Check::Required(detail) => {
            let absent = match value {
                Value::Null => true,
                Value::String(s) => s.is_empty(),
                Value::Array(a) => a.is_empty(),
                _ => false,
            };
            if absent {
                errors.push(Error::required(at, detail));
            }
        }
        Check::OneOf(supported) => {
            if value.as_str().is_some_and(|s| !s.is_empty() && !supported.contains(&s)) {
                errors.push(Error::not_supported(at, value, supported));
            }
        }
        Check::GivenOneOf(supported) | Check::AnyOneOf(supported) => {
            let text = value.as_str().unwrap_or_default();
            if !supported.contains(&text) {
                errors.push(Error::not_supported(at, text, supported));
            }
        }
        Check::RequiredOneOf(supported) => match value.as_str().unwrap_or_default() {
            "" => errors.push(Error::required(at, "")),
            s if !supported.contains(&s) => errors.push(Error::not_supported(at, s, supported)),
            _ => {}
        },
        Check::NonNegative => {
            if let Some(n) = number.filter(|n| *n < 0) {
                errors.push(Error::invalid(at, n, "must be greater than or equal to 0"));
            }
        }
        Check::Positive => {
            if let Some(n) = number.filter(|n| *n <= 0) {
                errors.push(Error::invalid(at, n, "must be greater than 0"));
            }
        }
        Check::Range(low, high) => {
            if let Some(n) = number.filter(|n| !(low..=high).contains(n)) {
                errors.push(Error::invalid(at, n, format!("must be between {low} and {high}, inclusive")));
            }
        }
        Check::Name(rule) => {
            if let Some(name) = value.as_str().filter(|s| !s.is_empty()) {
                errors.extend(rule(name).into_iter().map(|m| Error::invalid(at, name, m)));
            }
        }
        Check::AnyName(rule) | Check::GivenName(rule) => {
            let name = value.as_str().unwrap_or_default();
            errors.extend(rule(name).into_iter().map(|m| Error::invalid(at, name, m)));
        }
        Check::MaxBytes(max) => {
            if value.as_str().is_some_and(|s| s.len() > max) {
                errors.push(Error::too_long(at, max));
            }
        }
        Check::MaxItems(max) => {
            if let Some(items) = value.as_array().filter(|items| items.len() > max) {
                errors.push(Error::too_many(at, items.len(), max));
            }
        }
        Check::Amount => {
            super::pod_spec::validate_quantity(value, at, errors);
        }
        Check::Port | Check::AnyPort => {
            if let Some(n) = number.or((check.minds_absence()).then_some(0)) {
                errors.extend(names::port_number(n).into_iter().map(|m| Error::invalid(at, n, m)));
            }
        }
        Check::Labels => {
            if let Some(map) = value.as_object() {
                meta::selector::validate_labels(map, at, errors);
            }
        }
        Check::Selector => errors.extend(meta::selector::LabelSelector::validate(value, at)),
        Check::Immutable | Check::Fixed => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::json;

    #[test]
    fn paths_and_checks() {
        let object =
            json!({"spec": {"type": "x", "n": -1, "items": [{"name": "A"}, {"name": ""}], "map": {"k": {"port": 0}}}});
        let rules: &[Rule] = &[
            ("spec.type", Check::OneOf(&["b", "a"])),
            ("spec.n", Check::NonNegative),
            ("spec.items[].name", Check::Required("")),
            ("spec.items[].name", Check::Name(names::dns1035_label)),
            ("spec.map{}.port", Check::Port),
            ("spec.absent.deep", Check::Required("")),
            ("spec.absent", Check::Required("say it")),
        ];
        let mut errors = Errors::new();
        check(&object, rules, &mut errors);
        let text: Vec<String> = errors.iter().map(|e| e.to_string().chars().take(70).collect()).collect();
        assert_eq!(
            text,
            [
                "spec.type: Unsupported value: \"x\": supported values: \"b\", \"a\"",
                "spec.n: Invalid value: -1: must be greater than or equal to 0",
                "spec.items[1].name: Required value",
                "spec.items[0].name: Invalid value: \"A\": a DNS-1035 label must consist ",
                "spec.map[k].port: Invalid value: 0: must be between 1 and 65535, inclu",
                "spec.absent: Required value: say it",
            ]
        );
    }
}
