//! POST to a collection.

use meta::Status;

use crate::body::Response;
use crate::call::Call;
use crate::options::WriteOptions;
use crate::{decode, reply, write};

pub async fn create(call: &Call, body: &[u8]) -> Result<Response, Status> {
    let options = WriteOptions::parse(call, "CreateOptions")?;
    let document = decode::object(call, body, options.validation)?;
    let object = write::create(call, document, &options).await?;
    Ok(reply::created(call, &object, &options))
}
