//! The objects of one kind as this process knows them, with indexes, and the differences a change or a relist makes.
//! Reads and writes memory only. Invariant: the indexes hold exactly the objects of the main map, and every change returns
//! the events that lead from the old content to the new.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kube::Resource;

/// What happened to one object. `Modified` carries both versions; a replaced uid shows as `Deleted`, then `Added`.
#[derive(Debug)]
pub enum Event<K> {
    Added(Arc<K>),
    Modified { old: Arc<K>, new: Arc<K> },
    Deleted(Arc<K>),
}

impl<K> Event<K> {
    /// The newest version the event knows.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Event::Added(object) | Event::Deleted(object) => object,
            Event::Modified { new, .. } => new,
        }
    }
}

impl<K> Clone for Event<K> {
    fn clone(&self) -> Self {
        match self {
            Event::Added(object) => Event::Added(object.clone()),
            Event::Modified { old, new } => Event::Modified { old: old.clone(), new: new.clone() },
            Event::Deleted(object) => Event::Deleted(object.clone()),
        }
    }
}

type IndexFn<K> = fn(&K) -> Vec<String>;

struct Index<K> {
    values_of: IndexFn<K>,
    entries: HashMap<String, BTreeMap<(String, String), Arc<K>>>,
}

impl<K: Resource> Index<K> {
    fn insert(&mut self, object: &Arc<K>) {
        for value in (self.values_of)(object) {
            self.entries.entry(value).or_default().insert(place(object.as_ref()), object.clone());
        }
    }

    fn remove(&mut self, object: &Arc<K>) {
        for value in (self.values_of)(object) {
            if let Some(entry) = self.entries.get_mut(&value) {
                entry.remove(&place(object.as_ref()));
                if entry.is_empty() {
                    self.entries.remove(&value);
                }
            }
        }
    }
}

fn place<K: Resource>(object: &K) -> (String, String) {
    let meta = object.meta();
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

fn owner_uids<K: Resource>(object: &K) -> Vec<String> {
    object.meta().owner_references.iter().flatten().map(|owner| owner.uid.clone()).collect()
}

/// The name of the built-in index by the uids of all owners.
pub(crate) const OWNER_INDEX: &str = "owner";

pub(crate) struct Cache<K> {
    objects: BTreeMap<String, BTreeMap<String, Arc<K>>>,
    indexes: HashMap<&'static str, Index<K>>,
}

impl<K: Resource> Cache<K> {
    pub fn new() -> Self {
        let mut cache = Cache { objects: BTreeMap::new(), indexes: HashMap::new() };
        cache.add_index(OWNER_INDEX, owner_uids);
        cache
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.objects.get(namespace)?.get(name).cloned()
    }

    pub fn list(&self) -> Vec<Arc<K>> {
        self.objects.values().flat_map(|inner| inner.values().cloned()).collect()
    }

    pub fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        self.objects.get(namespace).map(|inner| inner.values().cloned().collect()).unwrap_or_default()
    }

    pub fn len(&self) -> usize {
        self.objects.values().map(BTreeMap::len).sum()
    }

    pub fn by_index(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        self.indexes
            .get(name)
            .and_then(|index| index.entries.get(value))
            .map(|entry| entry.values().cloned().collect())
            .unwrap_or_default()
    }

    /// Adds an index over the objects already here and those to come; a second add under the same name replaces the first.
    pub fn add_index(&mut self, name: &'static str, values_of: IndexFn<K>) {
        let mut index = Index { values_of, entries: HashMap::new() };
        for object in self.objects.values().flat_map(BTreeMap::values) {
            index.insert(object);
        }
        self.indexes.insert(name, index);
    }

    fn insert(&mut self, object: Arc<K>) -> Option<Arc<K>> {
        let (namespace, name) = place(object.as_ref());
        let old = self.objects.entry(namespace).or_default().insert(name, object.clone());
        for index in self.indexes.values_mut() {
            if let Some(old) = &old {
                index.remove(old);
            }
            index.insert(&object);
        }
        old
    }

    fn take(&mut self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let inner = self.objects.get_mut(namespace)?;
        let old = inner.remove(name)?;
        if inner.is_empty() {
            self.objects.remove(namespace);
        }
        for index in self.indexes.values_mut() {
            index.remove(&old);
        }
        Some(old)
    }

    /// Takes a new or changed object in. The same version again makes no event.
    pub fn apply(&mut self, object: K) -> Vec<Event<K>> {
        let (namespace, name) = place(&object);
        if let Some(known) = self.objects.get(&namespace).and_then(|inner| inner.get(&name))
            && same_version(known.as_ref(), &object)
        {
            return Vec::new();
        }
        let new = Arc::new(object);
        match self.insert(new.clone()) {
            None => vec![Event::Added(new)],
            Some(old) if old.meta().uid != new.meta().uid => vec![Event::Deleted(old), Event::Added(new)],
            Some(old) => vec![Event::Modified { old, new }],
        }
    }

    /// Takes an object out; the event carries its last state as the server sent it.
    pub fn delete(&mut self, object: K) -> Vec<Event<K>> {
        let (namespace, name) = place(&object);
        match self.take(&namespace, &name) {
            Some(_) => vec![Event::Deleted(Arc::new(object))],
            None => Vec::new(),
        }
    }

    /// Makes the content equal to a complete list, and returns what changed: vanished objects first, as `Deleted`.
    pub fn replace(&mut self, list: Vec<K>) -> Vec<Event<K>> {
        let listed: std::collections::HashSet<(String, String)> = list.iter().map(place).collect();
        let gone: Vec<(String, String)> = self
            .objects
            .iter()
            .flat_map(|(namespace, inner)| inner.keys().map(move |name| (namespace.clone(), name.clone())))
            .filter(|place| !listed.contains(place))
            .collect();
        let mut events: Vec<Event<K>> =
            gone.iter().filter_map(|(namespace, name)| self.take(namespace, name)).map(Event::Deleted).collect();
        for object in list {
            events.extend(self.apply(object));
        }
        events
    }
}

fn same_version<K: Resource>(left: &K, right: &K) -> bool {
    let (left, right) = (left.meta(), right.meta());
    left.uid == right.uid && left.resource_version.is_some() && left.resource_version == right.resource_version
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::ResourceExt;

    use super::*;

    fn object(name: &str, uid: &str, version: &str) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.namespace = Some("ns".into());
        map.metadata.name = Some(name.into());
        map.metadata.uid = Some(uid.into());
        map.metadata.resource_version = Some(version.into());
        map
    }

    fn owned(name: &str, version: &str, owner: &str) -> ConfigMap {
        let mut map = object(name, name, version);
        map.metadata.owner_references = Some(vec![k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference {
            uid: owner.into(),
            ..Default::default()
        }]);
        map
    }

    fn show(events: &[Event<ConfigMap>]) -> String {
        let version = |object: &ConfigMap| {
            format!("{}/{}@{}", object.name_any(), object.uid().unwrap(), object.resource_version().unwrap())
        };
        events
            .iter()
            .map(|event| match event {
                Event::Added(new) => format!("added {}\n", version(new)),
                Event::Modified { old, new } => format!("modified {} -> {}\n", version(old), version(new)),
                Event::Deleted(old) => format!("deleted {}\n", version(old)),
            })
            .collect()
    }

    #[test]
    fn replace_computes_the_difference() {
        let mut cache = Cache::new();
        let first = cache.replace(vec![object("a", "1", "1"), object("b", "2", "2"), object("c", "3", "3")]);
        let second = cache.replace(vec![
            object("a", "1", "1"),
            object("b", "2", "9"),
            object("d", "4", "7"),
            object("c", "5", "8"),
        ]);
        let third = cache.replace(vec![object("a", "1", "1")]);
        expect_file!["cache/replace_computes_the_difference.txt"].assert_eq(&format!(
            "{}--\n{}--\n{}",
            show(&first),
            show(&second),
            show(&third)
        ));
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn single_changes() {
        let mut cache = Cache::new();
        let mut out = String::new();
        for events in [
            cache.apply(object("a", "1", "1")),
            cache.apply(object("a", "1", "1")),
            cache.apply(object("a", "1", "2")),
            cache.delete(object("a", "1", "3")),
            cache.delete(object("a", "1", "3")),
        ] {
            out.push_str(&show(&events));
            out.push_str("--\n");
        }
        expect_file!["cache/single_changes.txt"].assert_eq(&out);
    }

    #[test]
    fn indexes_follow_changes() {
        let mut cache = Cache::new();
        cache.apply(owned("a", "1", "x"));
        cache.apply(owned("b", "1", "x"));
        cache.apply(owned("a", "2", "y"));
        cache.add_index("name", |map: &ConfigMap| vec![map.name_any()]);
        let names = |list: Vec<Arc<ConfigMap>>| list.iter().map(|map| map.name_any()).collect::<Vec<_>>();
        assert_eq!(names(cache.by_index(OWNER_INDEX, "x")), ["b"]);
        assert_eq!(names(cache.by_index(OWNER_INDEX, "y")), ["a"]);
        cache.delete(owned("b", "3", "x"));
        assert!(cache.by_index(OWNER_INDEX, "x").is_empty());
        assert_eq!(names(cache.by_index("name", "a")), ["a"]);
        assert!(cache.by_index("absent", "a").is_empty());
    }
}
