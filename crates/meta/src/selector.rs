//! Selectors: which objects a list, a watch or a controller means.
//!
//! Label selectors come as text (`a=b,c in (x,y),!d`) or as an object (`matchLabels`, `matchExpressions`); field
//! selectors come as text only (`spec.nodeName=n,status.phase!=Failed`). Reads strings and `Value`s, writes nothing.
//! Invariant: a selector that exists is valid; matching can't fail. Wording of refusals is upstream's.

mod field;
mod parse;

pub use field::{FieldRequirement, FieldSelector};

use compact_str::CompactString;

use crate::field::{Error, Errors, Path};
use crate::{Map, Value, names};

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// `key=value`, `key==value`, `key in (a,b)`
    In,
    /// `key!=value`, `key notin (a,b)`; an absent key matches
    NotIn,
    Exists,
    DoesNotExist,
    /// `key>1`, on whole numbers
    GreaterThan,
    LessThan,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    pub key: CompactString,
    pub operator: Operator,
    /// Sorted; one number for `GreaterThan` and `LessThan`, empty for `Exists` and `DoesNotExist`.
    pub values: Vec<CompactString>,
}

impl Requirement {
    fn new(key: &str, operator: Operator, values: impl IntoIterator<Item = CompactString>) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_unstable();
        values.dedup();
        Self { key: key.into(), operator, values }
    }

    fn matches(&self, found: Option<&str>) -> bool {
        let listed = |v: &str| self.values.iter().any(|w| w == v);
        match self.operator {
            Operator::In => found.is_some_and(listed),
            Operator::NotIn => !found.is_some_and(listed),
            Operator::Exists => found.is_some(),
            Operator::DoesNotExist => found.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let bound = self.values.first().and_then(|v| v.parse::<i64>().ok());
                match (found.and_then(|v| v.parse::<i64>().ok()), bound) {
                    (Some(v), Some(bound)) if self.operator == Operator::GreaterThan => v > bound,
                    (Some(v), Some(bound)) => v < bound,
                    _ => false,
                }
            }
        }
    }
}

/// All requirements must hold. No requirement matches everything, except for [`LabelSelector::nothing`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    pub fn everything() -> Self {
        Self::default()
    }

    pub fn nothing() -> Self {
        Self { nothing: true, ..Self::default() }
    }

    /// Reads the text form of a `labelSelector` parameter.
    pub fn parse(text: &str) -> Result<Self, String> {
        let requirements = parse::requirements(text)?;
        Ok(Self { requirements, nothing: false })
    }

    /// Equality on each entry of a map of labels, as `spec.selector` of a Service has it.
    pub fn from_labels(labels: &Map) -> Self {
        let requirements = labels
            .iter()
            .map(|(k, v)| Requirement::new(k, Operator::In, [CompactString::from(v.as_str().unwrap_or_default())]))
            .collect();
        Self { requirements, nothing: false }
    }

    /// Reads the object form (`matchLabels`, `matchExpressions`). Absent means nothing, empty means everything.
    pub fn from_object(selector: &Value) -> Result<Self, Errors> {
        if selector.is_null() {
            return Ok(Self::nothing());
        }
        let errors = Self::validate(selector, &Path::default());
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self::from_valid_object(selector))
    }

    /// As [`Self::from_object`], for a selector that was validated before; a malformed expression matches nothing.
    pub fn from_valid_object(selector: &Value) -> Self {
        if selector.is_null() {
            return Self::nothing();
        }
        let mut found = match selector.get("matchLabels") {
            Some(Value::Object(labels)) => Self::from_labels(labels),
            _ => Self::everything(),
        };
        for expression in selector.array_at(&["matchExpressions"]) {
            let key = expression.str_at(&["key"]).unwrap_or_default();
            let values = || expression.array_at(&["values"]).iter().filter_map(Value::as_str).map(CompactString::from);
            let requirement = match expression.str_at(&["operator"]).unwrap_or_default() {
                "In" => Requirement::new(key, Operator::In, values()),
                "NotIn" => Requirement::new(key, Operator::NotIn, values()),
                "Exists" => Requirement::new(key, Operator::Exists, []),
                "DoesNotExist" => Requirement::new(key, Operator::DoesNotExist, []),
                _ => return Self::nothing(),
            };
            found.requirements.push(requirement);
        }
        found
    }

    /// What is wrong with the object form at `path`.
    pub fn validate(selector: &Value, path: &Path) -> Errors {
        let mut errors = Errors::new();
        if let Some(Value::Object(labels)) = selector.get("matchLabels") {
            validate_labels(labels, &path.child("matchLabels"), &mut errors);
        }
        for (i, expression) in selector.array_at(&["matchExpressions"]).iter().enumerate() {
            validate_expression(expression, &path.child("matchExpressions").index(i), &mut errors);
        }
        errors
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// True when every object matches.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    /// Matches labels that are found by `get`.
    pub fn matches_with<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(get(&r.key)))
    }

    /// Matches a map of labels.
    pub fn matches(&self, labels: &Map) -> bool {
        self.matches_with(|key| labels.get(key).and_then(Value::as_str))
    }

    /// Matches `metadata.labels` of an object.
    pub fn matches_object(&self, object: &Value) -> bool {
        match object.at(&["metadata", "labels"]) {
            Some(Value::Object(labels)) => self.matches(labels),
            _ => self.matches_with(|_| None),
        }
    }
}

/// Checks the keys and values of a map of labels, all at `path` itself, as upstream does.
pub fn validate_labels(labels: &Map, path: &Path, errors: &mut Errors) {
    for (key, value) in labels.iter() {
        errors.extend(names::qualified_name(key).into_iter().map(|m| Error::invalid(path, key, m)));
        let value = value.as_str().unwrap_or_default();
        errors.extend(names::label_value(value).into_iter().map(|m| Error::invalid(path, value, m)));
    }
}

fn validate_expression(expression: &Value, path: &Path, errors: &mut Errors) {
    let values = expression.array_at(&["values"]);
    match expression.str_at(&["operator"]).unwrap_or_default() {
        "In" | "NotIn" if values.is_empty() => {
            errors.push(Error::required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'"))
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(Error::forbidden(
            &path.child("values"),
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        )),
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.push(Error::invalid(&path.child("operator"), other, "not a valid selector operator")),
    }
    let key = expression.str_at(&["key"]).unwrap_or_default();
    let wrong = names::qualified_name(key);
    errors.extend(wrong.into_iter().map(|m| Error::invalid(&path.child("key"), key, m)));
    for (i, value) in values.iter().enumerate() {
        let value = value.as_str().unwrap_or_default();
        let wrong = names::label_value(value);
        errors.extend(wrong.into_iter().map(|m| Error::invalid(&path.child("values").index(i), value, m)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn both_forms_match() {
        let labels = json!({"app": "web", "tier": "front", "n": "5"});
        golden::check!("tests/selector_matches.txt", |selector| {
            let parsed = match crate::parse(selector.as_bytes()) {
                Ok(object) => LabelSelector::from_object(&object).expect("valid"),
                Err(_) => LabelSelector::parse(selector).expect(selector),
            };
            parsed.matches(labels.as_object().expect("an object")).to_string()
        });
    }

    #[test]
    fn object_form_refused() {
        golden::check!("tests/selector_refused.txt", |selector| {
            let selector = crate::parse(selector.as_bytes()).expect("JSON");
            let errors = LabelSelector::validate(&selector, &Path::new("spec.selector"));
            errors.iter().map(|e| format!("{e}\n")).collect()
        });
    }
}
