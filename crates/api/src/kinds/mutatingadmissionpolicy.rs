//! MutatingAdmissionPolicy.

use super::admissionpolicy::{PARAM_KIND, param_kind, policy_defaults};
use super::columns::{AGE, Column, NAME, age, name};
use super::{Kind, count_change, first_generation};

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::number("Mutations", "How many mutations there are."), PARAM_KIND, AGE],
    row: |p, now| vec![name(p), p.array_at(&["spec", "mutations"]).len().into(), param_kind(p), age(p, now)],
    defaults: policy_defaults,
    prepare_create: first_generation,
    prepare_update: |new, old| count_change(new, old, &["spec"]),
    ..Kind::PLAIN
};
