//! Nodes grouped by the value of a label, so that spreading and affinity count in arrays and not in maps of strings.
//! Reads node labels; built on first use and thrown away when any node's labels change.
//! Invariant: a domain number is dense and below `domains`; a node without the label has none.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::node::NodeInfo;

/// At most this many label keys are kept; a cluster uses a handful.
const KEYS_MAX: usize = 64;
const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub struct Topology {
    of_node: Vec<u32>,
    pub domains: usize,
}

impl Topology {
    fn build(key: &str, nodes: &[NodeInfo]) -> Self {
        let mut numbers: HashMap<&str, u32> = HashMap::new();
        let of_node = nodes
            .iter()
            .map(|node| match node.label(key).filter(|_| node.present) {
                Some(value) => {
                    let next = numbers.len() as u32;
                    *numbers.entry(value).or_insert(next)
                }
                None => NONE,
            })
            .collect();
        Self { of_node, domains: numbers.len() }
    }

    /// The domain of a node; None if it lacks the label.
    pub fn of(&self, node: usize) -> Option<usize> {
        self.of_node.get(node).filter(|d| **d != NONE).map(|d| *d as usize)
    }
}

#[derive(Default)]
pub(crate) struct Topologies(Mutex<HashMap<Box<str>, Arc<Topology>>>);

impl Topologies {
    pub fn clear(&mut self) {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub fn get(&self, key: &str, nodes: &[NodeInfo]) -> Arc<Topology> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = map.get(key) {
            return found.clone();
        }
        if map.len() >= KEYS_MAX {
            map.clear();
        }
        let built = Arc::new(Topology::build(key, nodes));
        map.insert(key.into(), built.clone());
        built
    }
}

/// A number per domain of a topology.
#[derive(Clone, Debug)]
pub struct Tally {
    pub topology: Arc<Topology>,
    pub counts: Vec<i64>,
}

impl Tally {
    pub fn new(topology: Arc<Topology>) -> Self {
        let counts = vec![0; topology.domains];
        Self { topology, counts }
    }

    pub fn add(&mut self, node: usize, amount: i64) {
        if let Some(domain) = self.topology.of(node) {
            self.counts[domain] += amount;
        }
    }

    /// The number of the node's domain; None if the node lacks the label.
    pub fn at(&self, node: usize) -> Option<i64> {
        self.topology.of(node).map(|d| self.counts[d])
    }
}
