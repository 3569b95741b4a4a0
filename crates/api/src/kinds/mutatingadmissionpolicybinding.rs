//! MutatingAdmissionPolicyBinding.

use super::{Kind, admissionpolicy};

pub static KIND: Kind = admissionpolicy::BINDING;
