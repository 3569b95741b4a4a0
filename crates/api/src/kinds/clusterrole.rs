//! ClusterRole.

use meta::field::{Errors, Path};
use meta::selector::LabelSelector;
use meta::Value;

use super::{Kind, rbac};

pub static KIND: Kind =
    Kind { validate_create: validate, validate_update: |new, _| validate(new), ..rbac::ROLE };

fn validate(role: &Value) -> Errors {
    let mut errors = rbac::validate_role(role, false);
    for (i, selector) in role.array_at(&["aggregationRule", "clusterRoleSelectors"]).iter().enumerate() {
        let at = Path::new("aggregationRule.clusterRoleSelectors").index(i);
        errors.extend(LabelSelector::validate(selector, &at));
    }
    errors
}
