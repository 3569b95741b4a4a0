//! Who owns which field: calls the bookkeeping of `meta::apply` for every write.
//!
//! Invariants: kinds without a type graph are not tracked; nobody owns what the endpoint that they wrote to restores.

use meta::apply::{self, Writer};
use meta::{Status, Value, time};

use crate::options::WriteOptions;
use crate::registry::Served;

fn writer<'a>(served: &'a Served, options: &'a WriteOptions, subresource: &'a str) -> Writer<'a> {
    let api_version = options.api_version.as_ref().unwrap_or(&served.api_version);
    Writer { manager: &options.manager, api_version, subresource, now: time::now() }
}

pub fn created(served: &Served, document: &mut Value, options: &WriteOptions) {
    updated(served, document, &Value::Null, options, "");
}

pub fn updated(served: &Served, new: &mut Value, old: &Value, options: &WriteOptions, subresource: &str) {
    let Some(ty) = served.tracked() else { return };
    let writer = writer(served, options, subresource);
    // What the endpoint does not write is not the client's, whatever the client says of it there.
    let kept = if subresource.is_empty() { not_written(served) } else { &[] };
    let sent = swap(new, kept, kept.iter().map(|member| old.get(member).cloned()));
    apply::track_update(ty, old, new, &writer);
    swap(new, kept, sent);
}

/// Sets members to these values, or takes them out; answers what they were.
fn swap(document: &mut Value, members: &[&str], values: impl IntoIterator<Item = Option<Value>>) -> Vec<Option<Value>> {
    let map = document.make_object();
    let both = members.iter().zip(values);
    both.map(|(member, value)| match value {
        Some(value) => map.insert(*member, value),
        None => map.remove(member),
    })
    .collect()
}

/// The members that the main endpoint does not write.
fn not_written(served: &Served) -> &'static [&'static str] {
    match &*served.kind {
        "CertificateSigningRequest" if served.custom.is_none() => &["status", "spec"],
        _ if served.has_status => &["status"],
        _ => &[],
    }
}

/// Refuses an applied document that does not fit its type.
pub fn check(served: &Served, document: &Value) -> Result<(), Status> {
    served.tracked().map_or(Ok(()), |ty| apply::check(ty, document).map_err(|e| e.to_status()))
}

/// Takes out of an applied document what its endpoint does not write, so that nobody comes to own it there.
pub fn keep_own(served: &Served, document: &mut Value, subresource: &str) {
    match subresource {
        "" => not_written(served).iter().for_each(|member| {
            document.remove(&[member]);
        }),
        "status" => {
            document.make_object().retain(|member, _| matches!(member, "apiVersion" | "kind" | "metadata" | "status"));
            for member in served.rules.status_restores {
                document.remove(&["metadata", member]);
            }
        }
        _ => {}
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
    let Some(ty) = served.tracked() else {
        return Err(Status::bad_request(format!("{} cannot be applied by the server", served.gr)));
    };
    apply::apply(ty, live, document, &writer(served, options, subresource), options.force).map_err(|e| e.to_status())
}
