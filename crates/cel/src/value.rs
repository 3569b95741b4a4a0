//! Values while an expression runs. Documents are borrowed and read lazily: a field is converted when it is touched,
//! by the declaration beside it. Invariant: integers, unsigned integers and doubles that are equal as numbers are equal
//! (also as map keys); a `null` member of a declared object is absent.

use crate::authorizer::Check;
use crate::cost::WORK_MAX;
use crate::library::{net, semver};
use crate::schema::{Decl, ListKind, Object, REQUEST_BYTES_MAX, Shape};
use crate::types::Type;
use base64::Engine;
use jiff::Timestamp;
use meta::quantity::Quantity;
use meta::{Map, Value};
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::OnceLock;

/// Why an evaluation ended without a value.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EvalError {
    /// The expression's own fault; `&&` and `||` may absorb it.
    #[error("{0}")]
    Failed(String),
    #[error("operation cancelled: actual cost limit exceeded")]
    CostLimit,
    /// The budget that several expressions share is used up.
    #[error("validation failed due to running out of cost budget, no further validation rules will be run")]
    Budget,
}

pub type Result<T> = std::result::Result<T, EvalError>;

pub fn failed<T>(message: impl Into<String>) -> Result<T> {
    Err(EvalError::Failed(message.into()))
}

pub fn no_overload<T>() -> Result<T> {
    failed("no such overload")
}

#[derive(Clone, Debug)]
pub enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Rc<[u8]>),
    Timestamp(Timestamp),
    /// nanoseconds
    Duration(i64),
    List(List<'a>),
    Map(Members<'a>),
    Optional(Option<Rc<Val<'a>>>),
    Type(Rc<str>),
    Opaque(Rc<Opaque>),
    /// The object whose fields are programs: `variables`.
    Lazy(usize),
    /// An accumulator that failed: `all` and `exists` go on, a later element may decide.
    Fault(Rc<str>),
}

#[derive(Clone, Debug)]
pub enum Text<'a> {
    Doc(&'a str),
    Own(Rc<str>),
}

impl std::ops::Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            Text::Doc(text) => text,
            Text::Own(text) => text,
        }
    }
}

#[derive(Clone, Debug)]
pub struct List<'a> {
    pub items: Items<'a>,
    pub kind: Option<&'a ListKind>,
}

#[derive(Clone, Debug)]
pub enum Items<'a> {
    Doc(&'a [Value], &'a Decl),
    Own(Rc<Vec<Val<'a>>>),
}

#[derive(Clone, Debug)]
pub enum Members<'a> {
    Doc(&'a Map, Fields<'a>),
    Own(Rc<OwnMap<'a>>),
}

/// The pairs of a map as they were written, by a key that can be compared.
pub type OwnMap<'a> = BTreeMap<Key, (Val<'a>, Val<'a>)>;

#[derive(Clone, Copy, Debug)]
pub enum Fields<'a> {
    Each(&'a Decl),
    Object(&'a Object),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    Bool(bool),
    Int(i64),
    Uint(u64),
    String(Box<str>),
}

#[derive(Debug, PartialEq)]
pub enum Opaque {
    Quantity(Quantity),
    Url(net::Url),
    Ip(std::net::IpAddr),
    Cidr(net::Cidr),
    Semver(semver::Semver),
    Format(&'static str),
    Check(Check),
    Decision(crate::authorizer::Decision),
}

impl Opaque {
    pub fn type_name(&self) -> &'static str {
        match self {
            Opaque::Quantity(_) => "kubernetes.Quantity",
            Opaque::Url(_) => "kubernetes.URL",
            Opaque::Ip(_) => "net.IP",
            Opaque::Cidr(_) => "net.CIDR",
            Opaque::Semver(_) => "kubernetes.Semver",
            Opaque::Format(_) => "kubernetes.NamedFormat",
            Opaque::Check(check) => check.type_name(),
            Opaque::Decision(_) => "kubernetes.authorization.Decision",
        }
    }
}

pub fn dyn_decl() -> &'static Decl {
    static DYN: OnceLock<Decl> = OnceLock::new();
    DYN.get_or_init(|| Type::Dyn.into())
}

impl<'a> Val<'a> {
    pub fn text(text: impl AsRef<str>) -> Val<'a> {
        Val::String(Text::Own(text.as_ref().into()))
    }

    pub fn list(items: Vec<Val<'a>>) -> Val<'a> {
        Val::List(List { items: Items::Own(Rc::new(items)), kind: None })
    }

    pub fn texts(items: impl IntoIterator<Item = impl AsRef<str>>) -> Val<'a> {
        Val::list(items.into_iter().map(Val::text).collect())
    }

    pub fn some(value: Val<'a>) -> Val<'a> {
        Val::Optional(Some(Rc::new(value)))
    }

    pub fn opaque(value: Opaque) -> Val<'a> {
        Val::Opaque(Rc::new(value))
    }

    /// A document's value as its declaration reads it.
    pub fn from_doc(value: &'a Value, decl: &'a Decl) -> Val<'a> {
        match (value, &decl.shape) {
            (Value::Null, _) => Val::Null,
            (Value::Bool(b), _) => Val::Bool(*b),
            (Value::Int(i), Shape::Scalar(Type::Double)) => Val::Double(*i as f64),
            (Value::Int(i), _) => Val::Int(*i),
            (Value::Float(f), Shape::Scalar(Type::Int)) if f.fract() == 0.0 => Val::Int(*f as i64),
            (Value::Float(f), _) => Val::Double(*f),
            (Value::String(s), Shape::Scalar(t)) => read_text(s, t),
            (Value::String(s), _) => Val::String(Text::Doc(s)),
            (Value::Array(a), Shape::List(item, kind)) => {
                let kind = Some(kind).filter(|k| **k != ListKind::Atomic);
                Val::List(List { items: Items::Doc(a, item), kind })
            }
            (Value::Array(a), _) => Val::List(List { items: Items::Doc(a, dyn_decl()), kind: None }),
            (Value::Object(m), Shape::Object(object)) => Val::Map(Members::Doc(m, Fields::Object(object))),
            (Value::Object(m), Shape::Map(each)) => Val::Map(Members::Doc(m, Fields::Each(each))),
            (Value::Object(m), _) => Val::Map(Members::Doc(m, Fields::Each(dyn_decl()))),
        }
    }

    pub fn type_name(&self) -> &str {
        match self {
            Val::Null => "null_type",
            Val::Bool(_) => "bool",
            Val::Int(_) => "int",
            Val::Uint(_) => "uint",
            Val::Double(_) => "double",
            Val::String(_) => "string",
            Val::Bytes(_) => "bytes",
            Val::Timestamp(_) => "google.protobuf.Timestamp",
            Val::Duration(_) => "google.protobuf.Duration",
            Val::List(_) => "list",
            Val::Map(_) | Val::Lazy(_) | Val::Fault(_) => "map",
            Val::Optional(_) => "optional_type",
            Val::Type(_) => "type",
            Val::Opaque(o) => o.type_name(),
        }
    }

    /// What costs are made of: characters, bytes, elements, entries; 1 for the rest.
    pub fn size(&self) -> u64 {
        match self {
            Val::String(s) => s.chars().count() as u64,
            Val::Bytes(b) => b.len() as u64,
            Val::List(l) => l.len() as u64,
            Val::Map(m) => m.len() as u64,
            _ => 1,
        }
    }

    pub fn as_str(&self) -> Result<&str> {
        match self {
            Val::String(s) => Ok(s),
            _ => no_overload(),
        }
    }

    pub fn as_int(&self) -> Result<i64> {
        match self {
            Val::Int(i) => Ok(*i),
            _ => no_overload(),
        }
    }

    pub fn as_bool(&self) -> Result<bool> {
        match self {
            Val::Bool(b) => Ok(*b),
            _ => no_overload(),
        }
    }

    pub fn as_list(&self) -> Result<&List<'a>> {
        match self {
            Val::List(l) => Ok(l),
            _ => no_overload(),
        }
    }

    pub fn key(&self) -> Option<Key> {
        match self {
            Val::Bool(b) => Some(Key::Bool(*b)),
            Val::Int(i) => Some(Key::Int(*i)),
            Val::Uint(u) => Some(i64::try_from(*u).map_or(Key::Uint(*u), Key::Int)),
            Val::Double(f) if f.fract() == 0.0 && f.abs() < 9.0e18 => Some(Key::Int(*f as i64)),
            Val::String(s) => Some(Key::String((**s).into())),
            _ => None,
        }
    }

    /// Whether it is the zero of its type: what `optional.ofNonZeroValue` leaves out.
    pub fn is_zero(&self) -> bool {
        match self {
            Val::Null => true,
            Val::Bool(b) => !b,
            Val::Int(i) | Val::Duration(i) => *i == 0,
            Val::Uint(u) => *u == 0,
            Val::Double(f) => *f == 0.0,
            Val::String(_) | Val::Bytes(_) | Val::List(_) | Val::Map(_) => self.size() == 0,
            Val::Optional(inner) => inner.is_none(),
            _ => false,
        }
    }

    /// CEL's equality. `work` counts what was looked at.
    pub fn equals(&self, other: &Val<'a>, work: &mut u64) -> bool {
        *work += 1;
        if *work > WORK_MAX {
            return false; // the caller's budget ends over it
        }
        match (self, other) {
            (Val::Null, Val::Null) => true,
            (Val::Bool(a), Val::Bool(b)) => a == b,
            (Val::String(a), Val::String(b)) => {
                *work += a.len() as u64 / 64;
                **a == **b
            }
            (Val::Bytes(a), Val::Bytes(b)) => a == b,
            (Val::Timestamp(a), Val::Timestamp(b)) => a == b,
            (Val::Duration(a), Val::Duration(b)) => a == b,
            (Val::Type(a), Val::Type(b)) => a == b,
            (Val::Opaque(a), Val::Opaque(b)) => a == b,
            (Val::List(a), Val::List(b)) => a.equals(b, work),
            (Val::Map(a), Val::Map(b)) => {
                a.len() == b.len()
                    && a.iter().all(|(key, value)| b.get(&key).is_some_and(|other| value.equals(&other, work)))
            }
            (Val::Optional(a), Val::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.equals(b, work),
                (a, b) => a.is_none() && b.is_none(),
            },
            _ => self.compare_numbers(other) == Some(Ordering::Equal),
        }
    }

    fn compare_numbers(&self, other: &Val<'a>) -> Option<Ordering> {
        let small = |i: i64, f: f64| {
            if f.is_nan() {
                None
            } else if f >= 9_223_372_036_854_775_808.0 {
                Some(Ordering::Less)
            } else if f < -9_223_372_036_854_775_808.0 {
                Some(Ordering::Greater)
            } else {
                (i as f64).partial_cmp(&f)
            }
        };
        match (self, other) {
            (Val::Int(a), Val::Int(b)) => Some(a.cmp(b)),
            (Val::Uint(a), Val::Uint(b)) => Some(a.cmp(b)),
            (Val::Double(a), Val::Double(b)) => a.partial_cmp(b),
            (Val::Int(a), Val::Uint(b)) => Some(u64::try_from(*a).map_or(Ordering::Less, |a| a.cmp(b))),
            (Val::Int(a), Val::Double(b)) => small(*a, *b),
            (Val::Uint(a), Val::Double(b)) => (*a as f64).partial_cmp(b),
            (Val::Uint(_) | Val::Double(_), Val::Int(_)) | (Val::Double(_), Val::Uint(_)) => {
                other.compare_numbers(self).map(Ordering::reverse)
            }
            _ => None,
        }
    }

    /// CEL's order; an error for what has none. Not-a-number is before nothing and after nothing.
    pub fn compare(&self, other: &Val<'a>) -> Result<Option<Ordering>> {
        Ok(match (self, other) {
            (Val::Bool(a), Val::Bool(b)) => Some(a.cmp(b)),
            (Val::String(a), Val::String(b)) => Some((**a).cmp(&**b)),
            (Val::Bytes(a), Val::Bytes(b)) => Some(a.cmp(b)),
            (Val::Timestamp(a), Val::Timestamp(b)) => Some(a.cmp(b)),
            (Val::Duration(a), Val::Duration(b)) => Some(a.cmp(b)),
            (Val::Int(_) | Val::Uint(_) | Val::Double(_), Val::Int(_) | Val::Uint(_) | Val::Double(_)) => {
                self.compare_numbers(other)
            }
            _ => return no_overload(),
        })
    }

    /// As a document; an error for what JSON cannot say, and for what is larger than a request.
    pub fn to_value(&self) -> Result<Value> {
        self.copied(&mut (REQUEST_BYTES_MAX as usize))
    }

    fn copied(&self, bytes_left: &mut usize) -> Result<Value> {
        let bytes = match self {
            Val::String(s) => s.len() + 2,
            Val::Bytes(b) => b.len() * 4 / 3,
            Val::Map(Members::Doc(map, _)) => map.len() * 8, // a part of a document, which was bounded
            _ => 1,
        };
        let Some(left) = bytes_left.checked_sub(bytes) else { return failed("the result is larger than a request") };
        *bytes_left = left;
        Ok(match self {
            Val::Null => Value::Null,
            Val::Bool(b) => Value::Bool(*b),
            Val::Int(i) => Value::Int(*i),
            Val::Uint(u) => Value::from(*u),
            Val::Double(f) => Value::Float(*f),
            Val::String(s) => Value::from(&**s),
            Val::Bytes(b) => Value::from(base64::engine::general_purpose::STANDARD.encode(b)),
            Val::Timestamp(t) => Value::from(t.to_string()),
            Val::Duration(_) => Value::from(crate::library::time::duration_text(self)),
            Val::List(l) => Value::Array(l.iter().map(|v| v.copied(bytes_left)).collect::<Result<_>>()?),
            Val::Map(Members::Doc(map, _)) => Value::Object((*map).clone()),
            Val::Map(Members::Own(map)) => {
                let mut object = Map::new();
                for (key, value) in map.values() {
                    object.insert(key.as_str()?, value.copied(bytes_left)?);
                }
                Value::Object(object)
            }
            Val::Optional(Some(value)) => value.copied(bytes_left)?,
            Val::Optional(None) => Value::Null,
            Val::Opaque(_) | Val::Type(_) | Val::Lazy(_) | Val::Fault(_) => {
                return failed(format!("a value of type {} cannot be in an object", self.type_name()));
            }
        })
    }
}

fn read_text<'a>(text: &'a str, t: &Type) -> Val<'a> {
    match t {
        Type::Timestamp => {
            let time = crate::library::time::read_timestamp(text);
            time.or_else(|| crate::library::time::read_date(text)).map(Val::Timestamp)
        }
        Type::Duration => crate::library::time::read_duration(text).map(Val::Duration),
        Type::Bytes => {
            base64::engine::general_purpose::STANDARD.decode(text).ok().map(|bytes| Val::Bytes(bytes.into()))
        }
        _ => None,
    }
    .unwrap_or(Val::String(Text::Doc(text)))
}

impl<'a> List<'a> {
    pub fn len(&self) -> usize {
        match &self.items {
            Items::Doc(items, _) => items.len(),
            Items::Own(items) => items.len(),
        }
    }

    pub fn get(&self, index: usize) -> Option<Val<'a>> {
        match &self.items {
            Items::Doc(items, decl) => items.get(index).map(|v| Val::from_doc(v, decl)),
            Items::Own(items) => items.get(index).cloned(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Val<'a>> + '_ {
        (0..self.len()).filter_map(|i| self.get(i))
    }

    fn equals(&self, other: &List<'a>, work: &mut u64) -> bool {
        if self.len() != other.len() {
            return false;
        }
        let Some(kind) = self.kind.or(other.kind) else {
            return self.iter().zip(other.iter()).all(|(a, b)| a.equals(&b, work));
        };
        let theirs = index(other, kind);
        self.iter().all(|item| {
            *work += 1;
            let found = identity(&item, kind).and_then(|id| theirs.get(&id).copied());
            found.and_then(|i| other.get(i)).is_some_and(|theirs| item.equals(&theirs, work))
        })
    }

    /// `+`: sets take what they do not have, maps take over what has their keys.
    pub fn plus(&self, other: &List<'a>) -> List<'a> {
        let mut items: Vec<Val<'a>> = self.iter().collect();
        match self.kind {
            None => items.extend(other.iter()),
            Some(kind) => {
                let mut ours = index(self, kind);
                for item in other.iter() {
                    match identity(&item, kind) {
                        Some(id) => match ours.get(&id) {
                            Some(at) => items[*at] = item,
                            None => {
                                ours.insert(id, items.len());
                                items.push(item);
                            }
                        },
                        None => items.push(item),
                    }
                }
            }
        }
        List { items: Items::Own(Rc::new(items)), kind: self.kind }
    }
}

fn index(list: &List, kind: &ListKind) -> HashMap<Vec<Option<Key>>, usize> {
    list.iter().enumerate().filter_map(|(i, item)| Some((identity(&item, kind)?, i))).collect()
}

/// What makes two elements of a set or map the same one.
fn identity(item: &Val, kind: &ListKind) -> Option<Vec<Option<Key>>> {
    match (kind, item) {
        (ListKind::Map(keys), Val::Map(members)) => {
            Some(keys.iter().map(|key| members.field(key).and_then(|v| v.key())).collect())
        }
        _ => item.key().map(|key| vec![Some(key)]),
    }
}

impl<'a> Members<'a> {
    pub fn len(&self) -> usize {
        match self {
            Members::Doc(map, Fields::Each(_)) => map.len(),
            Members::Doc(map, Fields::Object(object)) => {
                map.iter().filter(|(name, v)| !v.is_null() && object.field(name).is_some()).count()
            }
            Members::Own(map) => map.len(),
        }
    }

    pub fn get(&self, key: &Val<'a>) -> Option<Val<'a>> {
        match (self, key) {
            (Members::Doc(..), Val::String(name)) => self.field(name),
            (Members::Doc(..), _) => None,
            (Members::Own(map), key) => map.get(&key.key()?).map(|(_, v)| v.clone()),
        }
    }

    /// The member an expression calls `name`.
    pub fn field(&self, name: &str) -> Option<Val<'a>> {
        match self {
            Members::Doc(map, Fields::Each(decl)) => map.get(name).map(|v| Val::from_doc(v, decl)),
            Members::Doc(map, Fields::Object(object)) => {
                // what no schema declares is not there, even as dyn
                let field = object.field(name)?;
                map.get(&field.json).filter(|v| !v.is_null()).map(|v| Val::from_doc(v, &field.decl))
            }
            Members::Own(map) => map.get(&Key::String(name.into())).map(|(_, v)| v.clone()),
        }
    }

    pub fn iter(&self) -> Box<dyn Iterator<Item = (Val<'a>, Val<'a>)> + '_> {
        match self {
            Members::Doc(map, fields) => {
                let skip_null = matches!(fields, Fields::Object(_));
                Box::new(map.iter().filter(move |(_, v)| !skip_null || !v.is_null()).filter_map(|(k, _)| {
                    let value = self.field(k)?;
                    Some((Val::String(Text::Doc(k)), value))
                }))
            }
            Members::Own(map) => Box::new(map.values().cloned()),
        }
    }
}
