//! CEL's types as the checker sees them: what is assignable to what, and how errors print them.
//! Invariant: object types are equal when their names are.

use crate::schema::Object;
use std::fmt;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub enum Type {
    /// What a faulty expression has: fits everywhere, so that one fault is told once.
    Error,
    Dyn,
    /// What a declaration leaves open: used as `Dyn` is, yet said to be something else.
    Any,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    List(Arc<Type>),
    Map(Arc<(Type, Type)>),
    Optional(Arc<Type>),
    /// The type of a type.
    Type(Arc<Type>),
    /// A type with functions only: `kubernetes.Quantity`, `net.IP`.
    Opaque(&'static str),
    Object(Arc<Object>),
    /// A type to be found: an index into `Bound`.
    Var(u32),
}

impl Type {
    pub fn list(item: Type) -> Type {
        Type::List(Arc::new(item))
    }

    pub fn map(key: Type, value: Type) -> Type {
        Type::Map(Arc::new((key, value)))
    }

    pub fn optional(inner: Type) -> Type {
        Type::Optional(Arc::new(inner))
    }

    pub fn is_dyn(&self) -> bool {
        matches!(self, Type::Dyn | Type::Any | Type::Error)
    }
}

impl PartialEq for Type {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Type::List(a), Type::List(b))
            | (Type::Optional(a), Type::Optional(b))
            | (Type::Type(a), Type::Type(b)) => a == b,
            (Type::Map(a), Type::Map(b)) => a == b,
            (Type::Opaque(a), Type::Opaque(b)) => a == b,
            (Type::Object(a), Type::Object(b)) => a.name == b.name,
            (Type::Var(a), Type::Var(b)) => a == b,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

/// As the checker's errors print them; `{:#}` gives the types' own names.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Type::List(inner) | Type::Optional(inner) | Type::Type(inner) = self {
            let outer = match self {
                Type::List(_) => "list",
                Type::Optional(_) => "optional_type",
                _ => "type",
            };
            write!(f, "{outer}(")?;
            inner.fmt(f)?;
            return f.write_str(")");
        }
        if let Type::Map(both) = self {
            f.write_str("map(")?;
            both.0.fmt(f)?;
            f.write_str(", ")?;
            both.1.fmt(f)?;
            return f.write_str(")");
        }
        f.write_str(match self {
            Type::Any if f.alternate() => "google.protobuf.Any",
            Type::Null if f.alternate() => "null_type",
            Type::Timestamp if f.alternate() => "google.protobuf.Timestamp",
            Type::Duration if f.alternate() => "google.protobuf.Duration",
            Type::Error => "!error!",
            Type::Dyn | Type::Var(_) => "dyn",
            Type::Any => "any",
            Type::Null => "null",
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Uint => "uint",
            Type::Double => "double",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Timestamp => "timestamp",
            Type::Duration => "duration",
            Type::Opaque(name) => name,
            Type::Object(object) => &object.name,
            Type::List(_) | Type::Map(_) | Type::Optional(_) | Type::Type(_) => unreachable!("written above"),
        })
    }
}

/// What the type variables of one expression stand for.
#[derive(Clone, Debug, Default)]
pub struct Bound(Vec<Option<Type>>);

impl Bound {
    pub fn fresh(&mut self) -> Type {
        self.0.push(None);
        Type::Var(self.0.len() as u32 - 1)
    }

    pub fn fresh_many(&mut self, count: usize) -> u32 {
        let first = self.0.len();
        self.0.resize(first + count, None);
        first as u32
    }

    /// The variables bound so far: to go back when an overload does not fit.
    pub fn save(&self) -> Vec<Option<Type>> {
        self.0.clone()
    }

    pub fn restore(&mut self, saved: Vec<Option<Type>>) {
        self.0 = saved;
    }

    fn get(&self, var: u32) -> Option<&Type> {
        self.0.get(var as usize).and_then(Option::as_ref)
    }

    /// The type with its variables replaced; those still open become `dyn` when `close`.
    pub fn resolve(&self, t: &Type, close: bool) -> Type {
        match t {
            Type::Var(v) => match self.get(*v) {
                Some(bound) => self.resolve(&bound.clone(), close),
                None if close => Type::Dyn,
                None => t.clone(),
            },
            Type::List(item) => Type::list(self.resolve(item, close)),
            Type::Map(both) => Type::map(self.resolve(&both.0, close), self.resolve(&both.1, close)),
            Type::Optional(inner) => Type::optional(self.resolve(inner, close)),
            Type::Type(inner) => Type::Type(Arc::new(self.resolve(inner, close))),
            other => other.clone(),
        }
    }

    /// The variable that a chain of variables ends in.
    fn end(&self, var: u32) -> u32 {
        match self.get(var) {
            Some(Type::Var(next)) => self.end(*next),
            _ => var,
        }
    }

    fn occurs(&self, var: u32, within: &Type) -> bool {
        match within {
            Type::Var(v) => *v == var || self.get(*v).is_some_and(|t| self.occurs(var, t)),
            Type::List(t) | Type::Optional(t) | Type::Type(t) => self.occurs(var, t),
            Type::Map(both) => self.occurs(var, &both.0) || self.occurs(var, &both.1),
            _ => false,
        }
    }

    /// Whether a value of type `from` fits where `to` is asked for; binds variables on the way.
    pub fn assignable(&mut self, to: &Type, from: &Type) -> bool {
        match (to, from) {
            (Type::Var(a), Type::Var(b)) if self.end(*a) == self.end(*b) => true,
            (Type::Var(v), other) | (other, Type::Var(v)) => match self.get(*v).cloned() {
                Some(bound) => {
                    let fits = if matches!(to, Type::Var(_)) {
                        self.assignable(&bound, other)
                    } else {
                        self.assignable(other, &bound)
                    };
                    if fits && more_general(other, &bound) && !self.occurs(*v, other) {
                        self.0[*v as usize] = Some(other.clone());
                    }
                    fits
                }
                None if self.occurs(*v, other) => false,
                None => {
                    self.0[*v as usize] = Some(other.clone());
                    true
                }
            },
            (a, b) if a.is_dyn() || b.is_dyn() => true,
            (Type::Null, other) | (other, Type::Null) => matches!(
                other,
                Type::Null | Type::Timestamp | Type::Duration | Type::Opaque(_) | Type::Object(_) | Type::Optional(_)
            ),
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => self.assignable(a, b),
            (Type::Type(_), Type::Type(_)) => true,
            (Type::Map(a), Type::Map(b)) => self.assignable(&a.0, &b.0) && self.assignable(&a.1, &b.1),
            (a, b) => a == b,
        }
    }

    /// The one type of two branches or elements: `dyn` when they differ.
    pub fn join(&mut self, a: &Type, b: &Type) -> Type {
        let saved = self.save();
        if self.assignable(b, a) {
            return if more_general(a, b) { a.clone() } else { b.clone() };
        }
        self.restore(saved);
        Type::Dyn
    }
}

/// Whether `a` is `b` or says less than `b`.
fn more_general(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Dyn | Type::Var(_), _) => true,
        (_, Type::Dyn | Type::Var(_)) => false,
        (Type::Any, _) => true,
        (_, Type::Any) => false,
        (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => more_general(a, b),
        (Type::Map(a), Type::Map(b)) => more_general(&a.0, &b.0) && more_general(&a.1, &b.1),
        (Type::Type(_), Type::Type(_)) => true,
        (a, b) => a == b,
    }
}
