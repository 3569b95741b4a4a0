//! Which objects a list or a watch means: namespace, label selector, field selector.
//!
//! Reads the query; matches by the headers of objects. Only the kind's own fields make an object be parsed, once.

use std::sync::Arc;

use compact_str::CompactString;
use meta::Status;
use meta::selector::{FieldSelector, LabelSelector};

use crate::object::Object;
use crate::registry::Served;
use crate::request::{Query, ResourcePath};

pub struct Filter {
    /// What the keys of all meant objects begin with: `NAMESPACE/`, or nothing.
    pub prefix: CompactString,
    /// The one key that can match, when a name is asked for in a known namespace.
    pub key: Option<CompactString>,
    labels: LabelSelector,
    fields: FieldSelector,
    served: Arc<Served>,
    custom: bool,
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
        let custom = fields.requirements.iter().any(|r| !matches!(&*r.field, "metadata.name" | "metadata.namespace"));
        Ok(Filter { prefix, key, labels, fields, served: served.clone(), custom })
    }

    /// Neither selector leaves anything out.
    pub fn takes_all(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    pub fn matches(&self, object: &Object) -> bool {
        if !object.key.starts_with(self.prefix.as_str()) {
            return false;
        }
        if !self.labels.is_everything() && !self.labels.matches_with(|key| object.label(key)) {
            return false;
        }
        if self.fields.is_everything() {
            return true;
        }
        let read;
        let own: &[(CompactString, CompactString)] = match &self.served.custom {
            _ if !self.custom => &[],
            // Which fields these are changes with the definition, so they are not kept.
            Some(_) => {
                read = self.served.fields(&object.document_without_owners());
                &read
            }
            None => object.fields(|document| self.served.fields(document)),
        };
        self.fields.matches_with(|field| match field {
            "metadata.name" => &object.name,
            "metadata.namespace" => &object.namespace,
            field => own.iter().find(|(k, _)| k == field).map_or("", |(_, v)| v),
        })
    }
}
