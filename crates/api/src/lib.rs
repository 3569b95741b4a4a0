//! Every built-in kind: the table of resources, the schema of their types, and what each kind does beyond it.
//! Reads and writes nothing: no I/O here.

mod declared;
pub mod discovery;
pub mod feature_gates;
pub mod gated_fields;
pub mod kinds;
pub mod openapi;
pub mod quota;
pub mod resource;
pub mod runtime_config;
pub mod table;

pub use table::schema;
