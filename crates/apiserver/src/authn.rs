//! Who asks: client certificates and service account tokens.
//!
//! Reads: the identity of the connection's certificate, the `Authorization` header, and for tokens the objects they are
//! bound to. Invariant: a token counts only while its service account and whatever it is bound to exist with the same
//! uid: signatures are remembered, that is looked up for each request (with etcd, where the watch has come to). Answers
//! `None` for who shows nothing; somebody who shows something wrong is refused.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderMap;
use http::header::AUTHORIZATION;
use meta::Status;
use pki::tokens::{Bound, Claims, ObjectRef};
use sha2::{Digest, Sha256};

use crate::object::Object;
use crate::shared::Shared;
use crate::user::User;

/// Prefix of service account user names.
pub const SERVICE_ACCOUNT: &str = "system:serviceaccount:";
/// Prefix of the WebSocket subprotocol that carries a token.
pub const BEARER_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// Tokens whose signature was good, by their hashes: checking one takes longer than a request for one object.
#[derive(Default)]
pub struct KnownTokens(Mutex<HashMap<[u8; 32], Arc<Known>>>);

struct Known {
    user: Arc<User>,
    bound: Bound,
    /// Seconds since 1970.
    expires: i64,
}

impl KnownTokens {
    /// Of about a kilobyte each.
    const MOST: usize = 4096;

    fn get(&self, hash: &[u8; 32], now: i64) -> Option<Arc<Known>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(hash).cloned();
        known.filter(|known| now < known.expires)
    }

    fn add(&self, hash: [u8; 32], known: Known, now: i64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= Self::MOST {
            all.retain(|_, known| now < known.expires);
        }
        if all.len() >= Self::MOST {
            all.clear();
        }
        all.insert(hash, Arc::new(known));
    }
}

/// The user of a request; `None` when it shows no credentials.
pub async fn authenticate(
    shared: &Shared,
    certificate: Option<&Arc<User>>,
    headers: &HeaderMap,
) -> Result<Option<Arc<User>>, Status> {
    if let Some(user) = certificate {
        return Ok(Some(user.clone()));
    }
    let Some(header) = headers.get(AUTHORIZATION) else { return bearer_in_protocol(shared, headers).await };
    let text = header.to_str().map_err(|_| Status::unauthorized())?;
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(Status::unauthorized());
    }
    own_token_user(shared, token).await.map(Some).map_err(|why| {
        tracing::debug!("a bearer token was refused: {why}");
        Status::unauthorized()
    })
}

/// Compat: browsers cannot set headers of a WebSocket, so a token may come as a subprotocol (apiserver
/// authentication/request/websocket).
async fn bearer_in_protocol(shared: &Shared, headers: &HeaderMap) -> Result<Option<Arc<User>>, Status> {
    use base64::Engine;
    let Some(encoded) = headers
        .get_all(http::header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .find_map(|p| p.trim().strip_prefix(BEARER_PROTOCOL))
    else {
        return Ok(None);
    };
    let token = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(encoded.trim_end_matches('='))
        .ok()
        .and_then(|b| String::from_utf8(b).ok())
        .ok_or_else(Status::unauthorized)?;
    own_token_user(shared, &token).await.map(Some).map_err(|_| Status::unauthorized())
}

/// The user of a service account token for this server.
async fn own_token_user(shared: &Shared, token: &str) -> Result<Arc<User>, String> {
    let (hash, now) = (Sha256::digest(token).into(), meta::time::now().as_second());
    if let Some(known) = shared.tokens.get(&hash, now) {
        check_bound(shared, &known.bound).await?;
        return Ok(known.user.clone());
    }
    let claims = claims(shared, token, None).await?;
    let user = user_of(&claims);
    let known = Known { user: user.clone(), expires: claims.exp, bound: claims.kubernetes };
    shared.tokens.add(hash, known, now);
    Ok(user)
}

/// The user of a service account token for one of `audiences`.
pub async fn token_user(shared: &Shared, token: &str, audiences: &[String]) -> Result<Arc<User>, String> {
    claims(shared, token, Some(audiences)).await.map(|claims| user_of(&claims))
}

/// What a token says, once its signature, its audience (one of `audiences`, or this server's) and what it is bound to are
/// found good.
async fn claims(shared: &Shared, token: &str, audiences: Option<&[String]>) -> Result<Claims, String> {
    let tokens = shared.config.tokens.as_ref().ok_or("this server accepts no tokens")?;
    let claims = tokens.verifier.verify(token, audiences.unwrap_or(&tokens.audiences)).map_err(|e| e.to_string())?;
    check_bound(shared, &claims.kubernetes).await?;
    Ok(claims)
}

fn user_of(claims: &Claims) -> Arc<User> {
    let bound = &claims.kubernetes;
    let namespace = &bound.namespace;
    let mut user = User {
        name: format!("{SERVICE_ACCOUNT}{namespace}:{}", bound.serviceaccount.name),
        uid: bound.serviceaccount.uid.clone(),
        groups: vec![
            "system:serviceaccounts".into(),
            format!("system:serviceaccounts:{namespace}"),
            crate::user::AUTHENTICATED.into(),
        ],
        extra: vec![("authentication.kubernetes.io/credential-id".into(), vec![format!("JTI={}", claims.jti)])],
    };
    let mut add = |what: &str, object: &Option<ObjectRef>| {
        if let Some(object) = object {
            let key = format!("authentication.kubernetes.io/{what}");
            user.extra.push((format!("{key}-name"), vec![object.name.clone()]));
            if !object.uid.is_empty() {
                user.extra.push((format!("{key}-uid"), vec![object.uid.clone()]));
            }
        }
    };
    add("node", &bound.node);
    add("pod", &bound.pod);
    Arc::new(user)
}

async fn check_bound(shared: &Shared, bound: &Bound) -> Result<(), String> {
    let namespace = bound.namespace.as_str();
    let account = Some(&bound.serviceaccount);
    shared.storage.fresh_if_known().await.map_err(|e| e.to_string())?;
    for (resource, namespace, object) in [
        ("serviceaccounts", namespace, account),
        ("pods", namespace, bound.pod.as_ref()),
        ("secrets", namespace, bound.secret.as_ref()),
        ("nodes", "", bound.node.as_ref()),
    ] {
        let Some(object) = object else { continue };
        let is_it = |found: &Object| object.uid.is_empty() || found.uid == object.uid;
        if shared.peek("", resource, namespace, &object.name).is_some_and(|found| is_it(&found)) {
            continue;
        }
        // The cache may not have it yet.
        let found = shared.find("", resource, namespace, &object.name).await.map_err(|e| e.to_string())?;
        let found = found.ok_or_else(|| format!("{resource} {:?} is gone", object.name))?;
        if !is_it(&found) {
            return Err(format!("{resource} {:?} is another one now", object.name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_tokens_are_bounded_and_expire() {
        let tokens = KnownTokens::default();
        let object = ObjectRef { name: "a".into(), uid: String::new() };
        let bound = Bound { namespace: "n".into(), serviceaccount: object, pod: None, secret: None, node: None };
        let known = |expires| Known { user: User::anonymous(), bound: bound.clone(), expires };
        let hash = |i: usize| <[u8; 32]>::from(Sha256::digest(i.to_le_bytes()));
        for i in 0..KnownTokens::MOST {
            // Half of them soon expire.
            tokens.add(hash(i), known(if i % 2 == 0 { 10 } else { 100 }), 0);
        }
        assert!(tokens.get(&hash(0), 9).is_some() && tokens.get(&hash(0), 10).is_none());
        let count = || tokens.0.lock().expect("not poisoned").len();
        tokens.add(hash(KnownTokens::MOST), known(100), 50);
        assert_eq!((count(), tokens.get(&hash(1), 50).is_some()), (KnownTokens::MOST / 2 + 1, true));
        for i in 0..=KnownTokens::MOST {
            tokens.add(hash(i), known(100), 50);
        }
        assert!(count() <= KnownTokens::MOST);
    }
}
