//! Admission: plugins that look at a write before it is stored, change it, or refuse it.
//!
//! One ordered list of plugins; what changes a document comes before validation, what only refuses after it. After each
//! of the two come the webhooks and policies that the cluster has configured (`outside`); quotas come last of all, with the
//! write itself (`resource_quota`). Invariant: plugins see the document in its stored version, and a plugin that refuses
//! says why in upstream's words.

mod anti_affinity;
pub mod certificates;
mod claim_resize;
mod configured;
pub mod default_class;
mod expressions;
mod extended_resources;
mod external_ips;
mod limit_ranger;
mod matching;
mod mutating_policies;
mod namespace_lifecycle;
mod node_selector;
mod node_taint;
pub mod outside;
mod params;
mod pod_group_protection;
mod pod_resize;
mod pod_security;
pub mod pod_topology_labels;
mod policies;
pub mod priority;
mod pull_images;
mod request;
pub mod resource_quota;
mod runtime_class;
mod service_account;
mod settings;
mod storage_in_use;
mod times;
mod toleration_seconds;
mod webhooks;

use std::sync::Arc;
use std::time::Instant;

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

type Outcome<'a> = BoxFuture<'a, Result<(), Status>>;
type Check = fn(&Review<'_>, Option<&Value>, Option<&Value>) -> Result<(), Status>;

/// What a plugin does. The new document is `None` for a deletion, the old one for a creation.
#[derive(Clone, Copy)]
enum Part {
    /// Changes the new document, or refuses the write, after asking the store.
    Asks(for<'a> fn(&'a mut Review<'_>, &'a mut Value, Option<&'a Value>) -> Outcome<'a>),
    /// The same from what is at hand.
    Sets(fn(&Review<'_>, &mut Value, Option<&Value>) -> Result<(), Status>),
    /// Refuses the write.
    Checks(Check),
}

use Part::{Asks, Checks, Sets};
pub use settings::Settings;
pub use times::Times;

/// In upstream's order. Source: the page "Admission Control in Kubernetes". Which of them are off by default: `settings`.
const PLUGINS: &[(&str, Part)] = &[
    ("NamespaceAutoProvision", Asks(namespace_lifecycle::provision)),
    ("NamespaceLifecycle", Asks(namespace_lifecycle::mutate)),
    ("NamespaceLifecycle", Checks(namespace_lifecycle::validate)),
    ("NamespaceExists", Asks(namespace_lifecycle::exists)),
    ("LimitPodHardAntiAffinityTopology", Checks(anti_affinity::validate)),
    ("LimitRanger", Sets(limit_ranger::mutate)),
    ("LimitRanger", Checks(limit_ranger::validate)),
    ("ServiceAccount", Asks(service_account::mutate)),
    ("TaintNodesByCondition", Sets(node_taint::mutate)),
    ("AlwaysPullImages", Sets(pull_images::mutate)),
    ("PodSecurity", Checks(pod_security::validate)),
    ("PodNodeSelector", Sets(node_selector::mutate)),
    ("Priority", Asks(priority::mutate)),
    ("Priority", Checks(priority::validate)),
    ("DefaultTolerationSeconds", Sets(toleration_seconds::mutate)),
    ("ExtendedResourceToleration", Sets(extended_resources::mutate)),
    ("DefaultStorageClass", Sets(default_class::storage)),
    ("StorageObjectInUseProtection", Sets(storage_in_use::mutate)),
    ("PodGroupProtection", Sets(pod_group_protection::mutate)),
    ("PersistentVolumeClaimResize", Checks(claim_resize::validate)),
    ("RuntimeClass", Asks(runtime_class::mutate)),
    ("CertificateApproval", Checks(certificates::approval)),
    ("CertificateSigning", Checks(certificates::signing)),
    ("ClusterTrustBundleAttest", Checks(certificates::attest)),
    ("CertificateSubjectRestriction", Checks(certificates::subject)),
    ("DefaultIngressClass", Sets(default_class::ingress)),
    ("DenyServiceExternalIPs", Checks(external_ips::validate)),
    ("PodTopologyLabels", Sets(pod_topology_labels::mutate)),
    ("NodeDeclaredFeatureValidator", Checks(pod_resize::features)),
    ("PodResizeValidator", Checks(pod_resize::validate)),
];

pub async fn mutate(review: &mut Review<'_>, new: &mut Value, old: Option<&Value>) -> Result<(), Status> {
    if review.name.is_empty() {
        review.name = crate::metadata::name(new).to_string();
    }
    let since = Instant::now();
    let mut result = plugins(review, new, old).await;
    if result.is_ok() {
        result = outside::mutate(review, Some(new), old).await;
    }
    review.shared.metrics.admission.step(true, review.operation, result.is_err(), since);
    result
}

/// The built-in plugins that change documents.
async fn plugins(review: &mut Review<'_>, new: &mut Value, old: Option<&Value>) -> Result<(), Status> {
    let (times, mut since) = (&review.shared.metrics.admission, Instant::now());
    for (index, (_, part)) in PLUGINS.iter().enumerate().filter(|(i, _)| review.shared.config.admission.is_on(*i)) {
        let result = match part {
            Asks(plugin) => plugin(review, new, old).await,
            Sets(plugin) => plugin(review, new, old),
            Checks(_) => continue,
        };
        times.record(index, review.operation, result.is_err(), &mut since);
        result?;
    }
    Ok(())
}

pub async fn validate(review: &mut Review<'_>, new: Option<&Value>, old: Option<&Value>) -> Result<(), Status> {
    if let Some(new) = new.filter(|_| review.name.is_empty()) {
        review.name = crate::metadata::name(new).to_string();
    }
    let since = Instant::now();
    let mut result = checks(review, new, old).and_then(|()| outside::check(review, new, old));
    if result.is_ok() {
        result = outside::validate(review, new, old).await;
    }
    review.shared.metrics.admission.step(false, review.operation, result.is_err(), since);
    result
}

/// The built-in plugins that only refuse.
fn checks(review: &Review<'_>, new: Option<&Value>, old: Option<&Value>) -> Result<(), Status> {
    let (times, mut since) = (&review.shared.metrics.admission, Instant::now());
    for (index, (_, part)) in PLUGINS.iter().enumerate().filter(|(i, _)| review.shared.config.admission.is_on(*i)) {
        let Checks(plugin) = part else { continue };
        let result = plugin(review, new, old);
        times.record(index, review.operation, result.is_err(), &mut since);
        result?;
    }
    Ok(())
}
