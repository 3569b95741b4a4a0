//! ValidatingAdmissionPolicy.

use meta::Value;

use super::admissionpolicy::{PARAM_KIND, param_kind, policy_defaults};
use super::columns::{AGE, Column, NAME, age, name};
use super::{Kind, first_generation, keep_status_count_spec};

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::number("Validations", "How many validations there are."), PARAM_KIND, AGE],
    row: |p, now| vec![name(p), p.array_at(&["spec", "validations"]).len().into(), param_kind(p), age(p, now)],
    defaults: policy_defaults,
    prepare_create: |p| {
        p.set(&["status"], Value::object());
        first_generation(p);
    },
    prepare_update: keep_status_count_spec,
    ..Kind::PLAIN
};
