//! ServiceAccount.

use super::prelude::*;

pub static KIND: Kind = Kind { prepare_create: names_only, prepare_update: |new, _| names_only(new), ..Kind::PLAIN };

/// Of secrets nothing but their names counts.
fn names_only(account: &mut Value) {
    fill::each(account, &["secrets"], |secret| secret.make_object().retain(|member, _| member == "name"));
}
