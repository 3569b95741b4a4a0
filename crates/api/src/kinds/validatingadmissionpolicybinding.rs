//! ValidatingAdmissionPolicyBinding.

use std::collections::HashSet;

use super::admissionpolicy::{BINDING, validate_constraints};
use super::prelude::*;

pub static KIND: Kind = Kind {
    validate: |b, errors| {
        (BINDING.validate)(b, errors);
        let (actions, at) = (b.array_at(&["spec", "validationActions"]), Path::new("spec.validationActions"));
        check(b, &[("spec.validationActions", Required(""))], errors);
        let has = |action: &str| actions.iter().any(|a| a.as_str() == Some(action));
        let mut known = HashSet::new();
        for (i, action) in actions.iter().enumerate() {
            let supported = &["Audit", "Deny", "Warn"];
            if !supported.contains(&action.as_str().unwrap_or_default()) {
                errors.push(Error::not_supported(&at.index(i), action, supported));
            }
            if !known.insert(action.as_str()) {
                errors.push(Error::duplicate(&at.index(i), action));
            }
        }
        if has("Deny") && has("Warn") {
            let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the \
                          API response and headers serves no purpose)";
            errors.push(Error::invalid(&at, actions.to_vec(), detail));
        }
        validate_constraints(&b["spec"]["matchResources"], &Path::new("spec.matchResources"), errors);
    },
    ..BINDING
};
