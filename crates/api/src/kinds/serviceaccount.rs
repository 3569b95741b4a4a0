//! ServiceAccount.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::text("Secrets", "How many secrets pods with this account may use.").count("secrets"), AGE],
    ..Kind::PLAIN
};
