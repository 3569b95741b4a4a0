//! ServiceCIDR.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("CIDRs", "The ranges that addresses of services come from.").by(|c| joined(&c["spec"]["cidrs"], "")),
        AGE,
    ],
    rules: &[("spec.cidrs", Required("at least one CIDR required"))],
    ..Kind::PLAIN
};
