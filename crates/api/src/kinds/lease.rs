//! Lease.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::text("Holder", "").at("spec.holderIdentity"), AGE],
    rules: &[("spec.leaseDurationSeconds", Positive), ("spec.leaseTransitions", NonNegative)],
    create_on_update: true,
    unconditional_update: false,
    ..Kind::PLAIN
};
