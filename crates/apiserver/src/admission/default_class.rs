//! DefaultStorageClass and DefaultIngressClass: what names no class gets the one that is marked as the default.
//!
//! Reads: the classes. Changes: new claims and ingresses. Invariant: of several defaults the newest is taken, of several as
//! new as that the first by name; where there is none the object stays as it is.

use std::cmp::Reverse;

use meta::{Status, Value};

use super::{Operation, Review};
use crate::metadata;

struct Defaulted {
    /// Group and plural of the objects, group and plural of the classes.
    objects: [&'static str; 2],
    classes: [&'static str; 2],
    /// Member of the spec, and the annotation that came before it.
    member: &'static str,
    old: &'static str,
    /// Annotations that mark a class.
    marks: &'static [&'static str],
}

const STORAGE: Defaulted = Defaulted {
    objects: ["", "persistentvolumeclaims"],
    classes: ["storage.k8s.io", "storageclasses"],
    member: "storageClassName",
    old: "volume.beta.kubernetes.io/storage-class",
    marks: &["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"],
};

const INGRESS: Defaulted = Defaulted {
    objects: ["networking.k8s.io", "ingresses"],
    classes: ["networking.k8s.io", "ingressclasses"],
    member: "ingressClassName",
    old: "kubernetes.io/ingress.class",
    marks: &["ingressclass.kubernetes.io/is-default-class"],
};

pub fn storage(review: &Review<'_>, claim: &mut Value, _: Option<&Value>) -> Result<(), Status> {
    set(review, claim, &STORAGE);
    Ok(())
}

pub fn ingress(review: &Review<'_>, ingress: &mut Value, _: Option<&Value>) -> Result<(), Status> {
    set(review, ingress, &INGRESS);
    Ok(())
}

fn set(review: &Review<'_>, object: &mut Value, what: &Defaulted) {
    let [group, plural] = what.objects;
    let asked = review.operation == Operation::Create && review.subresource.is_empty() && review.is(group, plural);
    if !asked || !object["spec"][what.member].is_null() || !object["metadata"]["annotations"][what.old].is_null() {
        return;
    }
    let [group, plural] = what.classes;
    let Some(classes) = review.shared.registry.stored(group, plural) else { return };
    let marked = |o: &crate::object::Object| what.marks.iter().any(|mark| o.holds(mark));
    let all = classes.cache.snapshot("", "", 0, false, marked).objects;
    let all = all.iter().map(|class| class.document_without_owners());
    let chosen =
        all.filter(|class| what.marks.iter().any(|m| class["metadata"]["annotations"][*m].as_str() == Some("true")));
    let age = |class: &Value| class.str_at(&["metadata", "creationTimestamp"]).unwrap_or_default().to_string();
    if let Some(class) = chosen.max_by_key(|class| (age(class), Reverse(metadata::name(class).to_string()))) {
        object.set(&["spec", what.member], metadata::name(&class));
    }
}
