//! Which objects a list or a watch means: namespace, label selector, field selector.
//!
//! Reads the query; matches by the headers of objects. Only the kind's own fields make an object be parsed, once.
//! Invariant: the fields of a custom resource are those of the version that was asked for, whatever it is stored in.

use std::sync::Arc;

use compact_str::CompactString;
use meta::Status;
use meta::selector::{FieldRequirement, FieldSelector, LabelSelector};

use crate::object::Object;
use crate::registry::Served;
use crate::request::{Query, ResourcePath};

pub struct Filter {
    /// What the keys of all meant objects begin with: `NAMESPACE/`, or nothing.
    pub prefix: CompactString,
    /// The one key that can match, when a name is asked for in a known namespace.
    pub key: Option<CompactString>,
    labels: LabelSelector,
    /// Of name and namespace.
    fields: FieldSelector,
    /// Of the kind's own fields.
    own: FieldSelector,
    served: Arc<Served>,
}

impl Filter {
    pub fn parse(served: &Arc<Served>, path: &ResourcePath, query: &Query) -> Result<Filter, Status> {
        let labels = LabelSelector::parse(query.get("labelSelector")).map_err(Status::bad_request)?;
        let mut fields = FieldSelector::parse(query.get("fieldSelector")).map_err(Status::bad_request)?;
        for requirement in &fields.requirements {
            served.check_field(&requirement.field)?;
        }
        let mut namespace = path.namespace.clone();
        if served.namespaced
            && namespace.is_empty()
            && let Some(asked) = fields.exact("metadata.namespace")
        {
            namespace = asked.to_string();
        }
        // Compat: `watch` on the path of one object is a watch of the collection with that name.
        let name = if path.name.is_empty() { fields.exact("metadata.name") } else { Some(path.name.as_str()) };
        let prefix = if namespace.is_empty() { CompactString::default() } else { format!("{namespace}/").into() };
        let key = match name {
            Some(name) if !served.namespaced => Some(name.into()),
            Some(name) if !namespace.is_empty() => Some(format!("{namespace}/{name}").into()),
            _ => None,
        };
        if !path.name.is_empty() && fields.exact("metadata.name").is_none() {
            let own = FieldSelector::parse(&format!("metadata.name={}", path.name)).map_err(Status::bad_request)?;
            fields.requirements.extend(own.requirements);
        }
        let is_own = |r: &FieldRequirement| !matches!(&*r.field, "metadata.name" | "metadata.namespace");
        let own = FieldSelector { requirements: fields.requirements.extract_if(.., |r| is_own(r)).collect() };
        Ok(Filter { prefix, key, labels, fields, own, served: served.clone() })
    }

    /// Neither selector leaves anything out.
    pub fn takes_all(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything() && self.own.is_everything()
    }

    /// Whether the object is meant, but for `matches_shown`.
    pub fn matches(&self, object: &Object) -> bool {
        if !object.key.starts_with(self.prefix.as_str()) {
            return false;
        }
        if !self.labels.is_everything() && !self.labels.matches_with(|key| object.label(key)) {
            return false;
        }
        let by_name = self.fields.matches_with(|field| match field {
            "metadata.name" => &object.name,
            _ => &object.namespace,
        });
        if !by_name || self.own.is_everything() || self.served.custom.is_some() {
            return by_name;
        }
        self.own_match(object.fields(|document| self.served.fields(document)))
    }

    /// Whether fields of a custom resource were asked for: then it takes `matches_shown` to know what is meant.
    pub fn needs_shown(&self) -> bool {
        self.served.custom.is_some() && !self.own.is_everything()
    }

    /// Whether an object that `matches`, as the version shows it, is meant. Which fields it has changes with the
    /// definition, so they are not kept.
    pub fn matches_shown(&self, shown: &Object) -> bool {
        !self.needs_shown() || self.own_match(&self.served.fields(&shown.document_without_owners()))
    }

    fn own_match(&self, own: &[(CompactString, CompactString)]) -> bool {
        self.own.matches_with(|field| own.iter().find(|(k, _)| k == field).map_or("", |(_, v)| v))
    }
}
