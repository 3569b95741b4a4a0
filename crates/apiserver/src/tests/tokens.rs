//! Tokens of service accounts: signed, accepted, and no longer accepted.

use std::sync::Arc;

use http::Method;
use meta::{Value, json};
use pki::tokens::{Signer, Verifier};
use tower::Service;

use super::{Cluster, collect};
use crate::Tokens;
use crate::config::DEFAULT_ISSUER;

pub async fn cluster() -> Cluster {
    let dir = tempfile::tempdir().expect("temporary directory");
    let key = pki::Pki::open(dir.path()).expect("keys").service_account_key_pem.clone();
    let tokens = Tokens {
        signer: Arc::new(Signer::from_pem(&key, DEFAULT_ISSUER).expect("signer")),
        verifier: Arc::new(Verifier::from_pems(&[&key], DEFAULT_ISSUER).expect("verifier")),
        audiences: vec![DEFAULT_ISSUER.into()],
    };
    Cluster::start_with(|c| c.tokens = Some(tokens)).await
}

async fn whoami(cluster: &Cluster, token: &str) -> (u16, Value) {
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let mut request = cluster.request(Method::POST, path, "application/json", "{}");
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().expect("header"));
    let response = cluster.server.local_anonymous().call(request).await.unwrap_or_else(|e| match e {});
    let answer = collect(response).await;
    (answer.code, answer.body["status"]["userInfo"].clone())
}

const TOKEN: &str = "/api/v1/namespaces/default/serviceaccounts/default/token";

#[tokio::test]
async fn a_token_lives_as_long_as_what_it_is_bound_to() {
    let cluster = cluster().await;
    cluster.pod("p").await;
    let spec = json!({"spec": {"expirationSeconds": 3600, "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p"}}});
    let request = cluster.ok(Method::POST, TOKEN, spec).await;
    let token = request.str_at(&["status", "token"]).expect("a token");
    let (code, user) = whoami(&cluster, token).await;
    assert_eq!(code, 201);
    assert_eq!(user.str_at(&["username"]), Some("system:serviceaccount:default:default"));
    let groups = json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]);
    assert_eq!(user["groups"], groups);
    assert_eq!(user["extra"]["authentication.kubernetes.io/pod-name"], json!(["p"]));
    cluster.ok(Method::DELETE, "/api/v1/namespaces/default/pods/p", Value::Null).await;
    assert_eq!(whoami(&cluster, token).await.0, 401);

    let request = cluster.ok(Method::POST, TOKEN, json!({})).await;
    let token = request.str_at(&["status", "token"]).expect("a token");
    let review = json!({"spec": {"token": token}});
    let reviewed = cluster.ok(Method::POST, "/apis/authentication.k8s.io/v1/tokenreviews", review.clone()).await;
    assert_eq!(reviewed.bool_at(&["status", "authenticated"]), Some(true));
    cluster.ok(Method::DELETE, "/api/v1/namespaces/default/serviceaccounts/default", Value::Null).await;
    assert_eq!(whoami(&cluster, token).await.0, 401);
    let reviewed = cluster.ok(Method::POST, "/apis/authentication.k8s.io/v1/tokenreviews", review).await;
    assert_eq!(reviewed.bool_at(&["status", "authenticated"]), None);
}

#[tokio::test]
async fn other_audiences_and_short_times_are_refused() {
    let cluster = cluster().await;
    let request = cluster.ok(Method::POST, TOKEN, json!({"spec": {"audiences": ["vault"]}})).await;
    let token = request.str_at(&["status", "token"]).expect("a token");
    assert_eq!(whoami(&cluster, token).await.0, 401);
    let refused = cluster.call(Method::POST, TOKEN, json!({"spec": {"expirationSeconds": 5}})).await;
    assert_eq!(
        refused.body.str_at(&["message"]),
        Some(
            "TokenRequest.authentication.k8s.io \"default\" is invalid: spec.expirationSeconds: Invalid value: 5: may not specify \
             a duration less than 10 minutes"
        )
    );
}
