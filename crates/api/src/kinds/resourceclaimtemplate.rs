//! ResourceClaimTemplate.

use super::prelude::*;
use super::{devices, resourceclaim};

pub static KIND: Kind = Kind {
    defaults: |t| fill::at(t, &["spec", "spec"], resourceclaim::spec_defaults),
    rules: &[("spec", Immutable)],
    validate: |t, errors| {
        devices::validate_claim(&t["spec"]["spec"]["devices"], &Path::new("spec.spec.devices"), errors);
    },
    ..Kind::PLAIN
};
