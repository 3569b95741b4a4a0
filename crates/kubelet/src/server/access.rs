//! Who may talk to the kubelet: the API server and cluster admins by client certificate; others if the API server says so.
//!
//! Reads the peer's certificate, which TLS has already held against the client CA; asks by TokenReview and
//! SubjectAccessReview. Invariant: no path but `/healthz` answers without an identity that is allowed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, Method};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::{Api, PostParams};
use pki::identity::Identity;

/// Members may do everything, as everywhere in a cluster.
const ADMINS: &str = "system:masters";
/// The name on the certificate that an API server shows to kubelets.
pub const API_SERVER: &str = "kube-apiserver-kubelet-client";

const ALLOWED_TTL: Duration = Duration::from_secs(60);
const DENIED_TTL: Duration = Duration::from_secs(10);
const MAX_CACHED: usize = 1024;

type Question = (String, &'static str, &'static str);

pub struct Access {
    client: kube::Client,
    node_name: String,
    answers: Mutex<HashMap<Question, (Instant, bool)>>,
}

impl Access {
    pub fn new(client: kube::Client, node_name: String) -> Self {
        Self { client, node_name, answers: Mutex::default() }
    }

    /// Who is asking: by certificate, else by bearer token. None is nobody.
    pub async fn identify(&self, certificate: Option<&Identity>, headers: &HeaderMap) -> Option<Identity> {
        if let Some(identity) = certificate {
            return Some(identity.clone());
        }
        let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
        let token = value.strip_prefix("Bearer ")?.trim().to_owned();
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let spec = TokenReviewSpec { token, ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let status = match api.create(&PostParams::default(), &review).await {
            Ok(review) => review.status?,
            Err(error) => {
                tracing::warn!(%error, "could not ask the API server about a token");
                return None;
            }
        };
        let user = status.user.filter(|_| status.authenticated == Some(true))?;
        Some(Identity { name: user.username?, groups: user.groups.unwrap_or_default() })
    }

    /// None when allowed, else the words of the refusal.
    pub async fn refusal(&self, identity: &Identity, method: &Method, path: &str) -> Option<String> {
        let (verb, subresource) = (meta::verb_of_method(method.as_str()), subresource(path));
        if identity.name == API_SERVER || identity.groups.iter().any(|group| group == ADMINS) {
            return None;
        }
        let question = (identity.name.clone(), verb, subresource);
        let known =
            self.lock().get(&question).filter(|(until, _)| *until > Instant::now()).map(|(_, allowed)| *allowed);
        let allowed = match known {
            Some(allowed) => allowed,
            None => {
                let allowed = self.ask(identity, verb, subresource).await;
                let mut answers = self.lock();
                answers.retain(|_, (until, _)| *until > Instant::now());
                if answers.len() < MAX_CACHED {
                    answers
                        .insert(question, (Instant::now() + if allowed { ALLOWED_TTL } else { DENIED_TTL }, allowed));
                }
                allowed
            }
        };
        let text = format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{subresource}])\n",
            identity.name
        );
        (!allowed).then_some(text)
    }

    async fn ask(&self, identity: &Identity, verb: &str, subresource: &str) -> bool {
        let attributes = ResourceAttributes {
            verb: Some(verb.to_owned()),
            version: Some("v1".to_owned()),
            resource: Some("nodes".to_owned()),
            subresource: Some(subresource.to_owned()),
            name: Some(self.node_name.clone()),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: Some(identity.name.clone()),
            groups: Some(identity.groups.clone()),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        match api.create(&PostParams::default(), &review).await {
            Ok(review) => review.status.is_some_and(|status| status.allowed),
            Err(error) => {
                tracing::warn!(user = identity.name, %error, "could not ask the API server whether a user may talk to this kubelet");
                false
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Question, (Instant, bool)>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// As upstream maps paths to subresources of nodes.
fn subresource(path: &str) -> &'static str {
    match path.split('/').find(|segment| !segment.is_empty()) {
        Some("stats") => "stats",
        Some("metrics") => "metrics",
        Some("logs") => "log",
        Some("healthz") => "healthz",
        Some("pods" | "runningpods") => "pods",
        _ => "proxy",
    }
}
