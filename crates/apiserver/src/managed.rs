//! Who owns which field: calls the bookkeeping of `meta::apply` for every write.
//!
//! Invariants: kinds without a type graph are not tracked; nobody owns what the endpoint that they wrote to restores.

use std::sync::Arc;

use meta::apply::{self, Other, Writer};
use meta::schema::TypeRef;
use meta::{Status, Value, time};

use crate::call::Call;
use crate::options::WriteOptions;
use crate::registry::Served;

/// The version whose fields a write of `target` is told in.
pub fn spoken<'c>(call: &'c Call, target: &'c Arc<Served>) -> &'c Arc<Served> {
    let own = call.served.conversion.as_ref().is_some_and(|c| !c.keeps_fields());
    if own && Arc::ptr_eq(target, &call.target) { &call.served } else { target }
}

/// Calls `work` with who writes, of a document in the version that is spoken.
fn with_writer<T>(
    call: &Call,
    target: &Arc<Served>,
    options: &WriteOptions,
    subresource: &str,
    work: impl FnOnce(&Writer<'_>) -> T,
) -> T {
    let served = spoken(call, target);
    let api_version = options.api_version.as_ref().unwrap_or(&served.api_version);
    let to_stored = |document: &mut Value| served.conversion.iter().for_each(|c| c.to_stored(document));
    let differing = call.shared.registry.with_other_fields(target);
    let to_served = |document: &mut Value| {
        differing.iter().flat_map(|other| &other.conversion).for_each(|c| c.to_served(document));
    };
    let (other, convert): (_, &dyn Fn(&mut Value)) = match Arc::ptr_eq(served, target) {
        true => (differing.as_ref(), &to_served),
        false => (Some(target), &to_stored),
    };
    let other = other.and_then(|o| Some(Other { api_version: &o.api_version, ty: o.tracked()?, convert }));
    work(&Writer { manager: &options.manager, api_version, subresource, now: time::now(), other })
}

/// Makes a document of the version that is spoken of a stored one.
fn tell(served: &Served, document: &Value) -> Value {
    let mut document = document.clone();
    if let Some(conversion) = served.conversion.as_ref().filter(|_| !document.is_null()) {
        conversion.to_served(&mut document);
    }
    document
}

pub fn created(call: &Call, target: &Arc<Served>, document: &mut Value, options: &WriteOptions) {
    updated(call, target, document, &Value::Null, options, "");
}

pub fn updated(
    call: &Call,
    target: &Arc<Served>,
    new: &mut Value,
    old: &Value,
    options: &WriteOptions,
    subresource: &str,
) {
    let served = spoken(call, target);
    let Some(ty) = served.tracked() else { return };
    // What the endpoint does not write is not the client's, whatever the client says of it there.
    let kept = if subresource.is_empty() { not_written(served) } else { &[] };
    let sent = swap(new, kept, kept.iter().map(|member| old.get(member).cloned()));
    with_writer(call, target, options, subresource, |writer| {
        if Arc::ptr_eq(served, target) {
            return apply::track_update(ty, old, new, writer);
        }
        let mut told = tell(served, new);
        apply::track_update(ty, &tell(served, old), &mut told, writer);
        let owners = ["metadata", "managedFields"];
        match told.remove(&owners) {
            Some(list) => new.set(&owners, list),
            None => drop(new.remove(&owners)),
        }
    });
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

/// The live object (null when there is none) with the applied document, which is in the version that is spoken, merged in.
pub fn applied(
    call: &Call,
    live: &Value,
    document: &Value,
    options: &WriteOptions,
    subresource: &str,
) -> Result<Value, Status> {
    let served = spoken(call, &call.target);
    let Some(ty) = served.tracked() else {
        return Err(Status::bad_request(format!("{} cannot be applied by the server", served.gr)));
    };
    with_writer(call, &call.target, options, subresource, |writer| {
        if Arc::ptr_eq(served, &call.target) {
            return apply::apply(ty, live, document, writer, options.force);
        }
        let mut merged = apply::apply(ty, &tell(served, live), document, writer, options.force)?;
        served.conversion.iter().for_each(|c| c.to_stored(&mut merged));
        Ok(merged)
    })
    .map_err(|e| e.to_status())
}

fn scale_writer(options: &WriteOptions) -> Writer<'_> {
    let api_version = apply::scale::API_VERSION;
    Writer { manager: &options.manager, api_version, subresource: "scale", now: time::now(), other: None }
}

/// The live Scale with the applied one merged in.
pub fn scale_applied(ty: TypeRef<'_>, live: &Value, document: &Value, options: &WriteOptions) -> Result<Value, Status> {
    apply::apply(ty, live, document, &scale_writer(options), options.force).map_err(|e| e.to_status())
}

/// Notes in a Scale who changed it.
pub fn scale_updated(live: &Value, scale: &mut Value, options: &WriteOptions) {
    let Some(ty) = api::resource::root_type("autoscaling", "v1", "Scale") else { return };
    scale.remove(&["metadata", "managedFields"]);
    apply::track_update(ty, live, scale, &scale_writer(options));
}
