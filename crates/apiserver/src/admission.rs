//! Admission: plugins that look at a write before it is stored, change it, or refuse it.
//!
//! An ordered list of mutating plugins, then one of validating ones; each is a file. After each of the two lists come the
//! webhooks and policies that the cluster has configured (`outside`); quotas come last of all, with the write itself
//! (`resource_quota`). Invariant: plugins see the document
//! in its stored version, and a plugin that refuses says why in upstream's words.

mod configured;
mod expressions;
mod limit_ranger;
mod matching;
mod mutating_policies;
mod namespace_lifecycle;
pub mod outside;
mod params;
mod policies;
pub mod priority;
mod request;
pub mod resource_quota;
mod runtime_class;
mod service_account;
mod storage_in_use;
mod toleration_seconds;
mod webhooks;

use std::sync::Arc;

use futures::future::BoxFuture;
use meta::{Status, Value};

use crate::call::Call;
use crate::options::DeleteOptions;
use crate::registry::Served;
use crate::shared::Shared;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    /// As rules and reviews name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// What is being written.
pub struct Review<'a> {
    pub call: &'a Call,
    pub shared: &'a Shared,
    pub served: &'a Arc<Served>,
    pub operation: Operation,
    pub subresource: &'a str,
    pub namespace: String,
    /// Empty for a new object whose name is not made up yet.
    pub name: String,
    pub dry_run: bool,
    /// Of a deletion.
    pub deletion: Option<&'a DeleteOptions>,
}

impl Review<'_> {
    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.served.info.group == group && self.served.info.plural == resource
    }

    pub fn forbidden(&self, why: impl std::fmt::Display) -> Status {
        Status::forbidden(&self.served.gr, &self.name, why)
    }
}

/// Changes the new document, or refuses the write. The old one is `None` for a creation.
type Mutate = for<'a> fn(&'a mut Review<'_>, &'a mut Value, Option<&'a Value>) -> BoxFuture<'a, Result<(), Status>>;
/// Refuses the write. New is `None` for a deletion, old for a creation.
type Validate = for<'a> fn(&'a Review<'_>, Option<&'a Value>, Option<&'a Value>) -> BoxFuture<'a, Result<(), Status>>;

/// In upstream's order.
const MUTATING: &[Mutate] = &[
    namespace_lifecycle::mutate,
    limit_ranger::mutate,
    service_account::mutate,
    priority::mutate,
    toleration_seconds::mutate,
    storage_in_use::mutate,
    runtime_class::mutate,
];

const VALIDATING: &[Validate] = &[namespace_lifecycle::validate, limit_ranger::validate, priority::validate];

pub async fn mutate(review: &mut Review<'_>, new: &mut Value, old: Option<&Value>) -> Result<(), Status> {
    if review.name.is_empty() {
        review.name = crate::metadata::name(new).to_string();
    }
    plugins(review, new, old).await?;
    outside::mutate(review, Some(new), old).await
}

/// The built-in mutating plugins.
async fn plugins(review: &mut Review<'_>, new: &mut Value, old: Option<&Value>) -> Result<(), Status> {
    for plugin in MUTATING {
        plugin(review, new, old).await?;
    }
    Ok(())
}

pub async fn validate(review: &mut Review<'_>, new: Option<&Value>, old: Option<&Value>) -> Result<(), Status> {
    if let Some(new) = new.filter(|_| review.name.is_empty()) {
        review.name = crate::metadata::name(new).to_string();
    }
    for plugin in VALIDATING {
        plugin(review, new, old).await?;
    }
    outside::check(review, new, old)?;
    outside::validate(review, new, old).await
}
