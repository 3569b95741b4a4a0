//! Pods grouped by what other pods can tell apart: namespace, labels and affinity terms.
//! Pods of one template share a class, so spreading and affinity look at a handful of classes and not at every pod.
//! Invariant: a class exists exactly while a pod is in it, and its counts are the sums over its pods.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::cache::NodeId;
use crate::pod::{PodAffinity, PodInfo};
use crate::selector::Labels;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    namespace: Arc<str>,
    labels: Labels,
    affinity: Option<Arc<PodAffinity>>,
}

/// How many pods of a class are on a node; `live` leaves out those being deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub all: u32,
    pub live: u32,
}

#[derive(Debug)]
pub struct Class {
    key: Key,
    pub nodes: BTreeMap<NodeId, Count>,
}

impl Class {
    pub fn namespace(&self) -> &str {
        &self.key.namespace
    }

    pub fn labels(&self) -> &Labels {
        &self.key.labels
    }

    pub fn affinity(&self) -> Option<&PodAffinity> {
        self.key.affinity.as_deref()
    }
}

#[derive(Default)]
pub struct Classes {
    slots: Vec<Option<Class>>,
    free: Vec<usize>,
    index: HashMap<Key, usize>,
    by_namespace: HashMap<Arc<str>, BTreeSet<usize>>,
    with_affinity: BTreeSet<usize>,
    with_required_anti: BTreeSet<usize>,
}

impl Classes {
    pub(crate) fn add(&mut self, pod: &PodInfo, node: NodeId) -> usize {
        let key = Key { namespace: pod.namespace.clone(), labels: pod.labels.clone(), affinity: pod.affinity.clone() };
        let id = match self.index.get(&key) {
            Some(id) => *id,
            None => self.create(key),
        };
        if let Some(class) = &mut self.slots[id] {
            let count = class.nodes.entry(node).or_default();
            count.all += 1;
            count.live += u32::from(!pod.terminating);
        }
        id
    }

    fn create(&mut self, key: Key) -> usize {
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.by_namespace.entry(key.namespace.clone()).or_default().insert(id);
        if let Some(affinity) = &key.affinity {
            self.with_affinity.insert(id);
            if !affinity.anti_required.is_empty() {
                self.with_required_anti.insert(id);
            }
        }
        self.index.insert(key.clone(), id);
        self.slots[id] = Some(Class { key, nodes: BTreeMap::new() });
        id
    }

    pub(crate) fn remove(&mut self, id: usize, pod: &PodInfo, node: NodeId) {
        let Some(class) = self.slots.get_mut(id).and_then(Option::as_mut) else { return };
        if let Some(count) = class.nodes.get_mut(&node) {
            count.all -= 1;
            count.live -= u32::from(!pod.terminating);
            if count.all == 0 {
                class.nodes.remove(&node);
            }
        }
        if class.nodes.is_empty()
            && let Some(class) = self.slots[id].take()
        {
            self.free.push(id);
            self.index.remove(&class.key);
            self.with_affinity.remove(&id);
            self.with_required_anti.remove(&id);
            if let Some(ids) = self.by_namespace.get_mut(&class.key.namespace) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.by_namespace.remove(&class.key.namespace);
                }
            }
        }
    }

    fn get(&self, id: usize) -> Option<&Class> {
        self.slots[id].as_ref()
    }

    pub fn all(&self) -> impl Iterator<Item = &Class> {
        self.slots.iter().flatten()
    }

    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Class> {
        self.by_namespace.get(namespace).into_iter().flatten().filter_map(|id| self.get(*id))
    }

    /// Classes whose pods have any affinity or anti-affinity term.
    pub fn with_affinity(&self) -> impl Iterator<Item = &Class> {
        self.with_affinity.iter().filter_map(|id| self.get(*id))
    }

    /// Classes whose pods keep others away.
    pub fn with_required_anti(&self) -> impl Iterator<Item = &Class> {
        self.with_required_anti.iter().filter_map(|id| self.get(*id))
    }

    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }
}
