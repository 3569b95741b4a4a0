//! MutatingAdmissionPolicyBinding.

use super::admissionpolicy::{BINDING, validate_constraints};
use super::prelude::*;

pub static KIND: Kind = Kind {
    validate: |b, errors| {
        (BINDING.validate)(b, errors);
        validate_constraints(&b["spec"]["matchResources"], &Path::new("spec.matchResources"), errors);
    },
    ..BINDING
};
