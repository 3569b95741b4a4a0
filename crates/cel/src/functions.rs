//! Which functions there are, and their types: the table `signatures.txt`, one signature a line.
//! `.` before a signature makes it a method's; capital letters are type parameters. Source: the functions that the
//! published Kubernetes v1.37 environment lists. What they do is in `library`, what they cost in `cost`.

use crate::types::{Bound, Type};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

pub struct Signature {
    pub member: bool,
    pub params: Vec<Type>,
    pub result: Type,
    /// how many type parameters: in the types they are `Var(0)`, `Var(1)`, ...
    vars: usize,
}

type Table = HashMap<&'static str, Vec<Arc<Signature>>>;

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table = Table::new();
        for line in include_str!("signatures.txt").lines() {
            let (signature, names) = line.split_once(" = ").expect("the table's own form");
            let (params, result) = signature.rsplit_once(' ').expect("the table's own form");
            let member = params.starts_with('.');
            let mut letters = Vec::new();
            let params = params.trim_start_matches('.');
            let params = split(&params[1..params.len() - 1]).map(|p| read(p, &mut letters)).collect();
            let result = read(result, &mut letters);
            let signature = Arc::new(Signature { member, params, result, vars: letters.len() });
            for name in names.split(' ') {
                table.entry(name).or_default().push(signature.clone());
            }
        }
        table
    })
}

/// At the commas outside of brackets.
fn split(text: &'static str) -> impl Iterator<Item = &'static str> {
    let mut depth = 0;
    text.split(move |c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    })
    .filter(|part| !part.is_empty())
}

fn read(text: &'static str, letters: &mut Vec<&'static str>) -> Type {
    if let Some((outer, inner)) = text.strip_suffix(')').and_then(|t| t.split_once('(')) {
        let mut inner = split(inner).map(|t| read(t, letters)).collect::<Vec<_>>();
        let last = inner.pop().expect("a parameter");
        return match outer {
            "list" => Type::list(last),
            "map" => Type::map(inner.pop().expect("a key"), last),
            "optional" => Type::optional(last),
            _ => Type::Type(Arc::new(last)),
        };
    }
    if text.len() == 1 {
        let at = letters.iter().position(|l| *l == text).unwrap_or_else(|| {
            letters.push(text);
            letters.len() - 1
        });
        return Type::Var(at as u32);
    }
    named(text).unwrap_or(Type::Opaque(match text {
        "authorization.Authorizer" => "kubernetes.authorization.Authorizer",
        "authorization.PathCheck" => "kubernetes.authorization.PathCheck",
        "authorization.GroupCheck" => "kubernetes.authorization.GroupCheck",
        "authorization.ResourceCheck" => "kubernetes.authorization.ResourceCheck",
        "authorization.Decision" => "kubernetes.authorization.Decision",
        other => other,
    }))
}

fn named(text: &str) -> Option<Type> {
    Some(match text {
        "dyn" => Type::Dyn,
        "null_type" => Type::Null,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "timestamp" | "google.protobuf.Timestamp" => Type::Timestamp,
        "duration" | "google.protobuf.Duration" => Type::Duration,
        _ => return None,
    })
}

/// The type that an expression names: `int`, `list`, `google.protobuf.Timestamp`, `net.IP`.
pub fn type_named(text: &str) -> Option<Type> {
    match text {
        "list" => Some(Type::list(Type::Dyn)),
        "map" => Some(Type::map(Type::Dyn, Type::Dyn)),
        "optional_type" => Some(Type::optional(Type::Dyn)),
        "type" => Some(Type::Type(Arc::new(Type::Dyn))),
        "timestamp" | "duration" => None, // these are functions only
        "net.IP" => Some(Type::Opaque("net.IP")),
        "net.CIDR" => Some(Type::Opaque("net.CIDR")),
        "kubernetes.URL" => Some(Type::Opaque("kubernetes.URL")),
        "kubernetes.Quantity" => Some(Type::Opaque("kubernetes.Quantity")),
        "kubernetes.Semver" => Some(Type::Opaque("kubernetes.Semver")),
        "kubernetes.NamedFormat" => Some(Type::Opaque("kubernetes.NamedFormat")),
        _ => named(text).filter(|t| *t != Type::Dyn),
    }
}

pub fn named_function(name: &str) -> Option<(&'static str, &'static [Arc<Signature>])> {
    table().get_key_value(name).map(|(name, all)| (*name, all.as_slice()))
}

/// Whether functions are called `prefix.something(...)`.
pub fn is_namespace(prefix: &str) -> bool {
    matches!(prefix, "optional" | "sets" | "strings" | "lists" | "ip" | "format" | "math" | "cel" | "jsonpatch")
}

impl Signature {
    /// Parameters and result with type variables of their own.
    pub fn instantiate(&self, bound: &mut Bound) -> (Vec<Type>, Type) {
        if self.vars == 0 {
            return (self.params.clone(), self.result.clone());
        }
        let first = bound.fresh_many(self.vars);
        (self.params.iter().map(|t| shift(t, first)).collect(), shift(&self.result, first))
    }
}

fn shift(t: &Type, by: u32) -> Type {
    match t {
        Type::Var(v) => Type::Var(v + by),
        Type::List(item) => Type::list(shift(item, by)),
        Type::Map(both) => Type::map(shift(&both.0, by), shift(&both.1, by)),
        Type::Optional(inner) => Type::optional(shift(inner, by)),
        Type::Type(inner) => Type::Type(Arc::new(shift(inner, by))),
        other => other.clone(),
    }
}
