//! StorageVersion.

use super::Kind;
use super::columns::{AGE, Column, NAME, age, name, text_or};

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::text("CommonEncodingVersion", "The version that all API servers write."), AGE],
    row: |s, now| vec![name(s), text_or(s, &["status", "commonEncodingVersion"], "<unset>"), age(s, now)],
    ..Kind::PLAIN
};
