//! What is served: every resource with its rules, its type and its cache.
//!
//! Built from the generated table at the start; custom resources come and go as a whole set. Invariant: versions and
//! groups that store into the same place share one cache.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use api::feature_gates::FeatureGates;
use api::gated_fields;
use api::kinds::{self, Kind};
use api::resource::{self, Resource, Stage};
use api::runtime_config::RuntimeConfig;
use arc_swap::ArcSwap;
use bytes::Bytes;
use meta::field::Errors;
use meta::schema::TypeRef;
use meta::schema::prune::DecodeError;
use meta::time::Timestamp;
use meta::{GroupKind, GroupResource, Status, Value};

use crate::cache::Cache;
use crate::convert::{self, Conversion};
use crate::custom::Custom;
use crate::decode;
use crate::object::{Fields, Object};
use crate::{protobuf, table};

/// One resource in one version.
pub struct Served {
    pub info: Arc<Resource>,
    pub rules: &'static Kind,
    /// The type of a built-in kind; see `tracked` for that of any.
    pub ty: Option<TypeRef<'static>>,
    pub custom: Option<Box<Custom>>,
    pub cache: Arc<Cache>,
    /// The stored form differs from this version.
    pub conversion: Option<Conversion>,
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
    columns: OnceLock<Box<[u8]>>,
    /// Defaults that its kind has only with some feature gate: a member, a field of it, its text.
    gated_defaults: Vec<(&'static str, &'static str, &'static str)>,
}

impl Served {
    pub fn new(info: Arc<Resource>, cache: Arc<Cache>) -> Served {
        Served {
            gated_defaults: Vec::new(),
            custom: None,
            rules: kinds::of(&info.group, &info.kind),
            ty: info.root_type(),
            cache,
            conversion: convert::between(&info),
            namespaced: info.namespaced,
            has_status: info.subresource("status").is_some(),
            kind: info.kind.to_string(),
            list_kind: info.list_kind.to_string(),
            api_version: info.api_version(),
            gr: info.group_resource(),
            gk: info.group_kind(),
            prefix: info.key_prefix(""),
            columns: OnceLock::new(),
            info,
        }
    }

    /// The type that fields are owned by.
    pub fn tracked(&self) -> Option<TypeRef<'_>> {
        self.custom.as_ref().map(|c| c.shape.ty()).or(self.ty)
    }

    /// This is the built-in resource of that name in the core group.
    pub fn is_core(&self, plural: &str) -> bool {
        self.info.group.is_empty() && self.info.plural == plural
    }

    /// Fills in what the client left out.
    pub fn defaults(&self, document: &mut Value) {
        match &self.custom {
            Some(custom) => custom.shape.node.apply_defaults(document),
            None => self.built_in_defaults(document),
        }
    }

    fn built_in_defaults(&self, document: &mut Value) {
        (self.rules.defaults)(document);
        for (member, field, text) in &self.gated_defaults {
            if !document[*member].is_null() {
                document.set_default(&[member, field], *text);
            }
        }
    }

    /// As `defaults`, of what server-side apply made: its nulls stay, and may not fit a schema.
    pub fn defaults_of_applied(&self, document: &mut Value) {
        match &self.custom {
            Some(custom) => custom.shape.node.fill_defaults(document),
            None => self.built_in_defaults(document),
        }
    }

    /// Drops what the kind does not know; answers what was dropped, or why the document is not of this kind at all.
    pub fn strip(&self, document: &mut Value) -> Result<Vec<String>, DecodeError> {
        const OWNERS: [&str; 2] = ["metadata", "managedFields"];
        let clears = document.at(&OWNERS).and_then(Value::as_array).is_some_and(Vec::is_empty);
        let notes = match &self.custom {
            Some(custom) => custom.shape.strip(document),
            None => decode::strip(document, &self.api_version, &self.kind, self.ty),
        }?;
        match &self.custom {
            // No entries at all clear them as one that is empty does; without the list they stay as they were.
            None if clears => document.set(&OWNERS, meta::json!([{}])),
            // Compat: what has no Go type cannot say that it has none.
            Some(_) if clears => drop(document.remove(&OWNERS)),
            _ => {}
        }
        Ok(notes)
    }

    /// All errors of a new object, or of one that is to replace `old` by way of the main or the status endpoint.
    pub fn check(&self, new: &Value, old: Option<&Value>, status: bool) -> Errors {
        let mut errors = match old {
            None => kinds::check_create(self.rules, new, self.namespaced),
            Some(old) if status => kinds::check_status_update(self.rules, new, old),
            Some(old) => kinds::check_update(self.rules, new, old),
        };
        if let Some(custom) = &self.custom {
            errors.extend(custom.check(new, old));
        }
        errors
    }

    /// The definitions of the table's columns, as JSON.
    pub fn columns(&self) -> &[u8] {
        // Rows are made from the stored form.
        let stored = || protobuf::find(&self.info.storage.to_string(), &self.kind).or(self.ty);
        self.columns.get_or_init(|| match &self.custom {
            Some(custom) => custom.column_definitions().to_vec().into(),
            None => table::definitions(self.rules, stored()).to_vec().into(),
        })
    }

    pub fn row(&self, document: &Value, now: Timestamp) -> Vec<Value> {
        match &self.custom {
            Some(custom) => custom.row(document, now),
            None => self.rules.cells(document, now),
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
        if let Some(conversion) = &self.conversion {
            conversion.to_served(&mut document);
        }
        document
    }

    /// Refuses a field selector on a field that the kind does not offer.
    pub fn check_field(&self, field: &str) -> Result<(), Status> {
        let has_own = self.custom.is_some() || !self.rules.selectable_names.is_empty();
        let own = |c: &Custom| c.selectable.iter().any(|(name, _)| name == field);
        if field == "metadata.name"
            || field == "metadata.namespace" && (self.namespaced || !has_own)
            || self.rules.selectable_names.contains(&field)
            || self.custom.as_deref().is_some_and(own)
        {
            return Ok(());
        }
        // Compat: kinds with fields of their own word it their own way (apimachinery's and each API's conversion).
        let message = match (self.info.group.as_ref(), self.kind.as_str()) {
            _ if !has_own => {
                format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
            }
            ("batch", "Job") => format!("field label {field:?} not supported for Job"),
            ("resource.k8s.io", kind) => {
                format!("field label not supported for {}, Kind={kind}: {field}", self.api_version)
            }
            _ => format!("field label not supported: {field}"),
        };
        Err(Status::bad_request(message))
    }

    /// Reads the fields that selectors may name.
    pub fn fields(&self, document: &Value) -> Fields {
        if let Some(custom) = &self.custom {
            return custom.fields(document);
        }
        (self.rules.selectable)(document).into_iter().map(|(k, v)| (k.into(), v.into())).collect()
    }

    pub fn can(&self, verb: &str) -> bool {
        self.info.can(verb)
    }

    /// Objects are stored in this version.
    pub fn is_storage(&self) -> bool {
        self.info.is_storage()
    }

    /// Objects of this resource are kept, rather than answered at once as reviews are.
    pub fn is_stored(&self) -> bool {
        self.can("list") && self.info.plural != "componentstatuses"
    }
}

/// By group, then by plural: the versions.
#[derive(Default)]
struct Tables {
    by_name: HashMap<String, HashMap<String, Vec<Arc<Served>>>>,
    /// What discovery and OpenAPI show.
    all: Vec<Arc<Resource>>,
    /// Versions that objects are stored in, though no client sees them.
    unseen: Vec<Arc<Served>>,
}

impl Tables {
    fn add(&mut self, served: Arc<Served>) {
        let info = &served.info;
        self.all.push(info.clone());
        let group = self.by_name.entry(info.group.to_string()).or_default();
        group.entry(info.plural.to_string()).or_default().push(served);
    }

    fn get(&self, group: &str, plural: &str) -> Option<&Vec<Arc<Served>>> {
        self.by_name.get(group)?.get(plural)
    }
}

pub struct Registry {
    built_in: Tables,
    custom: ArcSwap<Tables>,
}

impl Registry {
    /// The built-in resources that are to be served, and the caches of those that are stored, by prefix.
    pub fn built_in(config: &RuntimeConfig, gates: &FeatureGates) -> (Registry, HashMap<String, Arc<Cache>>) {
        let mut caches: HashMap<String, Arc<Cache>> = HashMap::new();
        let mut built_in = Tables::default();
        let is_served = |r: &&Resource| config.serves(r, gates);
        // What is settled is stored, served or not: the server itself needs it.
        let keeps = |r: &Resource| {
            let of_served = |s: &Resource| s.plural == r.plural && s.storage == r.group_version();
            r.stage == Stage::Ga || resource::all_with_previews().iter().filter(is_served).any(of_served)
        };
        for info in resource::all_with_previews() {
            let is_served = is_served(&info);
            if !(is_served || info.is_storage() && keeps(info)) {
                continue;
            }
            let cache =
                if info.can("list") { caches.entry(info.key_prefix("")).or_default().clone() } else { Arc::default() };
            let mut served = Served::new(Arc::new(info.clone()), cache);
            if let Some(ty) = served.ty {
                served.gated_defaults = gated_fields::defaults(ty, &|gate| gates.is_on(gate));
            }
            let served = Arc::new(served);
            if is_served { built_in.add(served) } else { built_in.unseen.push(served) }
        }
        (Registry { built_in, custom: ArcSwap::default() }, caches)
    }

    /// Replaces all custom resources.
    pub fn set_custom(&self, all: impl IntoIterator<Item = Arc<Served>>) {
        let mut tables = Tables::default();
        all.into_iter().for_each(|served| tables.add(served));
        self.custom.store(Arc::new(tables));
    }

    /// Every served resource in every version.
    pub fn resources(&self) -> Vec<Arc<Resource>> {
        self.built_in.all.iter().chain(&self.custom.load().all).cloned().collect()
    }

    fn versions(&self, group: &str, plural: &str, keep: impl Fn(&Served) -> bool) -> Option<Arc<Served>> {
        let find = |tables: &Tables| tables.get(group, plural)?.iter().find(|s| keep(s)).cloned();
        find(&self.built_in).or_else(|| find(&self.custom.load()))
    }

    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Served>> {
        self.versions(group, plural, |s| s.info.version == version)
    }

    /// The version of a resource in which it is stored.
    pub fn stored(&self, group: &str, plural: &str) -> Option<Arc<Served>> {
        let is_it = |s: &&Arc<Served>| s.info.group == group && s.info.plural == plural && s.is_storage();
        self.versions(group, plural, Served::is_storage).or_else(|| self.built_in.unseen.iter().find(is_it).cloned())
    }

    /// Where a resource's documents are kept: itself, or the version it converts to.
    pub fn target(&self, served: &Arc<Served>) -> Arc<Served> {
        if served.conversion.is_none() {
            return served.clone();
        }
        self.stored(&served.info.storage.group, &served.info.plural).unwrap_or_else(|| served.clone())
    }

    /// The version of a stored resource that has other fields; of several groups' nobody needs to know (see
    /// `meta::apply`).
    pub fn with_other_fields(&self, stored: &Served) -> Option<Arc<Served>> {
        let differs = |s: &Served| s.conversion.as_ref().is_some_and(|c| !c.keeps_fields());
        self.built_in.get(&stored.info.group, &stored.info.plural)?.iter().find(|s| differs(s)).cloned()
    }

    /// Every resource in its stored version.
    pub fn all_stored(&self) -> Vec<Arc<Served>> {
        let custom = self.custom.load();
        let all = [&self.built_in, &custom].into_iter().flat_map(|t| t.by_name.values().flat_map(HashMap::values));
        let all = all.flatten().chain(&self.built_in.unseen);
        all.filter(|s| s.is_storage() && s.is_stored()).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_share_their_cache() {
        let (registry, caches) = Registry::built_in(&RuntimeConfig::default(), &FeatureGates::default());
        let core = registry.find("", "v1", "events").expect("core events");
        let other = registry.find("events.k8s.io", "v1", "events").expect("events");
        assert!(Arc::ptr_eq(&core.cache, &other.cache));
        assert!(Arc::ptr_eq(&registry.target(&other), &core));
        assert!(caches.contains_key("/registry/services/specs/"));
        assert!(registry.find("", "v1", "nothing").is_none());
    }
}
