//! GET of one object.
//!
//! Reads: the watch cache. Invariant: without a resourceVersion the answer is not older than the request.

use std::sync::Arc;

use meta::Status;

use crate::body::Response;
use crate::call::Call;
use crate::custom;
use crate::listing::{self, Version};
use crate::object::Object;
use crate::reply;

pub async fn get(call: &Call) -> Result<Response, Status> {
    let object = find(call).await?;
    Ok(reply::object(call, 200, &object))
}

/// The object that the path names.
pub async fn find(call: &Call) -> Result<Arc<Object>, Status> {
    let storage = &call.shared.storage;
    let text = call.query.get("resourceVersion");
    match listing::version(text) {
        Some(Version::Any) => {}
        Some(Version::Newest) => storage.fresh().await?,
        Some(Version::At(revision)) => storage.feed.reach(revision).await?,
        None => return Err(Status::new(500, meta::Reason::Unknown, listing::not_a_version(text).to_string())),
    }
    let object = call.target.cache.get(&call.key()).ok_or_else(|| call.not_found())?;
    custom::present(&call.shared, &call.served, object).await
}
