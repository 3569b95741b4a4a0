//! PUT of an object.
//!
//! Invariant: with a resourceVersion in the body the update happens on that version or not at all.

use meta::{Reason, Status};

use crate::body::Response;
use crate::call::Call;
use crate::options::WriteOptions;
use crate::write::{self, Endpoint};
use crate::{decode, metadata, reply};

pub async fn update(call: &Call, body: &[u8]) -> Result<Response, Status> {
    replace(call, body, Endpoint::Main).await
}

pub async fn replace(call: &Call, body: &[u8], endpoint: Endpoint) -> Result<Response, Status> {
    let options = WriteOptions::parse(call, "UpdateOptions")?;
    let mut document = decode::object(call, body, options.validation)?;
    metadata::merge_owners(call, &mut document, "");
    write::to_stored(call, &mut document);
    metadata::check_names(call, &call.target, &mut document)?;
    call.target.defaults(&mut document);
    match write::update(call, endpoint, &options, |_| Ok(document.clone())).await {
        Ok(object) => Ok(reply::object(call, 200, &object)),
        Err(status) if status.reason == Reason::NotFound && may_create(call, endpoint) => {
            if let Some(uid) = document.str_at(&["metadata", "uid"]).filter(|uid| !uid.is_empty()) {
                return Err(write::other_uid(call, &call.target, &call.path.namespace, &call.path.name, uid, ""));
            }
            // Compat: whatever version the client thought of.
            document.remove(&["metadata", "resourceVersion"]);
            let object = write::create(call, document, &options).await?;
            Ok(reply::created(call, &object, &options))
        }
        Err(status) => Err(status),
    }
}

fn may_create(call: &Call, endpoint: Endpoint) -> bool {
    endpoint == Endpoint::Main && call.target.rules.create_on_update
}
