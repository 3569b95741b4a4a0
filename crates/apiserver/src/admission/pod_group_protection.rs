//! PodGroupProtection: new groups of pods get a finalizer that keeps them while there are pods of them.
//!
//! Changes: those. The finalizer is a controller's to remove.

use meta::{Status, Value};

use super::storage_in_use::protect;
use super::{Operation, Review};

pub fn mutate(review: &Review<'_>, group: &mut Value, _: Option<&Value>) -> Result<(), Status> {
    if matches!(review.operation, Operation::Create) && review.is("scheduling.k8s.io", "podgroups") {
        protect(group, "scheduling.k8s.io/podgroup-protection");
    }
    Ok(())
}
