//! ClusterRole.

use super::prelude::*;
use super::rbac;

pub static KIND: Kind = Kind {
    rules: &[("aggregationRule.clusterRoleSelectors[]", Selector)],
    validate: |r, errors| rbac::validate_role(r, false, errors),
    ..rbac::ROLE
};
