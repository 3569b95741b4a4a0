//! The document: one parsed Kubernetes object while a request works on it.
//!
//! Objects are stored, cached and sent as bytes; a mutation parses them once into a `Value`, changes it and writes it
//! once. Invariant: the keys of a `Map` are unique and sorted by byte order, so `to_vec` is canonical: equal documents
//! have equal bytes.

use compact_str::CompactString;

/// A JSON value. Integers are kept apart from floats, as Go's decoder does for `int64` and `float64`.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    #[default]
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    String(CompactString),
    Array(Vec<Value>),
    Object(Map),
}

/// A JSON object: entries sorted by key, each key once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map(Vec<(CompactString, Value)>);

impl Map {
    pub const fn new() -> Self {
        Map(Vec::new())
    }

    /// Builds a map from entries in any order. Of entries with the same key the last one wins; the keys that stood
    /// more than once are given to `duplicate`.
    pub(crate) fn from_entries(mut entries: Vec<(CompactString, Value)>, mut duplicate: impl FnMut(&str)) -> Self {
        if !entries.windows(2).all(|w| w[0].0 < w[1].0) {
            entries.sort_by(|a, b| a.0.cmp(&b.0)); // stable: the last of equal keys stays last
            let mut kept: Vec<(CompactString, Value)> = Vec::with_capacity(entries.len());
            for entry in entries {
                match kept.last_mut() {
                    Some(last) if last.0 == entry.0 => {
                        duplicate(&entry.0);
                        *last = entry;
                    }
                    _ => kept.push(entry),
                }
            }
            entries = kept;
        }
        Map(entries)
    }

    fn find(&self, key: &str) -> Result<usize, usize> {
        // Most objects have a handful of keys: a scan beats a binary search there.
        if self.0.len() <= 8 {
            for (i, (k, _)) in self.0.iter().enumerate() {
                match k.as_str().cmp(key) {
                    std::cmp::Ordering::Equal => return Ok(i),
                    std::cmp::Ordering::Greater => return Err(i),
                    std::cmp::Ordering::Less => {}
                }
            }
            return Err(self.0.len());
        }
        self.0.binary_search_by(|(k, _)| k.as_str().cmp(key))
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.find(key).ok().map(|i| &self.0[i].1)
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.find(key).ok().map(|i| &mut self.0[i].1)
    }

    pub fn contains_key(&self, key: &str) -> bool {
        self.find(key).is_ok()
    }

    /// Sets `key`, answering what stood there before.
    pub fn insert(&mut self, key: impl Into<CompactString>, value: impl Into<Value>) -> Option<Value> {
        let (key, value) = (key.into(), value.into());
        match self.find(&key) {
            Ok(i) => Some(std::mem::replace(&mut self.0[i].1, value)),
            Err(i) => {
                self.0.insert(i, (key, value));
                None
            }
        }
    }

    /// The value at `key`, made by `make` when it is absent.
    pub fn get_or_insert_with(&mut self, key: &str, make: impl FnOnce() -> Value) -> &mut Value {
        let i = match self.find(key) {
            Ok(i) => i,
            Err(i) => {
                self.0.insert(i, (key.into(), make()));
                i
            }
        };
        &mut self.0[i].1
    }

    pub fn remove(&mut self, key: &str) -> Option<Value> {
        self.find(key).ok().map(|i| self.0.remove(i).1)
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &Value)> + ExactSizeIterator {
        self.0.iter().map(|(k, v)| (k.as_str(), v))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Value)> {
        self.0.iter_mut().map(|(k, v)| (k.as_str(), v))
    }

    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.iter().map(|(k, _)| k.as_str())
    }

    pub fn values(&self) -> impl DoubleEndedIterator<Item = &Value> {
        self.0.iter().map(|(_, v)| v)
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Value> {
        self.0.iter_mut().map(|(_, v)| v)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&str, &mut Value) -> bool) {
        self.0.retain_mut(|(k, v)| keep(k, v));
    }
}

impl FromIterator<(CompactString, Value)> for Map {
    fn from_iter<T: IntoIterator<Item = (CompactString, Value)>>(iter: T) -> Self {
        Map::from_entries(iter.into_iter().collect(), |_| {})
    }
}

impl IntoIterator for Map {
    type Item = (CompactString, Value);
    type IntoIter = std::vec::IntoIter<(CompactString, Value)>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

static NULL: Value = Value::Null;

impl Value {
    pub fn object() -> Self {
        Value::Object(Map::new())
    }

    /// The member `key` of an object; `None` for anything else.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.as_object().and_then(|m| m.get(key))
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.as_object_mut().and_then(|m| m.get_mut(key))
    }

    /// Walks down object members.
    pub fn at(&self, path: &[&str]) -> Option<&Value> {
        path.iter().try_fold(self, |v, key| v.get(key))
    }

    pub fn at_mut(&mut self, path: &[&str]) -> Option<&mut Value> {
        path.iter().try_fold(self, |v, key| v.get_mut(key))
    }

    pub fn str_at(&self, path: &[&str]) -> Option<&str> {
        self.at(path).and_then(Value::as_str)
    }

    pub fn int_at(&self, path: &[&str]) -> Option<i64> {
        self.at(path).and_then(Value::as_i64)
    }

    pub fn bool_at(&self, path: &[&str]) -> Option<bool> {
        self.at(path).and_then(Value::as_bool)
    }

    /// The list at `path`; empty when there is none.
    pub fn array_at(&self, path: &[&str]) -> &[Value] {
        self.at(path).and_then(|v| v.as_array()).map_or(&[], |v| v.as_slice())
    }

    /// Sets the member at `path`, making the objects on the way (and replacing what on the way is no object).
    pub fn set(&mut self, path: &[&str], value: impl Into<Value>) {
        *self.slot(path) = value.into();
    }

    /// Sets the member at `path` only where it is absent or null.
    pub fn set_default(&mut self, path: &[&str], value: impl Into<Value>) {
        let slot = self.slot(path);
        if slot.is_null() {
            *slot = value.into();
        }
    }

    /// The place at `path`, made (as null, inside new objects) where it is absent.
    pub fn slot(&mut self, path: &[&str]) -> &mut Value {
        path.iter().fold(self, |v, key| v.make_object().get_or_insert_with(key, || Value::Null))
    }

    /// This value as an object, turned into an empty one when it is something else.
    pub fn make_object(&mut self) -> &mut Map {
        if !matches!(self, Value::Object(_)) {
            *self = Value::object();
        }
        match self {
            Value::Object(m) => m,
            _ => unreachable!("made an object above"),
        }
    }

    /// This value as a list, turned into an empty one when it is something else.
    pub fn make_array(&mut self) -> &mut Vec<Value> {
        if !matches!(self, Value::Array(_)) {
            *self = Value::Array(Vec::new());
        }
        match self {
            Value::Array(a) => a,
            _ => unreachable!("made a list above"),
        }
    }

    pub fn remove(&mut self, path: &[&str]) -> Option<Value> {
        let (last, parents) = path.split_last()?;
        self.at_mut(parents)?.as_object_mut()?.remove(last)
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(s) => Some(s),
            _ => None,
        }
    }

    /// The number as an integer; a float counts when it has no fraction.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Value::Int(i) => Some(*i),
            Value::Float(f) if f.fract() == 0.0 && f.abs() < 9.0e15 => Some(*f as i64),
            _ => None,
        }
    }

    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Int(i) => Some(*i as f64),
            Value::Float(f) => Some(*f),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(b) => Some(*b),
            _ => None,
        }
    }

    pub fn as_array(&self) -> Option<&Vec<Value>> {
        match self {
            Value::Array(a) => Some(a),
            _ => None,
        }
    }

    pub fn as_array_mut(&mut self) -> Option<&mut Vec<Value>> {
        match self {
            Value::Array(a) => Some(a),
            _ => None,
        }
    }

    pub fn as_object(&self) -> Option<&Map> {
        match self {
            Value::Object(m) => Some(m),
            _ => None,
        }
    }

    pub fn as_object_mut(&mut self) -> Option<&mut Map> {
        match self {
            Value::Object(m) => Some(m),
            _ => None,
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// Null, false, 0, "", {} or []: what Go's `omitempty` leaves out.
    pub fn is_empty(&self) -> bool {
        match self {
            Value::Null => true,
            Value::Bool(b) => !b,
            Value::Int(i) => *i == 0,
            Value::Float(f) => *f == 0.0,
            Value::String(s) => s.is_empty(),
            Value::Array(a) => a.is_empty(),
            Value::Object(m) => m.is_empty(),
        }
    }

    /// The JSON name of the type, as Go's decoder words it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Int(_) | Value::Float(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        }
    }

    pub fn take(&mut self) -> Value {
        std::mem::take(self)
    }
}

/// `value["a"]["b"]` reads as null where a member is absent.
impl std::ops::Index<&str> for Value {
    type Output = Value;
    fn index(&self, key: &str) -> &Value {
        self.get(key).unwrap_or(&NULL)
    }
}

impl std::ops::Index<usize> for Value {
    type Output = Value;
    fn index(&self, index: usize) -> &Value {
        self.as_array().and_then(|a| a.get(index)).unwrap_or(&NULL)
    }
}

/// Displays as JSON.
impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.to_vec()))
    }
}

macro_rules! from {
    ($($t:ty => |$v:ident| $e:expr),* $(,)?) => {$(
        impl From<$t> for Value {
            fn from($v: $t) -> Value { $e }
        }
    )*};
}
from! {
    bool => |v| Value::Bool(v),
    i32 => |v| Value::Int(v.into()),
    u16 => |v| Value::Int(v.into()),
    u32 => |v| Value::Int(v.into()),
    i64 => |v| Value::Int(v),
    u64 => |v| i64::try_from(v).map_or(Value::Float(v as f64), Value::Int),
    usize => |v| Value::from(v as u64),
    f64 => |v| Value::Float(v),
    &str => |v| Value::String(v.into()),
    String => |v| Value::String(v.into()),
    &String => |v| Value::String(v.as_str().into()),
    CompactString => |v| Value::String(v),
    Map => |v| Value::Object(v),
    &Value => |v| v.clone(),
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(v: Vec<T>) -> Value {
        Value::Array(v.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(v: Option<T>) -> Value {
        v.map_or(Value::Null, Into::into)
    }
}

/// Makes a [`Value`] the way `serde_json::json!` makes its own: `json!({"a": [1, x], "b": {"c": null}})`.
#[macro_export]
macro_rules! json {
    ($($tokens:tt)+) => { $crate::Value::from($crate::serde_json::json!($($tokens)+)) };
}

impl From<serde_json::Value> for Value {
    fn from(v: serde_json::Value) -> Value {
        use serde_json::Value as J;
        match v {
            J::Null => Value::Null,
            J::Bool(b) => Value::Bool(b),
            J::Number(n) => match n.as_i64() {
                Some(i) => Value::Int(i),
                None => Value::Float(n.as_f64().unwrap_or(0.0)),
            },
            J::String(s) => Value::String(s.into()),
            J::Array(a) => Value::Array(a.into_iter().map(Value::from).collect()),
            J::Object(o) => Value::Object(o.into_iter().map(|(k, v)| (k.into(), v.into())).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_make_objects_and_keep_keys_sorted() {
        let mut v = Value::object();
        v.set(&["spec", "replicas"], 3);
        v.set(&["metadata", "name"], "web");
        v.set_default(&["spec", "replicas"], 1);
        v.set_default(&["spec", "paused"], false);
        assert_eq!(v.to_string(), r#"{"metadata":{"name":"web"},"spec":{"paused":false,"replicas":3}}"#);
        assert_eq!(v.remove(&["spec", "paused"]), Some(Value::Bool(false)));
        assert_eq!(v["spec"]["replicas"].as_i64(), Some(3));
        assert!(v["none"]["at all"].is_null());
    }

    #[test]
    fn the_last_of_equal_keys_wins() {
        let mut seen = Vec::new();
        let map =
            Map::from_entries(vec![("b".into(), 1.into()), ("a".into(), 2.into()), ("b".into(), 3.into())], |k| {
                seen.push(k.to_string())
            });
        assert_eq!(Value::Object(map).to_string(), r#"{"a":2,"b":3}"#);
        assert_eq!(seen, ["b"]);
    }

    #[test]
    fn the_macro_makes_documents() {
        let name = "web";
        let v = json!({"kind": "Pod", "metadata": {"name": name}, "list": [1, 2.5, null, true]});
        assert_eq!(v.to_string(), r#"{"kind":"Pod","list":[1,2.5,null,true],"metadata":{"name":"web"}}"#);
    }
}
