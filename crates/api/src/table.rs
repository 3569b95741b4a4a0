//! The schema of all built-in kinds, read once from the generated data.
//!
//! Invariant: the data is generated and tested, so reading it cannot fail in a built binary.

use meta::schema::Schema;
use std::sync::LazyLock;

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    Schema::parse(include_str!("data/schema.txt")).expect("generated schema data parses: a test holds it")
});

/// The type graph of every built-in kind. Read on first use (about a millisecond), then shared.
pub fn schema() -> &'static Schema {
    &SCHEMA
}

#[cfg(test)]
mod prune_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use meta::schema::{Kind, ListKind, Scalar};

    #[test]
    fn reads_and_is_small() {
        let schema = schema();
        assert!(schema.heap_bytes() < 400_000, "{} bytes", schema.heap_bytes());
        let pod_spec = schema.find("io.k8s.api.core.v1.PodSpec").expect("PodSpec");
        let containers = pod_spec.field("containers").expect("containers");
        assert_eq!(containers.number(), 2);
        assert_eq!(containers.merge_key(), Some("name"));
        assert!(containers.merges());
        assert_eq!(containers.ty().kind(), Kind::List(ListKind::Map));
        assert_eq!(containers.ty().list_keys().collect::<Vec<_>>(), ["name"]);
        let container = containers.ty().element().expect("an item");
        assert_eq!(container.go_type(), "v1.Container");
        let ports = container.field("ports").expect("ports");
        assert_eq!(ports.ty().list_keys().collect::<Vec<_>>(), ["containerPort", "protocol"]);
        assert_eq!(ports.merge_key(), Some("containerPort"));
        let port = ports.ty().element().expect("an item");
        assert_eq!(port.field("protocol").and_then(|f| f.default()), Some("TCP".into()));
        // Inline structs are flattened for JSON and whole for protobuf.
        let volume = schema.find("io.k8s.api.core.v1.Volume").expect("Volume");
        assert!(volume.field("emptyDir").is_some());
        assert_eq!(volume.declared_fields().map(|f| f.name()).collect::<Vec<_>>(), ["name", "volumeSource"]);
        let cpu = schema.find("io.k8s.api.core.v1.ResourceList").expect("ResourceList").child("cpu").expect("cpu");
        assert_eq!(cpu.kind(), Kind::Scalar(Scalar::Quantity));
        assert!(schema.find("io.k8s.api.core.v1.LocalObjectReference").expect("type").is_atomic());
    }
}
