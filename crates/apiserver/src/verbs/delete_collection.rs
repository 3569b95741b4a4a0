//! DELETE of a collection: every object that the selectors mean, one by one.
//!
//! Invariant: the answer lists what was there when it began; what vanishes meanwhile is no error.

use meta::{Reason, Status, json};

use crate::body::Response;
use crate::call::Call;
use crate::custom;
use crate::filter::Filter;
use crate::listing::ListOptions;
use crate::verbs::{delete, list};

pub async fn delete_collection(call: &Call, body: &[u8]) -> Result<Response, Status> {
    let options = delete::options(call, body)?;
    options.check_for_collection()?;
    delete::warn_of_orphans(call, &options);
    let wanted = ListOptions::parse(&call.query, false)?;
    let filter = Filter::parse(&call.target, &call.path, &call.query)?;
    let storage = &call.shared.storage;
    storage.fresh().await?;
    let applied = storage.feed.applied();
    let found = call.target.cache.snapshot(&filter.prefix, "", wanted.limit, false, |o| filter.matches(o));
    let objects = custom::present_matching(&call.shared, &call.served, &filter, found.objects).await?;
    for object in &objects {
        match delete::delete_key(call, &call.target, &object.key, &object.name, &options).await {
            Ok(_) => {}
            Err(status) if status.reason == Reason::NotFound => {}
            Err(status) => return Err(status),
        }
    }
    let metadata = json!({"resourceVersion": applied.max(found.rv).to_string()});
    Ok(list::answer(call, &metadata, objects).await)
}
