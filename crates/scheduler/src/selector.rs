//! Labels and the selectors over them, compiled once from the typed objects.
//! Reads nothing else. Invariant: an absent label selector matches nothing, an empty one matches everything, and a
//! requirement that cannot be understood matches nothing.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Labels sorted by key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Labels(Vec<(Box<str>, Box<str>)>);

impl Labels {
    pub fn new(map: Option<&BTreeMap<String, String>>) -> Self {
        Self(map.into_iter().flatten().map(|(k, v)| (k.as_str().into(), v.as_str().into())).collect())
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.binary_search_by(|(k, _)| (**k).cmp(key)).ok().map(|i| &*self.0[i].1)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (&**k, &**v))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
    Never,
}

/// `key operator values`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    key: Box<str>,
    operator: Operator,
    values: Vec<Box<str>>,
}

impl Requirement {
    fn new(key: &str, operator: &str, values: Option<&Vec<String>>) -> Self {
        let operator = match operator {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => Operator::Gt,
            "Lt" => Operator::Lt,
            _ => Operator::Never,
        };
        Self { key: key.into(), operator, values: values.into_iter().flatten().map(|v| v.as_str().into()).collect() }
    }

    /// `key=value`
    pub fn equals(key: &str, value: &str) -> Self {
        Self { key: key.into(), operator: Operator::In, values: vec![value.into()] }
    }

    /// `key!=value`
    pub fn differs(key: &str, value: &str) -> Self {
        Self { key: key.into(), operator: Operator::NotIn, values: vec![value.into()] }
    }

    fn matches(&self, found: Option<&str>) -> bool {
        let listed = |v: &str| self.values.iter().any(|w| **w == *v);
        match (&self.operator, found) {
            (Operator::In, Some(v)) => listed(v),
            (Operator::NotIn, Some(v)) => !listed(v),
            (Operator::NotIn | Operator::DoesNotExist, None) | (Operator::Exists, Some(_)) => true,
            (Operator::Gt | Operator::Lt, Some(v)) => {
                let bound = self.values.first().and_then(|b| b.parse::<i64>().ok());
                match (v.parse::<i64>().ok(), bound) {
                    (Some(v), Some(bound)) if self.operator == Operator::Gt => v > bound,
                    (Some(v), Some(bound)) => v < bound,
                    _ => false,
                }
            }
            _ => false,
        }
    }
}

/// A label selector; `nothing` for an absent one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl Selector {
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    pub fn everything() -> Self {
        Self { requirements: Vec::new(), nothing: false }
    }

    pub fn of(selector: Option<&LabelSelector>) -> Self {
        let Some(selector) = selector else { return Self::nothing() };
        let mut out = Self::from_map(selector.match_labels.as_ref());
        for e in selector.match_expressions.iter().flatten() {
            out.requirements.push(Requirement::new(&e.key, &e.operator, e.values.as_ref()));
        }
        out
    }

    pub fn from_map(map: Option<&BTreeMap<String, String>>) -> Self {
        let requirements = map.into_iter().flatten().map(|(k, v)| Requirement::equals(k, v)).collect();
        Self { requirements, nothing: false }
    }

    /// Narrows the selector by one more requirement.
    pub fn and(&mut self, requirement: Requirement) {
        self.requirements.push(requirement);
    }

    /// Narrows the selector by all of another's requirements.
    pub fn and_all(&mut self, other: &Selector) {
        self.requirements.extend(other.requirements.iter().cloned());
        self.nothing |= other.nothing;
    }

    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels.get(&r.key)))
    }
}

/// One term of a node selector: expressions over labels and fields, all of which must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTerm {
    expressions: Vec<Requirement>,
    fields: Vec<Requirement>,
}

impl NodeTerm {
    pub fn of(term: &core::NodeSelectorTerm) -> Self {
        let compile = |list: &Option<Vec<core::NodeSelectorRequirement>>| {
            list.iter().flatten().map(|r| Requirement::new(&r.key, &r.operator, r.values.as_ref())).collect()
        };
        Self { expressions: compile(&term.match_expressions), fields: compile(&term.match_fields) }
    }

    /// An empty term matches no node.
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        if self.expressions.is_empty() && self.fields.is_empty() {
            return false;
        }
        self.expressions.iter().all(|r| r.matches(labels.get(&r.key)))
            && self.fields.iter().all(|r| &*r.key == "metadata.name" && r.matches(Some(name)))
    }

    /// The only node names this term can match, when it says so with `metadata.name In [...]`.
    pub fn names(&self) -> Option<Vec<&str>> {
        let field = self.fields.iter().find(|r| &*r.key == "metadata.name" && r.operator == Operator::In)?;
        Some(field.values.iter().map(|v| &**v).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Labels {
        let map: BTreeMap<String, String> =
            text.split(',').filter_map(|p| p.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        Labels::new(Some(&map))
    }

    #[test]
    fn label_selectors() {
        let cases = [
            ("null", "a=1", false),
            ("{}", "a=1", true),
            (r#"{"matchLabels":{"a":"1"}}"#, "a=1,b=2", true),
            (r#"{"matchLabels":{"a":"1"}}"#, "a=2", false),
            (r#"{"matchExpressions":[{"key":"a","operator":"In","values":["1","2"]}]}"#, "a=2", true),
            (r#"{"matchExpressions":[{"key":"a","operator":"NotIn","values":["1"]}]}"#, "b=2", true),
            (r#"{"matchExpressions":[{"key":"a","operator":"NotIn","values":["1"]}]}"#, "a=1", false),
            (r#"{"matchExpressions":[{"key":"a","operator":"Exists"}]}"#, "a=", true),
            (r#"{"matchExpressions":[{"key":"a","operator":"DoesNotExist"}]}"#, "a=", false),
            (r#"{"matchExpressions":[{"key":"a","operator":"Odd"}]}"#, "a=1", false),
        ];
        for (selector, have, want) in cases {
            let parsed: Option<LabelSelector> = serde_json::from_str(selector).unwrap();
            assert_eq!(Selector::of(parsed.as_ref()).matches(&labels(have)), want, "{selector} on {have}");
        }
    }

    #[test]
    fn node_terms() {
        let cases = [
            ("{}", "a=1", false),
            (r#"{"matchExpressions":[{"key":"n","operator":"Gt","values":["3"]}]}"#, "n=4", true),
            (r#"{"matchExpressions":[{"key":"n","operator":"Lt","values":["3"]}]}"#, "n=4", false),
            (r#"{"matchExpressions":[{"key":"n","operator":"Gt","values":["3"]}]}"#, "n=x", false),
            (r#"{"matchFields":[{"key":"metadata.name","operator":"In","values":["node-1"]}]}"#, "", true),
            (r#"{"matchFields":[{"key":"metadata.name","operator":"NotIn","values":["node-1"]}]}"#, "", false),
        ];
        for (term, have, want) in cases {
            let parsed: core::NodeSelectorTerm = serde_json::from_str(term).unwrap();
            assert_eq!(NodeTerm::of(&parsed).matches("node-1", &labels(have)), want, "{term} on {have}");
        }
    }
}
