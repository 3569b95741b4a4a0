//! The Kubernetes object and what every layer knows about it: documents, kinds, selectors, quantities, Status, field
//! errors, patches, time. Reads and writes nothing: no I/O here, and nothing above it is known.

pub mod apply;
pub mod cidr;
pub mod cron;
pub mod field;
pub mod gvk;
pub mod indexes;
pub mod json;
pub mod names;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod schema;
pub mod selector;
pub mod status;
#[cfg(test)]
mod test_schema;
pub mod time;
pub mod value;

/// The Kubernetes release whose API and behaviour this is.
pub const KUBERNETES_VERSION: &str = "v1.37.2";

/// The RBAC verb of an HTTP method where nothing but the method tells it. Source: the page "Authorization".
pub fn verb_of_method(method: &str) -> &'static str {
    match method {
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "get",
    }
}

pub use gvk::{GroupKind, GroupResource, GroupVersion, GroupVersionKind, GroupVersionResource};
pub use json::{ParseError, field_order, parse, parse_noting_duplicates};
pub use serde_json;
pub use status::{Reason, Status};
pub use value::{Map, Value};
