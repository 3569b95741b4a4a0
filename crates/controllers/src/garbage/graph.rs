//! Who owns whom among all objects, in little memory.
//! Reads and writes memory only. Invariant: pure; every edge is known from both ends, and an owner nobody has shown yet is in
//! the graph as assumed.

use std::collections::{HashMap, HashSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// A served kind, by its number in the table of the collector.
pub type KindId = u32;

pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";

#[derive(Clone, Debug, PartialEq)]
pub struct Owner {
    pub uid: Box<str>,
    pub blocks: bool,
}

/// One object.
#[derive(Clone, Debug)]
pub struct Node {
    /// None for an owner that was only named, and whose kind may not even be served.
    pub kind: Option<KindId>,
    /// What an owner reference said of it, while assumed.
    pub named: Option<Box<OwnerReference>>,
    pub namespace: Box<str>,
    pub name: Box<str>,
    pub owners: Vec<Owner>,
    pub deleting: bool,
    /// Waits for its dependents.
    pub foreground: bool,
    pub orphaning: bool,
}

impl Node {
    pub fn is_assumed(&self) -> bool {
        self.named.is_some()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// Look whether this object should go.
    Judge(Box<str>),
    /// Let the dependents of this object live on without it.
    Orphan(Box<str>),
}

#[derive(Default)]
pub struct Graph {
    nodes: HashMap<Box<str>, Node>,
    dependents: HashMap<Box<str>, HashSet<Box<str>>>,
}

impl Graph {
    pub fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn dependents(&self, uid: &str) -> Vec<(Box<str>, Node)> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| self.nodes.get(uid).map(|node| (uid.clone(), node.clone()))).collect()
    }

    pub fn uids_of(&self, kind: KindId) -> Vec<Box<str>> {
        self.nodes
            .iter()
            .filter(|(_, node)| node.kind == Some(kind) && !node.is_assumed())
            .map(|(uid, _)| uid.clone())
            .collect()
    }

    /// Takes in an object as a watch shows it, and returns what is to be looked at because of it.
    pub fn observe(&mut self, kind: KindId, meta: &ObjectMeta) -> Vec<Work> {
        let Some(uid) = meta.uid.as_deref() else { return Vec::new() };
        let has = |name: &str| meta.finalizers.iter().flatten().any(|finalizer| finalizer == name);
        let deleting = meta.deletion_timestamp.is_some();
        let references: Vec<&OwnerReference> = meta.owner_references.iter().flatten().collect();
        let node = Node {
            kind: Some(kind),
            named: None,
            namespace: meta.namespace.as_deref().unwrap_or_default().into(),
            name: meta.name.as_deref().unwrap_or_default().into(),
            owners: references
                .iter()
                .map(|owner| Owner { uid: owner.uid.as_str().into(), blocks: owner.block_owner_deletion == Some(true) })
                .collect(),
            deleting,
            foreground: deleting && has(FOREGROUND),
            orphaning: deleting && has(ORPHAN),
        };
        let mut work = Vec::new();
        let old = self.nodes.insert(uid.into(), node.clone());
        let old_owners = old.as_ref().map(|old| old.owners.clone()).unwrap_or_default();
        let namespace = node.namespace.clone();
        for (owner, reference) in node.owners.iter().zip(&references) {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.into());
            if !self.nodes.contains_key(&owner.uid) {
                self.assume(&owner.uid, reference, &namespace);
                work.push(Work::Judge(owner.uid.clone()));
            }
        }
        for lost in old_owners.iter().filter(|lost| !node.owners.iter().any(|owner| owner.uid == lost.uid)) {
            self.unlink(&lost.uid, uid);
        }
        // an owner that waits for this one may have nothing to wait for any more
        for owner in old_owners.iter().filter(|owner| owner.blocks && !node.owners.contains(owner)) {
            if self.nodes.get(&owner.uid).is_some_and(|owner| owner.foreground) {
                work.push(Work::Judge(owner.uid.clone()));
            }
        }
        let newly = |now: bool, before: fn(&Node) -> bool| now && !old.as_ref().is_some_and(before);
        if newly(node.orphaning, |old| old.orphaning) {
            work.push(Work::Orphan(uid.into()));
        }
        if newly(node.foreground, |old| old.foreground) {
            work.extend(self.dependents.get(uid).into_iter().flatten().map(|uid| Work::Judge(uid.clone())));
            work.push(Work::Judge(uid.into()));
        }
        // an owner that is going in the foreground takes late comers along
        if node.owners != old_owners
            && node.owners.iter().any(|owner| self.nodes.get(&owner.uid).is_some_and(|owner| owner.foreground))
        {
            work.push(Work::Judge(uid.into()));
        }
        work
    }

    fn assume(&mut self, uid: &str, reference: &OwnerReference, namespace: &str) {
        let node = Node {
            kind: None,
            named: Some(Box::new(reference.clone())),
            namespace: namespace.into(),
            name: reference.name.as_str().into(),
            owners: Vec::new(),
            deleting: false,
            foreground: false,
            orphaning: false,
        };
        self.nodes.insert(uid.into(), node);
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
                // an assumed owner nobody names any more is of no use
                if self.nodes.get(owner).is_some_and(Node::is_assumed) {
                    self.nodes.remove(owner);
                }
            }
        }
    }

    /// Takes out an object that is gone.
    pub fn remove(&mut self, uid: &str) -> Vec<Work> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        let mut work: Vec<Work> =
            self.dependents.get(uid).into_iter().flatten().map(|uid| Work::Judge(uid.clone())).collect();
        for owner in &node.owners {
            self.unlink(&owner.uid, uid);
            if self.nodes.get(&owner.uid).is_some_and(|owner| owner.foreground) {
                work.push(Work::Judge(owner.uid.clone()));
            }
        }
        work
    }

    /// Dependents that hold back the deletion of this object.
    pub fn blockers(&self, uid: &str) -> Vec<(Box<str>, Node)> {
        let blocks = |node: &Node| node.owners.iter().any(|owner| owner.uid.as_ref() == uid && owner.blocks);
        self.dependents(uid).into_iter().filter(|(_, node)| blocks(node)).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn meta(uid: &str, owners: &[(&str, bool)], deleting: bool, finalizers: &[&str]) -> ObjectMeta {
        let owners: Vec<_> = owners
            .iter()
            .map(|(uid, blocks)| json!({"apiVersion": "v1", "kind": "K", "name": uid, "uid": uid, "blockOwnerDeletion": blocks}))
            .collect();
        let mut value =
            json!({"namespace": "ns", "name": uid, "uid": uid, "ownerReferences": owners, "finalizers": finalizers});
        if deleting {
            value["deletionTimestamp"] = json!("2030-01-01T00:00:00Z");
        }
        serde_json::from_value(value).unwrap()
    }

    fn show(work: Vec<Work>) -> String {
        let mut lines: Vec<String> = work.iter().map(|work| format!("{work:?}")).collect();
        lines.sort();
        lines.join(" ") + "\n"
    }

    #[test]
    fn what_changes_make_work() {
        let mut graph = Graph::default();
        let out = [
            show(graph.observe(1, &meta("pod", &[("set", true)], false, &[]))),
            show(graph.observe(2, &meta("set", &[], false, &[]))),
            show(graph.observe(1, &meta("other", &[("set", true)], false, &[]))),
            show(graph.observe(2, &meta("set", &[], true, &[FOREGROUND]))),
            show(graph.observe(1, &meta("late", &[("set", true)], false, &[]))),
            show(graph.remove("pod")),
            show(graph.observe(1, &meta("other", &[], false, &[]))),
            format!("{:?}\n", graph.blockers("set").iter().map(|(uid, _)| uid.clone()).collect::<Vec<_>>()),
            show(graph.remove("set")),
            show(graph.observe(2, &meta("free", &[], true, &[ORPHAN]))),
            format!("{}\n", graph.len()),
        ];
        expect_test::expect_file!["graph/what_changes_make_work.txt"].assert_eq(&out.concat());
    }
}
