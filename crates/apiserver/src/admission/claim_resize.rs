//! PersistentVolumeClaimResize: a bound claim grows only where its class says that volumes may.
//!
//! Reads: storage classes.

use meta::quantity::Quantity;
use meta::{Status, Value};

use super::{Operation, Review};

pub fn validate(review: &Review<'_>, new: Option<&Value>, old: Option<&Value>) -> Result<(), Status> {
    let asked = review.operation == Operation::Update && review.subresource.is_empty();
    let (true, Some(new), Some(old)) = (asked && review.is("", "persistentvolumeclaims"), new, old) else {
        return Ok(());
    };
    let size = |claim: &Value| {
        claim.str_at(&["spec", "resources", "requests", "storage"]).and_then(|text| Quantity::parse(text).ok())
    };
    if size(new) <= size(old) {
        return Ok(());
    }
    if old.str_at(&["status", "phase"]) != Some("Bound") {
        return Err(review.forbidden("Only bound persistent volume claims can be expanded"));
    }
    let class = |claim: &Value| claim.str_at(&["spec", "storageClassName"]).unwrap_or_default().to_string();
    let name = class(new);
    let found = review.shared.peek("storage.k8s.io", "storageclasses", "", &name).filter(|_| name == class(old));
    let grows = found.is_some_and(|class| class.document().bool_at(&["allowVolumeExpansion"]) == Some(true));
    let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support \
               resize";
    if grows { Ok(()) } else { Err(review.forbidden(why)) }
}
