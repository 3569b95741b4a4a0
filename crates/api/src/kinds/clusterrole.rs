//! ClusterRole.

use super::prelude::*;
use super::rbac;
use meta::selector::LabelSelector;

pub static KIND: Kind = Kind {
    validate: |r, errors| {
        rbac::validate_role(r, false, errors);
        if r["aggregationRule"].is_null() {
            return;
        }
        let (selectors, at) = (r.array_at(&["aggregationRule", "clusterRoleSelectors"]), Path::new(SELECTORS));
        if selectors.is_empty() {
            errors
                .push(Error::required(&at, "at least one clusterRoleSelector required if aggregationRule is non-nil"));
        }
        for (i, selector) in selectors.iter().enumerate() {
            let wrong = LabelSelector::validate(selector, &at.index(i));
            if !wrong.is_empty() {
                errors.extend(wrong);
                errors.push(Error::invalid(&at.index(i), Value::Null, "invalid label selector."));
            }
        }
    },
    ..rbac::ROLE
};

const SELECTORS: &str = "aggregationRule.clusterRoleSelectors";
