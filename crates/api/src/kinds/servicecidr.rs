//! ServiceCIDR.

use meta::Value;

use super::Kind;
use super::columns::{AGE, Column, NAME, age, name};
use super::rules::{Check, check};

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::text("CIDRs", "The ranges that addresses of services come from."), AGE],
    row: |c, now| {
        let cidrs: Vec<&str> = c.array_at(&["spec", "cidrs"]).iter().filter_map(Value::as_str).collect();
        vec![name(c), cidrs.join(",").into(), age(c, now)]
    },
    validate_create: |c| {
        let mut errors = Vec::new();
        check(c, &[("spec.cidrs", Check::Required("at least one CIDR required"))], &mut errors);
        errors
    },
    ..Kind::PLAIN
};
