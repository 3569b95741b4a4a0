//! DefaultStorageClass and DefaultIngressClass: what names no class gets the one that is marked as the default.
//!
//! Reads: the classes. Changes: new claims and ingresses. Invariant: of several defaults the newest is taken, of several as
//! new as that the first by name; where there is none the object stays as it is.

use std::cmp::Reverse;
use std::sync::Arc;

use meta::{Status, Value};

use super::{Operation, Review};
use crate::metadata;
use crate::object::Object;

const NETWORKING: &str = "networking.k8s.io";
const STORAGE_MARKS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

pub fn storage(review: &Review<'_>, claim: &mut Value, _: Option<&Value>) -> Result<(), Status> {
    if review.is("", "persistentvolumeclaims") {
        let before = "volume.beta.kubernetes.io/storage-class";
        set(review, claim, ["storageClassName", before], ["storage.k8s.io", "storageclasses"], &STORAGE_MARKS);
    }
    Ok(())
}

pub fn ingress(review: &Review<'_>, ingress: &mut Value, _: Option<&Value>) -> Result<(), Status> {
    if review.is(NETWORKING, "ingresses") {
        let members = ["ingressClassName", "kubernetes.io/ingress.class"];
        set(review, ingress, members, [NETWORKING, "ingressclasses"], &["ingressclass.kubernetes.io/is-default-class"]);
    }
    Ok(())
}

/// Sets the spec's member, unless that or the annotation that came before it is there.
fn set(review: &Review<'_>, object: &mut Value, [member, before]: [&str; 2], classes: [&str; 2], marks: &[&str]) {
    let asked = review.operation == Operation::Create && review.subresource.is_empty();
    if !asked || !object["spec"][member].is_null() || !object["metadata"]["annotations"][before].is_null() {
        return;
    }
    let [group, plural] = classes;
    let Some(classes) = review.shared.registry.stored(group, plural) else { return };
    let marked = |o: &Object| marks.iter().any(|mark| o.holds(mark));
    if let Some(class) = newest(&classes.cache.snapshot("", "", 0, false, marked).objects, marks) {
        object.set(&["spec", member], class);
    }
}

/// The name of the class of storage that is the default one among these.
pub fn of_storage(classes: &[Arc<Object>]) -> Option<String> {
    newest(classes, &STORAGE_MARKS)
}

fn newest(classes: &[Arc<Object>], marks: &[&str]) -> Option<String> {
    let all = classes.iter().map(|class| class.document_without_owners());
    let chosen =
        all.filter(|class| marks.iter().any(|m| class["metadata"]["annotations"][*m].as_str() == Some("true")));
    let age = |class: &Value| class.str_at(&["metadata", "creationTimestamp"]).unwrap_or_default().to_string();
    let newest = chosen.max_by_key(|class| (age(class), Reverse(metadata::name(class).to_string())));
    newest.map(|class| metadata::name(&class).to_string())
}
