//! What all kinds that hold a pod template share: its defaults and its validation.
//!
//! `defaults` fills in, `validate` checks a PodSpec, `validate_template` a whole template. Invariant: the same spec gets
//! the same answer whether it stands in a Pod or in the template of a controller, except where upstream differs.

mod affinity;
mod container;
mod defaults;
mod probe;
mod projected;
mod reference;
mod resources;
mod security;
mod validate;
mod volume;

pub use affinity::{validate_node_selector, validate_tolerations};
pub use defaults::{defaults, requests_from_limits, source_defaults, template_defaults};
pub use probe::validate_port;
pub use resources::{
    validate_claim_resources, validate_container_resource_name, validate_overhead, validate_quantity,
    validate_resource_name,
};
pub use validate::{validate, validate_new, validate_template, validate_template_at, validate_template_labels};
pub use volume::{validate_source_of, validate_template_meta};

use crate::declared::TypeName;

/// What of a PodSpec is validated as its type declares.
pub const DECLARED: TypeName = ("core", "PodSpec");
/// That of controllers.
pub const DECLARED_OF_TEMPLATE: &[(&str, TypeName)] = &[("spec.template.spec", DECLARED)];
