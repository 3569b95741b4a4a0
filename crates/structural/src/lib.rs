//! Structural schemas of custom resources: what a CustomResourceDefinition says about its objects, made to work.
//!
//! Pure functions from a schema and documents: checking a schema (`check`), defaults (`default`), validation
//! (`validate`, `lists`, `embedded`, `format`), table columns (`path`), OpenAPI documents (`publish`). Pruning and field
//! ownership go by `meta::schema`. Errors are `meta::field::Errors` in upstream's words.
//! Invariant: a `Node` is made from a schema that `check` found no fault with, and never changes.

pub mod check;
mod default;
mod embedded;
mod format;
mod lists;
pub mod path;
mod pattern;
pub mod publish;
mod rules;
mod validate;

pub use path::JsonPath;
pub use rules::{compile, validate_rules};

use meta::Value;
use regex::Regex;
use rules::Rule;

/// The type that a schema names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Type {
    #[default]
    Unset,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Type {
    fn read(name: &str) -> Type {
        match name {
            "object" => Type::Object,
            "array" => Type::Array,
            "string" => Type::String,
            "integer" => Type::Integer,
            "number" => Type::Number,
            "boolean" => Type::Boolean,
            _ => Type::Unset,
        }
    }
}

/// How items of a list are told apart.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum ListType {
    #[default]
    Atomic,
    Set,
    /// By these fields.
    Map(Vec<String>),
}

/// One place of a structural schema.
#[derive(Clone, Debug, Default)]
pub struct Node {
    pub ty: Type,
    pub nullable: bool,
    pub default: Option<Value>,
    /// Sorted by name.
    pub properties: Vec<(String, Node)>,
    /// The schema of a map's values.
    pub values: Option<Box<Node>>,
    pub items: Option<Box<Node>>,
    pub preserves: bool,
    pub embedded: bool,
    pub int_or_string: bool,
    pub list: ListType,
    /// `x-kubernetes-validations`; empty until `compile` has read them.
    rules: Vec<Rule>,
    checks: Checks,
    /// There is a default here or below.
    defaults_below: bool,
    /// There are rules here or below.
    rules_below: bool,
}

/// What a value must hold beside its type.
#[derive(Clone, Debug, Default)]
struct Checks {
    format: String,
    pattern: Option<(String, Regex)>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    exclusive_minimum: bool,
    exclusive_maximum: bool,
    multiple_of: Option<f64>,
    /// Of a string in code points, of a list in items, of an object in members: minimum and maximum each.
    length: Bounds,
    items: Bounds,
    members: Bounds,
    one_of_values: Vec<Value>,
    required: Vec<String>,
    all_of: Vec<Node>,
    any_of: Vec<Node>,
    one_of: Vec<Node>,
    not: Option<Box<Node>>,
}

type Bounds = (Option<i64>, Option<i64>);

fn says(schema: &Value, key: &str) -> bool {
    schema.get(key).and_then(Value::as_bool).unwrap_or(false)
}

impl Node {
    /// Reads a schema. What is wrong with it is left out: `check` has refused it before.
    pub fn read(schema: &Value) -> Node {
        let text = |key: &str| schema.str_at(&[key]).unwrap_or_default();
        let texts = |key: &str| -> Vec<String> {
            schema.array_at(&[key]).iter().filter_map(Value::as_str).map(str::to_string).collect()
        };
        let members = schema.get("properties").and_then(Value::as_object);
        let mut node = Node {
            ty: Type::read(text("type")),
            nullable: says(schema, "nullable"),
            default: schema.get("default").filter(|d| !d.is_null()).cloned(),
            properties: members.into_iter().flat_map(|m| m.iter()).map(|(k, v)| (k.into(), Node::read(v))).collect(),
            values: match schema.get("additionalProperties") {
                Some(values @ Value::Object(_)) => Some(Box::new(Node::read(values))),
                Some(Value::Bool(true)) => Some(Box::new(Node { preserves: true, ..Node::default() })),
                _ => None,
            },
            items: schema.get("items").filter(|i| !i.is_null()).map(|i| Box::new(Node::read(i))),
            preserves: says(schema, "x-kubernetes-preserve-unknown-fields"),
            embedded: says(schema, "x-kubernetes-embedded-resource"),
            int_or_string: says(schema, "x-kubernetes-int-or-string"),
            list: match text("x-kubernetes-list-type") {
                "set" => ListType::Set,
                "map" => ListType::Map(texts("x-kubernetes-list-map-keys")),
                _ => ListType::Atomic,
            },
            rules: Vec::new(),
            checks: Checks::read(schema),
            defaults_below: false,
            rules_below: false,
        };
        let has = |n: &Node| n.default.is_some() || n.defaults_below;
        node.defaults_below = node.properties.iter().any(|(_, p)| has(p))
            || node.values.as_deref().is_some_and(has)
            || node.items.as_deref().is_some_and(has);
        node
    }

    fn property(&self, name: &str) -> Option<&Node> {
        self.properties.binary_search_by(|(k, _)| k.as_str().cmp(name)).ok().map(|i| &self.properties[i].1)
    }

    /// The schema of what stands under `key` of an object.
    pub fn child(&self, key: &str) -> Option<&Node> {
        self.property(key).or(self.values.as_deref())
    }
}

impl Checks {
    fn read(schema: &Value) -> Checks {
        let number = |key: &str| schema.get(key).and_then(Value::as_f64);
        let bounds = |what: &str| (schema.int_at(&[&format!("min{what}")]), schema.int_at(&[&format!("max{what}")]));
        let nodes = |key: &str| schema.array_at(&[key]).iter().map(Node::read).collect();
        let pattern = schema.str_at(&["pattern"]).filter(|p| !p.is_empty());
        Checks {
            format: schema.str_at(&["format"]).unwrap_or_default().replace('-', ""),
            pattern: pattern.and_then(|p| Some((p.to_string(), pattern::compile(p).ok()?))),
            minimum: number("minimum"),
            maximum: number("maximum"),
            exclusive_minimum: says(schema, "exclusiveMinimum"),
            exclusive_maximum: says(schema, "exclusiveMaximum"),
            multiple_of: number("multipleOf"),
            length: bounds("Length"),
            items: bounds("Items"),
            members: bounds("Properties"),
            one_of_values: schema.array_at(&["enum"]).to_vec(),
            required: schema.array_at(&["required"]).iter().filter_map(|r| r.as_str().map(str::to_string)).collect(),
            all_of: nodes("allOf"),
            any_of: nodes("anyOf"),
            one_of: nodes("oneOf"),
            not: schema.get("not").filter(|n| !n.is_null()).map(|n| Box::new(Node::read(n))),
        }
    }
}
