//! A small schema in the shape of the real ones, for the tests of this crate.

use std::sync::LazyLock;

use crate::schema::{Schema, TypeRef};

const TEXT: &str = include_str!("tests/pod_schema.txt");

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::parse(TEXT).expect("the test schema parses"));

pub(crate) fn pod() -> TypeRef<'static> {
    SCHEMA.find("io.k8s.api.core.v1.Pod").expect("Pod is in the test schema")
}
