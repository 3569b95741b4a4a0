//! Who asks: client certificates and service account tokens.
//!
//! Reads: the identity of the connection's certificate, the `Authorization` header, and for tokens the objects they are
//! bound to. Invariant: a token counts only while its service account and whatever it is bound to exist with the same
//! uid. Answers `None` for who shows nothing; somebody who shows something wrong is refused.

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use meta::Status;
use pki::tokens::{Bound, ObjectRef};

use crate::shared::Shared;
use crate::user::User;

/// Prefix of service account user names.
pub const SERVICE_ACCOUNT: &str = "system:serviceaccount:";
/// Prefix of the WebSocket subprotocol that carries a token.
pub const BEARER_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

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
    token_user(shared, token, None).await.map(Some).map_err(|why| {
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
    token_user(shared, &token, None).await.map(Some).map_err(|_| Status::unauthorized())
}

/// The user of a service account token for one of `audiences` (this server's own when `None`).
pub async fn token_user(shared: &Shared, token: &str, audiences: Option<&[String]>) -> Result<Arc<User>, String> {
    let tokens = shared.config.tokens.as_ref().ok_or("this server accepts no tokens")?;
    let audiences = audiences.unwrap_or(&tokens.audiences);
    let claims = tokens.verifier.verify(token, audiences).map_err(|e| e.to_string())?;
    let bound = &claims.kubernetes;
    check_bound(shared, bound).await?;
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
    Ok(Arc::new(user))
}

async fn check_bound(shared: &Shared, bound: &Bound) -> Result<(), String> {
    let namespace = bound.namespace.as_str();
    let account = Some(&bound.serviceaccount);
    for (resource, namespace, object) in [
        ("serviceaccounts", namespace, account),
        ("pods", namespace, bound.pod.as_ref()),
        ("secrets", namespace, bound.secret.as_ref()),
        ("nodes", "", bound.node.as_ref()),
    ] {
        let Some(object) = object else { continue };
        let found = shared.find("", resource, namespace, &object.name).await.map_err(|e| e.to_string())?;
        let found = found.ok_or_else(|| format!("{resource} {:?} is gone", object.name))?;
        if !object.uid.is_empty() && found.uid != object.uid {
            return Err(format!("{resource} {:?} is another one now", object.name));
        }
    }
    Ok(())
}
