//! ResourceClaimTemplate.

use meta::field::{Error, Errors, Path};

use super::{Kind, fill, resourceclaim};

pub static KIND: Kind = Kind {
    defaults: |t| fill::at(t, &["spec", "spec"], resourceclaim::spec_defaults),
    validate_update: |new, old| {
        let mut errors = Errors::new();
        if new["spec"] != old["spec"] {
            errors.push(Error::invalid(&Path::new("spec"), &new["spec"], "field is immutable"));
        }
        errors
    },
    ..Kind::PLAIN
};
