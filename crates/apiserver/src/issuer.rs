//! How others come to trust tokens of service accounts: what the issuer is, and which keys it signs with.
//!
//! Source: "Service account issuer discovery" in the documentation of service accounts, OpenID Connect Discovery 1.0,
//! RFC 7517 and 7518 (keys as JSON).

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use meta::{Value, json};
use pki::tokens::Verifier;

use crate::body::Response;
use crate::reply;

pub const CONFIGURATION: &str = "/.well-known/openid-configuration";
pub const KEYS: &str = "/openid/v1/jwks";
/// For how long others may go on with what they were told, as upstream.
const FRESH: HeaderValue = HeaderValue::from_static("public, max-age=3600");

/// `address` is where the keys are to be had: host and port.
pub fn configuration(verifier: &Verifier, address: &str) -> Response {
    let document = json!({
        "issuer": verifier.issuer(), "jwks_uri": format!("https://{address}{KEYS}"), "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"],
    });
    answer(&document, "application/json")
}

pub fn keys(verifier: &Verifier) -> Response {
    let keys: Vec<Value> = verifier
        .public_keys()
        .map(|key| {
            json!({
                "use": "sig", "kty": "EC", "kid": (key.id), "crv": "P-256", "alg": "ES256", "x": (key.x.as_str()),
                "y": (key.y.as_str()),
            })
        })
        .collect();
    let mut document = Value::object();
    document.set(&["keys"], keys);
    answer(&document, "application/jwk-set+json")
}

fn answer(document: &Value, content_type: &'static str) -> Response {
    let mut response = reply::json(200, document.to_vec());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, FRESH);
    response
}
