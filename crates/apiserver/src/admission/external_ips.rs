//! DenyServiceExternalIPs: services get no external addresses that they do not have already.

use meta::{Status, Value};

use super::Review;

pub fn validate(review: &Review<'_>, new: Option<&Value>, old: Option<&Value>) -> Result<(), Status> {
    let Some(new) = new.filter(|_| review.is("", "services") && review.subresource.is_empty()) else { return Ok(()) };
    let path = ["spec", "externalIPs"];
    let had = |ip: &Value| old.is_some_and(|old| old.array_at(&path).contains(ip));
    match new.array_at(&path).iter().all(had) {
        true => Ok(()),
        false => Err(review.forbidden("Use of external IPs is denied by admission control")),
    }
}
