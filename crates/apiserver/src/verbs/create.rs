//! POST to a collection.

use meta::{Reason, Status};

use crate::body::Response;
use crate::call::Call;
use crate::options::WriteOptions;
use crate::{decode, metadata, reply, write};

pub async fn create(call: &Call, body: &[u8]) -> Result<Response, Status> {
    let options = WriteOptions::parse(call, "CreateOptions")?;
    let document = decode::object(call, body, options.validation)?;
    // Compat: upstream's storage refuses this late, with code 500 and no reason.
    if metadata::version(&document).is_some() {
        let message = "resourceVersion should not be set on objects to be created";
        return Err(Status::new(500, Reason::Unknown, message));
    }
    let object = write::create(call, document, &options).await?;
    Ok(reply::created(call, &object, &options))
}
