//! ResourceClaimTemplate.

use super::prelude::*;
use super::{devices, pod_spec, resourceclaim};

pub static KIND: Kind = Kind {
    defaults: |t| fill::at(t, &["spec", "spec"], resourceclaim::spec_defaults),
    rules: &[("spec", Immutable)],
    validate: |t, errors| {
        pod_spec::validate_template_meta(&t["spec"]["metadata"], &Path::new("spec.metadata"), errors);
        devices::validate_claim(&t["spec"]["spec"]["devices"], &Path::new("spec.spec.devices"), errors);
    },
    ..Kind::PLAIN
};
