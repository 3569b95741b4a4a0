//! ResourceClaimTemplate.

use super::prelude::*;
use super::resourceclaim;

pub static KIND: Kind = Kind {
    defaults: |t| fill::at(t, &["spec", "spec"], resourceclaim::spec_defaults),
    rules: &[("spec", Immutable)],
    ..Kind::PLAIN
};
