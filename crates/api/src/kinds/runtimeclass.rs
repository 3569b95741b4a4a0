//! RuntimeClass.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::text("Handler", "The configuration of the container runtime to use.").at("handler"), AGE],
    rules: &[("handler", Required("")), ("handler", Name(names::dns1123_label)), ("handler", Immutable)],
    ..Kind::PLAIN
};
