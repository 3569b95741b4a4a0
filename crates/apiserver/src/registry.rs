//! What is served: every resource with its rules, its type and its cache.
//!
//! Built from the generated table at the start; replaced as a whole when the set changes. Invariant: versions and groups
//! that store into the same place share one cache.

use std::collections::HashMap;
use std::sync::Arc;

use api::kinds::{self, Kind};
use api::resource::{self, Resource};
use arc_swap::ArcSwap;
use bytes::Bytes;
use meta::schema::TypeRef;
use meta::{GroupKind, GroupResource, Status, Value};

use crate::cache::Cache;
use crate::convert::{self, Conversion};
use crate::object::{Fields, Object};

/// One resource in one version.
pub struct Served {
    pub info: &'static Resource,
    pub rules: &'static Kind,
    pub ty: Option<TypeRef<'static>>,
    pub cache: Arc<Cache>,
    /// The stored form differs from this version.
    pub conversion: Option<&'static Conversion>,
    pub namespaced: bool,
    /// The status is written by an endpoint of its own.
    pub has_status: bool,
    pub kind: String,
    pub list_kind: String,
    /// `v1`, `apps/v1`
    pub api_version: String,
    pub gr: GroupResource,
    pub gk: GroupKind,
    /// With a slash at its end: `/registry/pods/`.
    pub prefix: String,
}

impl Served {
    fn new(info: &'static Resource, cache: Arc<Cache>) -> Served {
        Served {
            rules: kinds::of(&info.group, &info.kind),
            ty: info.root_type(),
            cache,
            conversion: convert::between(info),
            namespaced: info.namespaced,
            has_status: info.subresource("status").is_some(),
            kind: info.kind.to_string(),
            list_kind: info.list_kind.to_string(),
            api_version: info.api_version(),
            gr: info.group_resource(),
            gk: info.group_kind(),
            prefix: info.key_prefix(""),
            info,
        }
    }

    /// The key below the prefix.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced { format!("{namespace}/{name}") } else { name.to_string() }
    }

    /// The key in the store of a key below the prefix.
    pub fn store_key(&self, key: &str) -> Bytes {
        let mut full = Vec::with_capacity(self.prefix.len() + key.len());
        full.extend_from_slice(self.prefix.as_bytes());
        full.extend_from_slice(key.as_bytes());
        full.into()
    }

    /// The object as a document of this version.
    pub fn read(&self, object: &Object) -> Value {
        let mut document = object.document();
        if let Some(conversion) = self.conversion {
            (conversion.from_stored)(&mut document);
        }
        document
    }

    /// Refuses a field selector on a field that the kind does not offer.
    pub fn check_field(&self, field: &str) -> Result<(), Status> {
        if matches!(field, "metadata.name" | "metadata.namespace") || self.rules.selectable_names.contains(&field) {
            return Ok(());
        }
        // Compat: kinds with fields of their own word it their own way (apimachinery's and each API's conversion).
        let message = if self.rules.selectable_names.is_empty() {
            format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
        } else {
            format!("field label not supported: {field}")
        };
        Err(Status::bad_request(message))
    }

    /// Reads the fields that selectors may name.
    pub fn fields(&self, document: &Value) -> Fields {
        (self.rules.selectable)(document).into_iter().map(|(k, v)| (k.into(), v.into())).collect()
    }

    pub fn can(&self, verb: &str) -> bool {
        self.info.can(verb)
    }

    /// Objects of this resource are kept, rather than answered at once as reviews are.
    pub fn is_stored(&self) -> bool {
        self.can("list") && self.info.plural != "componentstatuses"
    }
}

/// By group, then by plural: the versions.
type Tables = HashMap<String, HashMap<String, Vec<Arc<Served>>>>;

pub struct Registry {
    tables: ArcSwap<Tables>,
}

impl Registry {
    /// All built-in resources, and the caches of those that are stored, by prefix.
    pub fn built_in() -> (Registry, HashMap<String, Arc<Cache>>) {
        let mut caches: HashMap<String, Arc<Cache>> = HashMap::new();
        let mut tables = Tables::new();
        for info in resource::all() {
            let cache =
                if info.can("list") { caches.entry(info.key_prefix("")).or_default().clone() } else { Arc::default() };
            let served = Arc::new(Served::new(info, cache));
            tables.entry(info.group.to_string()).or_default().entry(info.plural.to_string()).or_default().push(served);
        }
        (Registry { tables: ArcSwap::from_pointee(tables) }, caches)
    }

    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Served>> {
        self.tables.load().get(group)?.get(plural)?.iter().find(|s| s.info.version == version).cloned()
    }

    /// The version of a resource in which it is stored.
    pub fn stored(&self, group: &str, plural: &str) -> Option<Arc<Served>> {
        self.tables.load().get(group)?.get(plural)?.iter().find(|s| s.conversion.is_none()).cloned()
    }

    /// Where a resource's documents are kept: itself, or the version it converts to.
    pub fn target(&self, served: &Arc<Served>) -> Arc<Served> {
        if served.conversion.is_none() {
            return served.clone();
        }
        self.stored(&served.info.storage.group, &served.info.plural).unwrap_or_else(|| served.clone())
    }

    /// Every resource in its stored version.
    pub fn all_stored(&self) -> Vec<Arc<Served>> {
        let tables = self.tables.load();
        let all = tables.values().flat_map(HashMap::values).flatten();
        all.filter(|s| s.conversion.is_none() && s.is_stored()).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_share_their_cache() {
        let (registry, caches) = Registry::built_in();
        let core = registry.find("", "v1", "events").expect("core events");
        let other = registry.find("events.k8s.io", "v1", "events").expect("events");
        assert!(Arc::ptr_eq(&core.cache, &other.cache));
        assert!(Arc::ptr_eq(&registry.target(&other), &core));
        assert!(caches.contains_key("/registry/services/specs/"));
        assert!(registry.find("", "v1", "nothing").is_none());
    }
}
