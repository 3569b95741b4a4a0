//! ClusterRoleBinding.

use super::{Kind, rbac};

pub static KIND: Kind = rbac::BINDING;
