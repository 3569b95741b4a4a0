//! DenyServiceExternalIPs: services get no external addresses that they do not have already.

use std::collections::HashSet;

use meta::{Status, Value};

use super::Review;

pub fn validate(review: &Review<'_>, new: Option<&Value>, old: Option<&Value>) -> Result<(), Status> {
    let Some(new) = new.filter(|_| review.is("", "services") && review.subresource.is_empty()) else { return Ok(()) };
    let path = ["spec", "externalIPs"];
    let known: HashSet<&str> = old.iter().flat_map(|old| old.array_at(&path)).filter_map(Value::as_str).collect();
    let had = |ip: &Value| ip.as_str().is_some_and(|ip| known.contains(ip));
    match new.array_at(&path).iter().all(had) {
        true => Ok(()),
        false => Err(review.forbidden("Use of external IPs is denied by admission control")),
    }
}
