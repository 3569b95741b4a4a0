//! What all kinds that hold a pod template share: its defaults and its validation.
//!
//! `defaults` fills in, `validate` checks a PodSpec, `validate_template` a whole template. Invariant: the same spec gets
//! the same answer whether it stands in a Pod or in the template of a controller, except where upstream differs.

mod affinity;
mod container;
mod defaults;
mod probe;
mod resources;
mod validate;
mod volume;

pub use defaults::{defaults, requests_from_limits, template_defaults};
pub use probe::validate_port;
pub use resources::{validate_claim_resources, validate_quantity, validate_resource_list};
pub use validate::{validate, validate_template};
