//! Who owns which field: calls the bookkeeping of `meta::apply` for every write.
//!
//! Invariant: kinds without a type graph are not tracked.

use meta::apply::{self, Writer};
use meta::{Status, Value, time};

use crate::options::WriteOptions;
use crate::registry::Served;

fn writer<'a>(served: &'a Served, options: &'a WriteOptions, subresource: &'a str) -> Writer<'a> {
    Writer { manager: &options.manager, api_version: &served.api_version, subresource, now: time::now() }
}

pub fn created(served: &Served, document: &mut Value, options: &WriteOptions) {
    updated(served, document, &Value::Null, options, "");
}

pub fn updated(served: &Served, new: &mut Value, old: &Value, options: &WriteOptions, subresource: &str) {
    if let Some(ty) = served.ty {
        apply::track_update(ty, old, new, &writer(served, options, subresource));
    }
}

/// The live object (null when there is none) with the applied document merged in.
pub fn applied(
    served: &Served,
    live: &Value,
    document: &Value,
    options: &WriteOptions,
    subresource: &str,
) -> Result<Value, Status> {
    let Some(ty) = served.ty else {
        return Err(Status::bad_request(format!("{} cannot be applied by the server", served.gr)));
    };
    apply::apply(ty, live, document, &writer(served, options, subresource), options.force).map_err(|e| e.to_status())
}
