//! ServiceAccount.

use super::Kind;
use super::columns::{AGE, Column, NAME, age, name};

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::text("Secrets", "How many secrets pods with this account may use."), AGE],
    row: |s, now| vec![name(s), s.array_at(&["secrets"]).len().into(), age(s, now)],
    ..Kind::PLAIN
};
