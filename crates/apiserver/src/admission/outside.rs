//! What the cluster's own configuration decides about a write: webhooks and policies, after all built-in plugins.
//!
//! Reads: the configurations, compiled. Invariants: where nothing is configured, nothing is allocated; the objects that
//! configure admission are never subject to it, so that a mistake can be mended.

use std::time::Instant;

use meta::field::Errors;
use meta::{Status, Value};

use super::configured::{Configured, GROUP};
use super::mutating_policies;
use super::policies::{self, Binding, Policy};
use super::request::Request;
use super::webhooks::{self, Hook};
use super::{Operation, Review, plugins, times};
use crate::call::Call;
use crate::shared::Shared;
use crate::write;

pub struct Outside {
    mutating: Configured<Vec<Hook>>,
    validating: Configured<Vec<Hook>>,
    mutating_policies: Configured<mutating_policies::Policy>,
    mutating_bindings: Configured<Binding>,
    policies: Configured<Policy>,
    bindings: Configured<Binding>,
}

impl Default for Outside {
    fn default() -> Self {
        Outside {
            mutating: Configured::new("mutatingwebhookconfigurations", webhooks::read),
            validating: Configured::new("validatingwebhookconfigurations", webhooks::read),
            mutating_policies: Configured::new("mutatingadmissionpolicies", |policy| {
                mutating_policies::read(policy, &mut Errors::new())
            }),
            mutating_bindings: Configured::new("mutatingadmissionpolicybindings", Binding::read),
            policies: Configured::new("validatingadmissionpolicies", |policy| {
                policies::read(policy, &mut Errors::new())
            }),
            bindings: Configured::new("validatingadmissionpolicybindings", Binding::read),
        }
    }
}

impl Outside {
    fn is_mutating(&self, shared: &Shared) -> bool {
        self.mutating.load(shared).is_some() || self.mutating_bindings.load(shared).is_some()
    }

    fn is_validating(&self, shared: &Shared) -> bool {
        self.validating.load(shared).is_some() || self.bindings.load(shared).is_some()
    }
}

/// Refuses configurations whose expressions are at fault.
pub fn check(review: &Review, new: Option<&Value>, old: Option<&Value>) -> Result<(), Status> {
    let Some(new) = new.filter(|_| review.served.info.group == GROUP && review.subresource.is_empty()) else {
        return Ok(());
    };
    // Compat: what was taken once is taken again (upstream's stored expressions).
    if old.is_some_and(|old| ["spec", "webhooks"].iter().all(|part| old.get(part) == new.get(part))) {
        return Ok(());
    }
    let mut errors = Errors::new();
    match review.served.kind.as_str() {
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => webhooks::check(new, &mut errors),
        "ValidatingAdmissionPolicy" => drop(policies::read(new, &mut errors)),
        "MutatingAdmissionPolicy" => drop(mutating_policies::read(new, &mut errors)),
        _ => return Ok(()),
    }
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(&review.served.gk, &review.name, &errors)) }
}

/// Not asked about at all.
fn is_exempt(review: &Review) -> bool {
    match (review.operation, review.subresource) {
        _ if review.served.info.group == GROUP => true,
        // What was asked about is the Binding, and the Eviction.
        (Operation::Update, "binding") => true,
        (Operation::Delete, _) => review.call.path.subresource == "eviction",
        _ => false,
    }
}

pub async fn mutate(review: &mut Review<'_>, mut new: Option<&mut Value>, old: Option<&Value>) -> Result<(), Status> {
    let shared = review.shared;
    if !shared.outside.is_mutating(shared) || is_exempt(review) {
        return Ok(());
    }
    let work = async {
        let mut again = [Reinvocation::default(), Reinvocation::default()];
        pass(review, new.as_deref_mut(), old, &mut again).await?;
        if again.iter().any(|seen| seen.changed) {
            again.iter_mut().for_each(|seen| seen.second = true);
            if let Some(new) = new.as_deref_mut().filter(|_| review.subresource.is_empty()) {
                plugins(review, new, old).await?;
            }
            pass(review, new, old, &mut again).await?;
        }
        Ok(())
    };
    // Boxed, so that every write need not have room for it.
    Box::pin(work).await
}

async fn pass(
    review: &Review<'_>,
    mut new: Option<&mut Value>,
    old: Option<&Value>,
    [policies_again, webhooks_again]: &mut [Reinvocation; 2],
) -> Result<(), Status> {
    let (shared, outside) = (review.shared, &review.shared.outside);
    let request = Request::new(review).await?;
    let policies = (outside.mutating_policies.load(shared), outside.mutating_bindings.load(shared));
    let (times, on, mut since) = (&shared.metrics.admission, &shared.config.admission, Instant::now());
    let mut timed = |which, result: Result<(), Status>| {
        times.record(which, review.operation, result.is_err(), &mut since);
        result
    };
    if let ((Some(policies), Some(bindings)), Some(new)) = (policies, new.as_deref_mut())
        && on.is_on(times::MUTATING_POLICIES)
    {
        let result = mutating_policies::mutate(&policies, &bindings, &request, new, old, policies_again).await;
        timed(times::MUTATING_POLICIES, result)?;
    }
    if let Some(hooks) = outside.mutating.load(shared).filter(|_| on.is_on(times::MUTATING_WEBHOOKS)) {
        let result = webhooks::mutate(&hooks, &request, new, old, webhooks_again).await;
        timed(times::MUTATING_WEBHOOKS, result)?;
    }
    Ok(())
}

pub async fn validate(review: &Review<'_>, new: Option<&Value>, old: Option<&Value>) -> Result<(), Status> {
    let (shared, outside) = (review.shared, &review.shared.outside);
    if !outside.is_validating(shared) || is_exempt(review) {
        return Ok(());
    }
    let work = async {
        let request = Request::new(review).await?;
        let (times, on, mut since) = (&shared.metrics.admission, &shared.config.admission, Instant::now());
        let mut timed = |which, result: Result<(), Status>| {
            times.record(which, review.operation, result.is_err(), &mut since);
            result
        };
        if let (Some(policies), Some(bindings)) = (outside.policies.load(shared), outside.bindings.load(shared))
            && on.is_on(times::VALIDATING_POLICIES)
        {
            let result = policies::validate(&policies, &bindings, &request, new, old).await;
            timed(times::VALIDATING_POLICIES, result)?;
        }
        if let Some(hooks) = outside.validating.load(shared).filter(|_| on.is_on(times::VALIDATING_WEBHOOKS)) {
            timed(times::VALIDATING_WEBHOOKS, webhooks::validate(&hooks, &request, new, old).await)?;
        }
        Ok(())
    };
    Box::pin(work).await
}

/// Asks about what is no object of the resource: the body of a subresource, the options of a stream.
pub async fn examine(call: &Call, operation: Operation, object: &mut Value, dry_run: bool) -> Result<(), Status> {
    let outside = &call.shared.outside;
    if !outside.is_mutating(&call.shared) && !outside.is_validating(&call.shared) {
        return Ok(());
    }
    let mut review = write::review(call, &call.served, operation, &call.path.subresource, dry_run);
    if review.name.is_empty() {
        review.name = crate::metadata::name(object).to_string();
    }
    mutate(&mut review, Some(object), None).await?;
    validate(&review, Some(object), None).await
}

/// Who has to see the document again because it was changed after they saw it.
#[derive(Default)]
pub struct Reinvocation {
    /// This is the second time around.
    pub second: bool,
    /// Somebody changed the document.
    pub changed: bool,
    /// Those that saw it and would see it again if needed.
    seen: Vec<String>,
    wanted: Vec<String>,
    /// As the last of them left it.
    left: Option<Value>,
}

impl Reinvocation {
    pub fn begin(&mut self, new: Option<&Value>) {
        // A built-in plugin has changed it in between.
        if self.second && self.left.as_ref() != new {
            self.wanted.append(&mut self.seen);
        }
    }

    pub fn wants(&self, id: &str) -> bool {
        !self.second || self.wanted.iter().any(|wanted| wanted == id)
    }

    pub fn called(&mut self, id: &str, again_if_needed: bool, changed: bool) {
        if changed {
            self.changed = true;
            self.wanted.append(&mut self.seen);
        }
        if again_if_needed {
            self.seen.push(id.to_string());
        }
    }

    pub fn end(&mut self, new: Option<&Value>) {
        if self.changed && !self.second {
            self.left = new.cloned();
        }
    }
}
