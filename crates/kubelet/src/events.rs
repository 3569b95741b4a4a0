//! Events about pods, their containers and the node, with upstream's reasons.
//!
//! Writes through the client's recorder, which aggregates and bounds. Invariant: an event about a container names its
//! field path, so that `kubectl describe` shows which one.

use client::Recorder;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};

use crate::spec::Slot;

/// Writes the kubelet's events. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
    node: ObjectReference,
}

impl Events {
    /// Events from node `node_name`.
    pub fn new(recorder: Recorder, node_name: &str) -> Events {
        let node = ObjectReference {
            kind: Some("Node".to_string()),
            name: Some(node_name.to_string()),
            // Compat: upstream's kubelet uses the node's name for its uid here, and kubectl describe node selects by it
            uid: Some(node_name.to_string()),
            ..ObjectReference::default()
        };
        Events { recorder, node }
    }

    /// About a pod.
    pub fn pod(&self, pod: &Pod, kind: &str, reason: &str, message: &str) {
        self.recorder.event(&client::reference(pod), kind, reason, message);
    }

    /// About one container of a pod.
    pub fn container(&self, pod: &Pod, slot: &Slot<'_>, kind: &str, reason: &str, message: &str) {
        let about = ObjectReference { field_path: Some(slot.field_path()), ..client::reference(pod) };
        self.recorder.event(&about, kind, reason, message);
    }

    /// About the node.
    pub fn node(&self, kind: &str, reason: &str, message: &str) {
        self.recorder.event(&self.node, kind, reason, message);
    }
}
