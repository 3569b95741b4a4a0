//! ClusterTrustBundle.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::text("SignerName", "").at("spec.signerName")],
    name_rule: |_| Vec::new(),
    rules: &[("spec.trustBundle", Required(""))],
    selectable: |b| vec![("spec.signerName", text(b, &["spec", "signerName"]).to_string())],
    selectable_names: &["spec.signerName"],
    ..Kind::PLAIN
};
