//! Validation of values against a schema, in upstream's words.
//!
//! Source of the wording: the errors of an API server for custom resources. Invariant: with an old object at hand, what
//! did not change is not complained of (KEP-4008, ratcheting); items of a list are the same as before by their keys.

use std::collections::HashSet;

use meta::Value;
use meta::field::{Error, Errors, Path};

use crate::{Bounds, ListType, Node, Type, embedded, format, lists};

impl Node {
    /// Everything that is wrong with a whole custom resource, beside its metadata and its rules. With `old`, the object
    /// is to replace that one.
    pub fn validate(&self, value: &Value, old: Option<&Value>) -> Errors {
        let mut errors = self.check(value, old);
        embedded::check(self, value, "", true, &mut errors);
        let repeated = lists::check(self, value);
        if !repeated.is_empty() && old.is_none_or(|old| lists::check(self, old).is_empty()) {
            errors.extend(repeated);
        }
        errors
    }

    /// What is wrong with a value at this place of the schema.
    pub fn check(&self, value: &Value, old: Option<&Value>) -> Errors {
        let mut errors = Errors::new();
        walk(self, value, "", old, &mut errors);
        errors
    }

    fn type_names(&self) -> &'static str {
        if self.int_or_string { "integer,string" } else { self.written_type() }
    }

    /// The type as the schema names it.
    pub(crate) fn written_type(&self) -> &'static str {
        match self.ty {
            Type::Unset => "",
            Type::Object => "object",
            Type::Array => "array",
            Type::String => "string",
            Type::Integer => "integer",
            Type::Number => "number",
            Type::Boolean => "boolean",
        }
    }

    /// What a value of another type is, and what it should be.
    fn mismatch(&self, value: &Value) -> (&'static str, &str) {
        let format = self.checks.format.as_str();
        // Compat: where a format says more than the type, upstream goes by that, and names what Go has in memory.
        match value {
            Value::Bool(_) | Value::Object(_) if format::is_known(format) => ("", format::shown(format)),
            Value::Int(_) if format::is_known(format) => ("int64", format::shown(format)),
            Value::Float(_) if format::is_known(format) => ("float64", format::shown(format)),
            _ => (type_name(value), self.type_names()),
        }
    }

    fn takes(&self, value: &Value) -> bool {
        match (self.ty, value) {
            (_, Value::Null) => self.nullable || self.type_names().is_empty(),
            (_, value) if self.int_or_string => matches!(type_name(value), "integer" | "string"),
            (Type::Unset, _) => true,
            (Type::Number, Value::Int(_) | Value::Float(_)) => true,
            (_, value) => type_name(value) == self.type_names(),
        }
    }
}

/// A value's type in the words of errors.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Int(_) => "integer",
        Value::Float(f) if f.fract() == 0.0 && f.abs() < 9.2e18 => "integer",
        Value::Float(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn at(path: &str) -> Path {
    Path::new(path)
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_string() } else { format!("{path}.{name}") }
}

fn walk(node: &Node, value: &Value, path: &str, old: Option<&Value>, errors: &mut Errors) {
    let known = errors.len();
    apply(node, value, path, old, errors);
    if errors.len() > known && old == Some(value) {
        errors.truncate(known);
    }
}

fn apply(node: &Node, value: &Value, path: &str, old: Option<&Value>, errors: &mut Errors) {
    if !node.takes(value) {
        let (found, wanted) = node.mismatch(value);
        errors.push(Error::type_invalid(
            &at(path),
            found,
            format!("{path} in body must be of type {wanted}: \"{found}\""),
        ));
    }
    if !value.is_null() {
        combined(node, value, path, errors);
    }
    match value {
        Value::String(text) => string(node, text, path, errors),
        Value::Int(_) | Value::Float(_) => number(node, value, path, errors),
        Value::Array(items) => list(node, items, path, old, errors),
        _ => {}
    }
    let allowed = &node.checks.one_of_values;
    if !allowed.is_empty() && !allowed.iter().any(|a| same(a, value)) {
        let words: Vec<String> =
            allowed.iter().map(|a| a.as_str().map_or_else(|| a.to_string(), str::to_string)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        errors.push(Error::not_supported(&at(path), value, &words));
    }
    if let Value::Object(_) = value {
        object(node, value, path, old, errors);
    }
}

/// Equal, numbers by their value.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Int(i), Value::Float(f)) | (Value::Float(f), Value::Int(i)) => *i as f64 == *f,
        _ => a == b,
    }
}

/// anyOf, oneOf, allOf, not. What is nested in them is about the value as a whole, so nothing in it is old.
fn combined(node: &Node, value: &Value, path: &str, errors: &mut Errors) {
    let checks = &node.checks;
    let tried = |nodes: &[Node]| -> Vec<Errors> {
        nodes
            .iter()
            .map(|n| {
                let mut e = Errors::new();
                apply(n, value, path, None, &mut e);
                e
            })
            .collect()
    };
    if !checks.any_of.is_empty() {
        let results = tried(&checks.any_of);
        if results.iter().all(|r| !r.is_empty()) {
            errors.push(whole(format!("{path:?} must validate at least one schema (anyOf)")));
            errors.extend(best(results));
        }
    }
    if !checks.one_of.is_empty() {
        let results = tried(&checks.one_of);
        match results.iter().filter(|r| r.is_empty()).count() {
            1 => {}
            0 => {
                errors.push(whole(format!("{path:?} must validate one and only one schema (oneOf). Found none valid")));
                errors.extend(best(results));
            }
            n => errors.push(whole(format!(
                "{path:?} must validate one and only one schema (oneOf). Found {n} valid alternatives"
            ))),
        }
    }
    if !checks.all_of.is_empty() {
        let results = tried(&checks.all_of);
        let valid = results.iter().filter(|r| r.is_empty()).count();
        errors.extend(results.into_iter().flatten());
        if valid < checks.all_of.len() {
            let none = if valid == 0 { ". None validated" } else { "" };
            errors.push(whole(format!("{path:?} must validate all the schemas (allOf){none}")));
        }
    }
    if let Some(not) = &checks.not {
        let mut found = Errors::new();
        apply(not, value, path, None, &mut found);
        if found.is_empty() {
            errors.push(whole(format!("{path:?} must not validate the schema (not)")));
        }
    }
}

/// The errors of the alternative that came nearest.
fn best(results: Vec<Errors>) -> Errors {
    results.into_iter().min_by_key(Vec::len).unwrap_or_default()
}

/// Compat: errors of composites and of numbers' formats stand at no field (kube-openapi's validation results).
fn whole(detail: String) -> Error {
    Error::invalid(&Path::default(), "", detail)
}

fn string(node: &Node, text: &str, path: &str, errors: &mut Errors) {
    let checks = &node.checks;
    let (min, max) = checks.length;
    let length = text.chars().count() as i64;
    if let Some(max) = max.filter(|m| length > *m) {
        errors.push(Error::too_long(&at(path), usize::try_from(max).unwrap_or(0)));
    } else if let Some(min) = min.filter(|m| length < *m) {
        let detail = format!("{path} in body should be at least {min} chars long");
        errors.push(Error::invalid(&at(path), text, detail));
    } else if let Some((pattern, regex)) = &checks.pattern
        && !regex.is_match(text)
    {
        errors.push(Error::invalid(&at(path), text, format!("{path} in body should match '{pattern}'")));
    }
    if format::holds(&checks.format, text) == Some(false) {
        let detail = format!("{path} in body must be of type {}: {text:?}", format::shown(&checks.format));
        errors.push(Error::type_invalid(&at(path), text, detail));
    }
}

fn number(node: &Node, value: &Value, path: &str, errors: &mut Errors) {
    let checks = &node.checks;
    let is_whole = matches!(value, Value::Int(_));
    let number = value.as_f64().unwrap_or_default();
    let fits = match checks.format.as_str() {
        "int32" => number.fract() == 0.0 && (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number),
        "int64" => number.fract() == 0.0,
        "float" => number.abs() <= f32::MAX.into(),
        _ => true,
    };
    if !fits {
        let (ty, format) = (node.written_type(), &checks.format);
        errors.push(whole(format!("Checked value must be of type {ty} with format {format} in {path}")));
    }
    let mut fail = |what: &str, bound: f64| {
        let bound = if is_whole { (bound as i64).to_string() } else { shown(bound) };
        errors.push(Error::invalid(&at(path), value, format!("{path} in body should be {what} {bound}")));
    };
    if let Some(factor) = checks.multiple_of.filter(|f| *f != 0.0) {
        let holds = match value {
            Value::Int(i) if factor.fract() == 0.0 => i % factor as i64 == 0,
            _ => (number / factor).fract() == 0.0,
        };
        if !holds {
            fail("a multiple of", factor);
        }
    }
    match (checks.maximum, checks.exclusive_maximum) {
        (Some(max), true) if number >= max => fail("less than", max),
        (Some(max), false) if number > max => fail("less than or equal to", max),
        _ => {}
    }
    match (checks.minimum, checks.exclusive_minimum) {
        (Some(min), true) if number <= min => fail("greater than", min),
        (Some(min), false) if number < min => fail("greater than or equal to", min),
        _ => {}
    }
}

/// A number as Go's `%v` prints it.
fn shown(number: f64) -> String {
    if number != 0.0 && !(1e-4..1e6).contains(&number.abs()) {
        let text = format!("{number:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |d| ('-', d));
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    number.to_string()
}

/// Whether a count is out of bounds; then the error.
fn bounded(bounds: Bounds, count: usize, what: &str, path: &str, errors: &mut Errors) -> bool {
    let (min, max) = bounds;
    let n = count as i64;
    if let Some(min) = min.filter(|m| n < *m) {
        errors.push(Error::invalid(&at(path), n, format!("{path} in body should have at least {min} {what}")));
        return true;
    }
    if let Some(max) = max.filter(|m| n > *m) {
        errors.push(Error::too_many(&at(path), count, usize::try_from(max).unwrap_or(0)));
        return true;
    }
    false
}

fn list(node: &Node, items: &[Value], path: &str, old: Option<&Value>, errors: &mut Errors) {
    if bounded(node.checks.items, items.len(), "items", path, errors) {
        return;
    }
    let Some(item) = &node.items else { return };
    let before = old.and_then(Value::as_array).filter(|_| matches!(node.list, ListType::Map(_)));
    for (i, value) in items.iter().enumerate() {
        let was = before.and_then(|old| lists::counterpart(node, value, old));
        walk(item, value, &format!("{path}[{i}]"), was, errors);
    }
}

fn object(node: &Node, value: &Value, path: &str, old: Option<&Value>, errors: &mut Errors) {
    let Value::Object(map) = value else { return };
    if bounded(node.checks.members, map.len(), "properties", path, errors) {
        return;
    }
    for (key, item) in map.iter() {
        if let Some(child) = node.child(key) {
            walk(child, item, &below(path, key), old.and_then(|o| o.get(key)), errors);
        }
    }
    let mut said = HashSet::new();
    for name in &node.checks.required {
        if !map.contains_key(name) && said.insert(name) {
            errors.push(Error::required(&at(&below(path, name)), ""));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use meta::json;

    fn schema() -> Node {
        Node::read(&meta::parse(include_bytes!("tests/spec_schema.json")).expect("JSON"))
    }

    fn shown(value: &Value, old: Option<&Value>) -> String {
        schema().validate(value, old).iter().map(|e| format!("{e}\n")).collect()
    }

    #[test]
    fn upstreams_words() {
        expect!["spec: Required value\n"].assert_eq(&shown(&json!({}), None));
        golden::check!("tests/specs.txt", |spec| {
            let mut whole = json!({});
            whole.set(&["spec"], meta::parse(spec.as_bytes()).expect("JSON"));
            shown(&whole, None)
        });
    }

    #[test]
    fn what_did_not_change_is_let_be() {
        let old = json!({"spec": {"name": "A", "a": 3, "set": ["a", "a"], "keyed": [{"k": "1", "v": 1}]}});
        let mut new = old.clone();
        new.set(&["spec", "ip"], "10.0.0.1");
        new.set(&["spec", "keyed"], json!([{"k": "0", "v": 6}, {"k": "1", "v": 1}]));
        assert_eq!(shown(&new, Some(&old)), "");
        new.set(&["spec", "a"], 5);
        new.set(&["spec", "keyed"], json!([{"k": "2", "v": 1}]));
        expect![[r#"
            spec.a: Invalid value: 5: spec.a in body should be a multiple of 2
            spec.keyed[0].v: Invalid value: 1: spec.keyed[0].v in body should be greater than or equal to 5
        "#]]
        .assert_eq(&shown(&new, Some(&old)));
    }

    #[test]
    fn numbers_as_go_prints_them() {
        for (number, text) in
            [(1.0, "1"), (1.5, "1.5"), (1e6, "1e+06"), (100000.0, "100000"), (1e-7, "1e-07"), (-0.25, "-0.25")]
        {
            assert_eq!(super::shown(number), text);
        }
    }
}
