//! PodCertificateRequest.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("PodName", "").at("spec.podName"),
        Column::text("ServiceAccountName", "").at("spec.serviceAccountName"),
        Column::text("NodeName", "").at("spec.nodeName"),
        Column::text("SignerName", "").at("spec.signerName"),
        Column::text("State", "Is the request Pending, Issued, Denied, or Failed?").by(state),
        Column::text("UnverifiedUserAnnotations", ".spec.unverifiedUserAnnotations")
            .by(|r| labels(&r["spec"]["unverifiedUserAnnotations"]).into()),
    ],
    selectable: |r| FIELDS.iter().map(|field| (*field, text(r, &["spec", &field[5..]]).to_string())).collect(),
    selectable_names: FIELDS,
    ..Kind::PLAIN
};

const FIELDS: &[&str] = &["spec.signerName", "spec.podName", "spec.nodeName"];

fn state(r: &Value) -> Cell {
    let mut conditions = r.array_at(&["status", "conditions"]).iter().map(|c| text(c, &["type"]));
    conditions.find(|ty| ["Issued", "Denied", "Failed"].contains(ty)).unwrap_or("Pending").into()
}
