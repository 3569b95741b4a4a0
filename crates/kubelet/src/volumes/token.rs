//! Service account tokens for projected volumes: asked for by TokenRequest, kept until most of their life is over.
//!
//! Reads and writes `serviceaccounts/NAME/token`. Invariant: a token handed out is not expired, and is replaced once 80 %
//! of its life or 24 hours are over, whichever comes first.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use kube::api::{Api, PostParams};

const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
const DEFAULT_LIFE_SECONDS: i64 = 3600;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    pod_uid: String,
    audience: String,
    life_seconds: i64,
}

#[derive(Debug, Clone)]
struct Token {
    text: String,
    issued: Timestamp,
    expires: Timestamp,
}

/// A token and when to ask for the next.
#[derive(Debug, Clone)]
pub struct Issued {
    pub text: String,
    pub refresh_at: Timestamp,
}

pub struct Tokens {
    client: kube::Client,
    cache: Mutex<HashMap<Key, Token>>,
}

impl Tokens {
    pub fn new(client: kube::Client) -> Self {
        Self { client, cache: Mutex::default() }
    }

    /// A token for the pod's service account, from memory while it is fresh.
    pub async fn get(&self, pod: &Pod, source: &ServiceAccountTokenProjection) -> Result<Issued, String> {
        let key = Key {
            pod_uid: pod.metadata.uid.clone().unwrap_or_default(),
            audience: source.audience.clone().unwrap_or_default(),
            life_seconds: source.expiration_seconds.unwrap_or(DEFAULT_LIFE_SECONDS),
        };
        let now = Timestamp::now();
        let known = self.lock().get(&key).cloned();
        if let Some(token) = known.as_ref().filter(|token| now < refresh_at(token)) {
            return Ok(Issued { text: token.text.clone(), refresh_at: refresh_at(token) });
        }
        match self.request(pod, &key).await {
            Ok(token) => {
                let issued = Issued { text: token.text.clone(), refresh_at: refresh_at(&token) };
                self.lock().insert(key, token);
                Ok(issued)
            }
            Err(error) => match known.filter(|token| now < token.expires) {
                Some(token) => {
                    tracing::warn!(
                        pod = pod.metadata.name,
                        error,
                        "could not renew the service account token; the old one is still good"
                    );
                    Ok(Issued { text: token.text, refresh_at: now + Duration::from_secs(30) })
                }
                None => Err(format!("failed to fetch token: {error}")),
            },
        }
    }

    pub fn forget(&self, pod_uid: &str) {
        self.lock().retain(|key, _| key.pod_uid != pod_uid);
    }

    async fn request(&self, pod: &Pod, key: &Key) -> Result<Token, String> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let account = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.service_account_name.as_deref())
            .filter(|name| !name.is_empty())
            .unwrap_or("default");
        let bound = BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
        };
        let spec = TokenRequestSpec {
            audiences: Some(if key.audience.is_empty() { Vec::new() } else { vec![key.audience.clone()] }),
            bound_object_ref: Some(bound),
            expiration_seconds: Some(key.life_seconds),
            ..TokenRequestSpec::default()
        };
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let issued = Timestamp::now();
        let answer = api
            .create_token_request(account, &PostParams::default(), &request)
            .await
            .map_err(|error| client::message(&error))?;
        let status = answer.status.ok_or("the API server answered without a token")?;
        let expires = status
            .expiration_timestamp
            .map(|time| time.0)
            .unwrap_or(issued + Duration::from_secs(key.life_seconds.max(0) as u64));
        Ok(Token { text: status.token.ok_or("the API server answered without a token")?, issued, expires })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Token>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refresh_at(token: &Token) -> Timestamp {
    let life = Duration::try_from(token.expires.duration_since(token.issued)).unwrap_or(Duration::ZERO);
    token.issued + (life * 4 / 5).min(MAX_AGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_in_time() {
        let issued: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        for (life_s, refresh_s) in [(600, 480), (3607, 2885), (30 * 24 * 3600, 24 * 3600), (0, 0)] {
            let token = Token { text: String::new(), issued, expires: issued + Duration::from_secs(life_s) };
            assert_eq!(refresh_at(&token).as_second() - issued.as_second(), refresh_s, "{life_s}");
        }
    }
}
