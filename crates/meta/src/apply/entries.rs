//! The entries of `metadata.managedFields`: one per manager, operation, version and subresource.
//!
//! Invariant: what is written is sorted as upstream sorts it, holds no empty set, and at most ten `Update` entries (older
//! ones are folded into `ancient-changes`).

use super::fields;
use super::{Conflict, Writer, timestamp};
use crate::time::Timestamp;
use crate::{Map, Value};

/// Upstream's bound on entries of operation `Update`.
const MAX_UPDATE_ENTRIES: usize = 10;
const ANCIENT: &str = "ancient-changes";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    operation: Operation,
    /// RFC 3339, seconds, UTC: sorts as text.
    time: String,
    manager: String,
    api_version: String,
    subresource: String,
    fields: Map,
}

impl Entry {
    fn read(value: &Value) -> Option<Self> {
        let text = |name: &str| value.str_at(&[name]).unwrap_or_default().to_string();
        let operation = match value.str_at(&["operation"]) {
            Some("Apply") => Operation::Apply,
            Some("Update") => Operation::Update,
            _ => return None,
        };
        let fields = value.get("fieldsV1").and_then(Value::as_object)?.clone();
        let known = |step: &str| step == "." || matches!(step.as_bytes(), [b'f' | b'k' | b'v' | b'i', b':', ..]);
        if value.str_at(&["fieldsType"]) != Some("FieldsV1") || !fields.keys().all(known) {
            return None;
        }
        Some(Entry {
            operation,
            time: text("time"),
            manager: text("manager"),
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            fields,
        })
    }

    fn into_value(self) -> Value {
        let operation = if self.operation == Operation::Apply { "Apply" } else { "Update" };
        let mut entries: Vec<(compact_str::CompactString, Value)> = Vec::with_capacity(7);
        entries.push(("apiVersion".into(), self.api_version.into()));
        entries.push(("fieldsType".into(), "FieldsV1".into()));
        entries.push(("fieldsV1".into(), Value::Object(self.fields)));
        if !self.manager.is_empty() {
            entries.push(("manager".into(), self.manager.into()));
        }
        entries.push(("operation".into(), operation.into()));
        if !self.subresource.is_empty() {
            entries.push(("subresource".into(), self.subresource.into()));
        }
        if !self.time.is_empty() {
            entries.push(("time".into(), self.time.into()));
        }
        Value::Object(entries.into_iter().collect())
    }

    /// As upstream words it in conflicts.
    fn describe(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Entries(Vec<Entry>);

impl Entries {
    /// The entries of an object; none for null.
    pub fn read(object: &Value) -> Self {
        Self::from_list(object.array_at(&["metadata", "managedFields"]))
    }

    pub fn from_list(list: &[Value]) -> Self {
        Entries(list.iter().filter_map(Entry::read).collect())
    }

    /// The entries of a list that a client sent; none unless all of them can be read.
    pub fn sent(list: &[Value]) -> Option<Self> {
        list.iter().map(Entry::read).collect::<Option<_>>().map(Entries)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The writer's own entry. An applier is the same in every version.
    pub fn find(&self, writer: &Writer<'_>, operation: Operation) -> Option<usize> {
        self.0.iter().position(|e| {
            e.operation == operation
                && e.manager == writer.manager
                && e.subresource == writer.subresource
                && (operation == Operation::Apply || e.api_version == writer.api_version)
        })
    }

    pub fn push(&mut self, writer: &Writer<'_>, operation: Operation) -> usize {
        self.0.push(Entry {
            operation,
            time: String::new(),
            manager: writer.manager.into(),
            api_version: writer.api_version.into(),
            subresource: writer.subresource.into(),
            fields: Map::new(),
        });
        self.0.len() - 1
    }

    pub fn version(&self, at: usize) -> &str {
        &self.0[at].api_version
    }

    /// Whether there is an entry of this version.
    pub fn any_of(&self, api_version: &str) -> bool {
        self.0.iter().any(|e| e.api_version == api_version)
    }

    /// Drops entries of versions of other groups. Compat: upstream cannot tell one group's fields in another's (events).
    pub fn keep_group(&mut self, api_version: &str) {
        fn group(version: &str) -> &str {
            version.split_once('/').map_or("", |(group, _)| group)
        }
        self.0.retain(|e| group(&e.api_version) == group(api_version));
    }

    pub fn fields_mut(&mut self, at: usize) -> &mut Map {
        &mut self.0[at].fields
    }

    pub fn touch(&mut self, at: usize, now: Timestamp) {
        self.0[at].time = timestamp(now);
    }

    pub fn set_version(&mut self, at: usize, api_version: &str) {
        self.0[at].api_version = api_version.into();
    }

    /// Every field that anybody owns.
    pub fn all_fields(&self) -> Map {
        let mut all = Map::new();
        for entry in &self.0 {
            fields::union(&mut all, &entry.fields);
        }
        all
    }

    /// The fields `wanted`, as told in each version, that entries other than `mine` hold.
    pub fn conflicts<'w>(&self, mine: usize, wanted: impl Fn(&str) -> &'w Map) -> Vec<(usize, Map)> {
        let others = self.0.iter().enumerate().filter(|(at, _)| *at != mine);
        others
            .map(|(at, entry)| (at, fields::intersection(&entry.fields, wanted(&entry.api_version))))
            .filter(|(_, shared)| !shared.is_empty())
            .collect()
    }

    pub fn describe(&self, conflicts: &[(usize, Map)]) -> Vec<Conflict> {
        let mut all: Vec<Conflict> = conflicts
            .iter()
            .flat_map(|(at, shared)| {
                let manager = self.0[*at].describe();
                fields::paths(shared).into_iter().map(move |path| Conflict { manager: manager.clone(), path })
            })
            .collect();
        all.sort_by(|a, b| a.manager.cmp(&b.manager)); // stable
        all
    }

    /// Adds entries; those of the same manager become one.
    pub fn absorb(&mut self, others: Entries) {
        for other in others.0 {
            let same = |e: &&mut Entry| {
                let of = |e: &Entry| (e.operation, e.manager.clone(), e.subresource.clone());
                of(e) == of(&other) && (e.operation == Operation::Apply || e.api_version == other.api_version)
            };
            match self.0.iter_mut().find(same) {
                Some(entry) => {
                    fields::union(&mut entry.fields, &other.fields);
                    entry.time = std::mem::take(&mut entry.time).max(other.time);
                }
                None => self.0.push(other),
            }
        }
    }

    pub fn drop_empty(&mut self) {
        self.0.retain(|e| !e.fields.is_empty());
    }

    /// The same managers own the same fields; times don't count.
    pub fn same_fields(&self, other: &Entries) -> bool {
        let strip = |entries: &Entries| {
            let mut list = entries.clone();
            list.0.iter_mut().for_each(|e| e.time.clear());
            list.sort();
            list
        };
        self.len() == other.len() && strip(self) == strip(other)
    }

    /// Folds the oldest updates into one entry per version when there are too many.
    pub fn cap_updates(&mut self) {
        let updates = |list: &[Entry]| list.iter().filter(|e| e.operation == Operation::Update).count();
        if updates(&self.0) <= MAX_UPDATE_ENTRIES {
            return;
        }
        self.sort();
        let mut folded: Vec<Entry> = Vec::new();
        while updates(&self.0) + folded.len() > MAX_UPDATE_ENTRIES {
            let Some(at) = self.0.iter().position(|e| e.operation == Operation::Update) else { break };
            let oldest = self.0.remove(at);
            match folded.iter_mut().find(|e| e.api_version == oldest.api_version && e.subresource == oldest.subresource)
            {
                Some(bucket) => {
                    fields::union(&mut bucket.fields, &oldest.fields);
                    bucket.time = bucket.time.clone().max(oldest.time);
                }
                None => folded.push(Entry { manager: ANCIENT.into(), ..oldest }),
            }
        }
        self.0.append(&mut folded);
    }

    fn sort(&mut self) {
        self.0.sort_by(|a, b| {
            let key = |e: &Entry| (e.operation, e.time.clone());
            key(a)
                .cmp(&key(b))
                .then_with(|| a.manager.cmp(&b.manager))
                .then_with(|| a.api_version.cmp(&b.api_version))
                .then_with(|| a.subresource.cmp(&b.subresource))
        });
    }

    /// Sets the object's managedFields; removes them when there are none.
    pub fn write(mut self, object: &mut Value) {
        if self.0.is_empty() {
            object.remove(&["metadata", "managedFields"]);
            return;
        }
        self.sort();
        let list: Vec<Value> = self.0.into_iter().map(Entry::into_value).collect();
        object.set(&["metadata", "managedFields"], Value::Array(list));
    }
}
