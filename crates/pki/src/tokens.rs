//! Service account tokens: signed JWTs with upstream's claims. Source: KEP-1205 (bound service account tokens).
//!
//! Signed with ES256 by one key, verified with that key (and any older ones given). Whether the account, the pod or
//! the node that a token is bound to still exists is the API server's to check.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::{KeyPair, PublicKeyData};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Error;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRef {
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// The `kubernetes.io` claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    pub namespace: String,
    pub serviceaccount: ObjectRef,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<ObjectRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<ObjectRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<ObjectRef>,
}

/// The claims of a token. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub iss: String,
    pub sub: String,
    pub aud: Vec<String>,
    pub iat: i64,
    pub nbf: i64,
    pub exp: i64,
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Bound,
}

const COORDINATE_BYTES: usize = 32;

/// Why a token is not accepted. Never holds the token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    #[error("the token is not a service account token of this cluster: {0}")]
    Malformed(String),
    #[error("the token was signed with an unknown key")]
    UnknownKey,
    #[error("the token has expired")]
    Expired,
    #[error("the token's audience is not one of {0:?}")]
    Audience(Vec<String>),
}

pub struct Signer {
    key: EncodingKey,
    key_id: String,
    pub issuer: String,
}

impl Signer {
    /// `key_pem` is an ECDSA P-256 private key in PKCS#8.
    pub fn from_pem(key_pem: &str, issuer: &str) -> Result<Self, Error> {
        let pair = KeyPair::from_pem(key_pem)
            .map_err(|e| Error::Pem { what: "the service account key".into(), why: e.to_string() })?;
        let key = EncodingKey::from_ec_pem(key_pem.as_bytes())
            .map_err(|e| Error::Pem { what: "the service account key".into(), why: e.to_string() })?;
        Ok(Signer { key, key_id: key_id(&pair.subject_public_key_info()), issuer: issuer.into() })
    }

    pub fn sign(&self, claims: &Claims) -> Result<String, Error> {
        let mut header = Header::new(Algorithm::ES256);
        header.typ = None;
        header.kid = Some(self.key_id.clone());
        jsonwebtoken::encode(&header, claims, &self.key).map_err(|e| Error::Sign(e.to_string()))
    }
}

/// What whoever only verifies tokens is given of the key that signs them: PEM, `PUBLIC KEY`.
pub fn public_key_pem(key_pem: &str) -> Result<String, Error> {
    let bad = |e: rcgen::Error| Error::Pem { what: "the service account key".into(), why: e.to_string() };
    KeyPair::from_pem(key_pem).map(|pair| pair.public_key_pem()).map_err(bad)
}

/// A point of the curve P-256: what tokens are verified with, for others to know. Coordinates in base64 as RFC 7518 has it.
#[derive(Debug, PartialEq, Eq)]
pub struct PublicKey<'a> {
    /// The `kid` of tokens.
    pub id: &'a str,
    pub x: String,
    pub y: String,
}

struct Key {
    key: DecodingKey,
    /// As SEC 1 writes it: 4, then both coordinates.
    point: Vec<u8>,
}

pub struct Verifier {
    keys: BTreeMap<String, Key>,
    issuer: String,
}

impl Verifier {
    /// `key_pems` are private or public keys (PEM); every one of them is accepted.
    pub fn from_pems(key_pems: &[&str], issuer: &str) -> Result<Self, Error> {
        let mut keys = BTreeMap::new();
        for pem in key_pems {
            let bad = |why: String| Error::Pem { what: "the service account key".into(), why };
            let (public_pem, spki, point) = match KeyPair::from_pem(pem) {
                Ok(pair) => (pair.public_key_pem(), pair.subject_public_key_info(), pair.der_bytes().to_vec()),
                Err(_) => {
                    let public = rcgen::SubjectPublicKeyInfo::from_pem(pem).map_err(|e| bad(e.to_string()))?;
                    (pem.to_string(), public.subject_public_key_info(), public.der_bytes().to_vec())
                }
            };
            let key = DecodingKey::from_ec_pem(public_pem.as_bytes()).map_err(|e| bad(e.to_string()))?;
            keys.insert(key_id(&spki), Key { key, point });
        }
        Ok(Verifier { keys, issuer: issuer.into() })
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// What others verify tokens with, sorted by id.
    pub fn public_keys(&self) -> impl Iterator<Item = PublicKey<'_>> {
        self.keys.iter().filter_map(|(id, key)| {
            let (x, y) = key.point.strip_prefix(&[4])?.split_at_checked(COORDINATE_BYTES)?;
            Some(PublicKey { id, x: URL_SAFE_NO_PAD.encode(x), y: URL_SAFE_NO_PAD.encode(y) })
        })
    }

    /// The claims of a token that is ours, in time, and for one of `audiences` (any audience when that is empty).
    pub fn verify(&self, token: &str, audiences: &[String]) -> Result<Claims, Rejected> {
        let malformed = |e: jsonwebtoken::errors::Error| Rejected::Malformed(e.to_string());
        let header = jsonwebtoken::decode_header(token).map_err(malformed)?;
        let key = header.kid.and_then(|kid| self.keys.get(&kid)).ok_or(Rejected::UnknownKey)?;
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[&self.issuer]);
        validation.validate_nbf = true;
        validation.leeway = 5;
        match audiences {
            [] => validation.validate_aud = false,
            some => validation.set_audience(some),
        }
        use jsonwebtoken::errors::ErrorKind;
        jsonwebtoken::decode::<Claims>(token, &key.key, &validation).map(|data| data.claims).map_err(|e| {
            match e.kind() {
                ErrorKind::ExpiredSignature => Rejected::Expired,
                ErrorKind::InvalidAudience => Rejected::Audience(audiences.to_vec()),
                _ => malformed(e),
            }
        })
    }
}

fn key_id(spki_der: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(spki_der))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(exp: i64) -> Claims {
        let now = meta::time::now().as_second();
        Claims {
            iss: "https://kubernetes.default.svc".into(),
            sub: "system:serviceaccount:a:b".into(),
            aud: vec!["api".into()],
            iat: now,
            nbf: now,
            exp: now + exp,
            jti: "1".into(),
            kubernetes: Bound {
                namespace: "a".into(),
                serviceaccount: ObjectRef { name: "b".into(), uid: "u".into() },
                pod: None,
                secret: None,
                node: None,
            },
        }
    }

    #[test]
    fn others_verify_with_the_published_key() {
        let key = KeyPair::generate().expect("key");
        let issuer = "https://kubernetes.default.svc";
        let signer = Signer::from_pem(&key.serialize_pem(), issuer).expect("signer");
        let token = signer.sign(&claims(600)).expect("token");
        for pem in [key.serialize_pem(), key.public_key_pem()] {
            let verifier = Verifier::from_pems(&[&pem], issuer).expect("verifier");
            let published: Vec<_> = verifier.public_keys().collect();
            let [public] = published.as_slice() else { panic!("one key: {published:?}") };
            let theirs = DecodingKey::from_ec_components(&public.x, &public.y).expect("a point of the curve");
            let header = jsonwebtoken::decode_header(&token).expect("a header");
            assert_eq!(header.kid.as_deref(), Some(public.id));
            let mut validation = Validation::new(Algorithm::ES256);
            validation.set_audience(&["api"]);
            assert!(jsonwebtoken::decode::<Claims>(&token, &theirs, &validation).is_ok());
        }
    }

    #[test]
    fn only_good_tokens_are_accepted() {
        let issuer = "https://kubernetes.default.svc";
        let key = KeyPair::generate().expect("key");
        let other = KeyPair::generate().expect("key");
        let signer = Signer::from_pem(&key.serialize_pem(), issuer).expect("signer");
        let verifier = Verifier::from_pems(&[&key.public_key_pem()], issuer).expect("verifier");
        let api = ["api".to_string()];

        let good = signer.sign(&claims(600)).expect("token");
        assert_eq!(verifier.verify(&good, &api).expect("accepted").sub, "system:serviceaccount:a:b");
        assert_eq!(verifier.verify(&good, &[]).expect("accepted").kubernetes.namespace, "a");
        let elsewhere = ["vault".to_string()];
        assert_eq!(verifier.verify(&good, &elsewhere), Err(Rejected::Audience(elsewhere.to_vec())));
        let old = signer.sign(&claims(-600)).expect("token");
        assert_eq!(verifier.verify(&old, &api), Err(Rejected::Expired));
        let foreign = Signer::from_pem(&other.serialize_pem(), issuer).expect("signer");
        let foreign = foreign.sign(&claims(600)).expect("token");
        assert_eq!(verifier.verify(&foreign, &api), Err(Rejected::UnknownKey));
        let mut changed = good.clone();
        changed.replace_range(good.len() - 4.., "AAAA");
        assert!(matches!(verifier.verify(&changed, &api), Err(Rejected::Malformed(_))));
        assert!(matches!(verifier.verify("a.b", &api), Err(Rejected::Malformed(_))));
    }
}
