//! MutatingAdmissionPolicyBinding.

use super::admissionpolicy::{BINDING, validate_constraints};
use super::mutatingadmissionpolicy;
use super::prelude::*;

pub static KIND: Kind = Kind {
    validate: |b, errors| {
        (BINDING.validate)(b, errors);
        let (resources, at) = (&b["spec"]["matchResources"], Path::new("spec.matchResources"));
        validate_constraints(resources, &at, errors);
        mutatingadmissionpolicy::validate_operations(resources, &at, errors);
    },
    ..BINDING
};
