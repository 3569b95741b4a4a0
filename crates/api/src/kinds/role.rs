//! Role.

use super::{Kind, rbac};

pub static KIND: Kind = rbac::ROLE;
