//! StorageObjectInUseProtection: new volumes, claims and classes of their attributes get a finalizer that keeps them while they are in use.
//!
//! Changes: those. The finalizers are the controllers' to remove.

use meta::{Status, Value};

use super::{Operation, Review};

pub fn mutate(review: &Review<'_>, object: &mut Value, _: Option<&Value>) -> Result<(), Status> {
    let finalizer = match review.operation {
        Operation::Create if review.is("", "persistentvolumeclaims") => Some("kubernetes.io/pvc-protection"),
        Operation::Create if review.is("", "persistentvolumes") => Some("kubernetes.io/pv-protection"),
        Operation::Create if review.is("storage.k8s.io", "volumeattributesclasses") => {
            Some("kubernetes.io/vac-protection")
        }
        _ => None,
    };
    if let Some(finalizer) = finalizer {
        protect(object, finalizer);
    }
    Ok(())
}

/// Gives an object a finalizer, once.
pub fn protect(object: &mut Value, finalizer: &str) {
    let all = object.slot(&["metadata", "finalizers"]).make_array();
    if !all.iter().any(|f| f.as_str() == Some(finalizer)) {
        all.push(finalizer.into());
    }
}
