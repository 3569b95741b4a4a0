//! Validation of projected volumes: each source, and that no two make the same file.

use std::collections::BTreeSet;

use meta::field::{Error, Errors, Path};
use meta::selector::LabelSelector;
use meta::{Value, names};

use super::volume::{DEFAULT_USER, USER, validate_downward, validate_file, validate_items, validate_mode};
use crate::kinds::certificatesigningrequest::validate_signer;
use crate::kinds::clustertrustbundle;
use crate::kinds::rules::{Check, check_at};

const KINDS: [&str; 6] =
    ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];

/// Checks the volume at `all`.
pub(super) fn validate(source: &Value, all: &Path, errors: &mut Errors) {
    validate_mode(source, "defaultMode", all, errors);
    check_at(source, all, DEFAULT_USER, errors);
    let mut files = BTreeSet::new();
    for (i, part) in source.array_at(&["sources"]).iter().enumerate() {
        let at = all.child("sources").index(i);
        let mut given = KINDS.into_iter().filter(|kind| !part[*kind].is_null());
        let Some(kind) = given.next() else { continue };
        let made = validate_source(kind, &part[kind], &at.child(kind), all, errors);
        for (_, blamed) in made.into_iter().filter(|(file, _)| !file.is_empty() && !files.insert(*file)) {
            errors.push(Error::invalid(all, blamed, "conflicting duplicate paths"));
        }
        if given.next().is_some() {
            errors.push(Error::forbidden(&at, "may not specify more than 1 volume type per source"));
        }
    }
}

const TOKEN_SECONDS: (i64, i64) = (600, 1 << 32);

/// Checks one source; tells each file that it makes, and what a clash of it is blamed on.
fn validate_source<'a>(
    kind: &str,
    part: &'a Value,
    at: &Path,
    all: &Path,
    errors: &mut Errors,
) -> Vec<(&'a str, &'a str)> {
    let text = |field: &str| part.str_at(&[field]).unwrap_or_default();
    let path = text("path");
    let items = part.array_at(&["items"]).iter().map(|item| item.str_at(&["path"]).unwrap_or_default());
    match kind {
        "secret" | "configMap" => {
            check_at(part, at, &[("name", Check::Required(""))], errors);
            validate_items(part, at, errors);
            return items.map(|file| (file, text("name"))).collect();
        }
        "downwardAPI" => {
            validate_downward(part, at, errors);
            return items.map(|file| (file, file)).collect();
        }
        "serviceAccountToken" => {
            let seconds_at = at.child("expirationSeconds");
            match part.int_at(&["expirationSeconds"]) {
                Some(n) if n < TOKEN_SECONDS.0 => {
                    errors.push(Error::invalid(&seconds_at, n, "may not specify a duration less than 10 minutes"));
                }
                Some(n) if n > TOKEN_SECONDS.1 => {
                    errors.push(Error::invalid(&seconds_at, n, "may not specify a duration larger than 2^32 seconds"));
                }
                _ => {}
            }
            // Compat: upstream leaves out which source it is.
            validate_file(path, &all.child("path"), errors);
            check_at(part, at, USER, errors);
        }
        "clusterTrustBundle" => {
            validate_trust_bundle(part, at, errors);
            validate_file(path, &at.child("path"), errors);
            check_at(part, at, USER, errors);
        }
        _ => {
            validate_certificate(part, at, errors);
            let files = ["credentialBundlePath", "keyPath", "certificateChainPath"].into_iter();
            let given: Vec<&str> = files.filter(|file| !text(file).is_empty()).collect();
            given.iter().for_each(|file| validate_file(text(file), &at.child(file), errors));
            return given.iter().map(|file| (text(file), text(file))).collect();
        }
    }
    vec![(path, path)]
}

const KEY_TYPES: &[&str] = &["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];
const CERTIFICATE_SECONDS: (i64, i64) = (3600, 91 * 24 * 3600);

fn validate_certificate(part: &Value, at: &Path, errors: &mut Errors) {
    validate_signer(part.str_at(&["signerName"]).unwrap_or_default(), &at.child("signerName"), errors);
    check_at(part, at, USER, errors);
    if let Some(annotations) = part["userAnnotations"].as_object() {
        let at = at.child("userAnnotations");
        for key in annotations.keys() {
            let lower = key.to_lowercase();
            errors.extend(names::qualified_name(&lower).into_iter().map(|m| Error::invalid(&at, lower.as_str(), m)));
            if names::qualified_name(&lower).is_empty() && !key.contains('/') {
                errors.push(Error::invalid(&at, key, "must be a domain-prefixed key (such as \"acme.io/foo\")"));
            }
        }
    }
    check_at(part, at, &[("keyType", Check::AnyOneOf(KEY_TYPES))], errors);
    let (low, high) = CERTIFICATE_SECONDS;
    let bound = match part.int_at(&["maxExpirationSeconds"]) {
        Some(n) if n < low => Some((n, format!(">= {low}"))),
        Some(n) if n > high => Some((n, format!("<= {high}"))),
        _ => None,
    };
    if let Some((n, bound)) = bound {
        let detail = format!("if provided, maxExpirationSeconds must be {bound}");
        errors.push(Error::invalid(&at.child("maxExpirationSeconds"), n, detail));
    }
    if ["credentialBundlePath", "keyPath", "certificateChainPath"].iter().all(|file| part[*file].is_empty()) {
        let detail = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        errors.push(Error::required(at, detail));
    }
}

fn validate_trust_bundle(part: &Value, at: &Path, errors: &mut Errors) {
    match (part.str_at(&["name"]), part.str_at(&["signerName"])) {
        (Some(name), Some(signer)) => {
            let (name, signer) = (Value::from(name), Value::from(signer));
            let (selector, optional, user) = (&part["labelSelector"], &part["optional"], &part["user"]);
            let path = Value::from(part.str_at(&["path"]).unwrap_or_default());
            let shown = format!(
                "{{\"Name\":{name},\"SignerName\":{signer},\"LabelSelector\":{selector},\"Optional\":{optional},\
                 \"Path\":{path},\"User\":{user}}}"
            );
            errors.push(Error::invalid_raw(at, &shown, "only one of name and signerName may be used"));
        }
        (Some(name), None) => {
            let name_at = at.child("name");
            if name.is_empty() {
                errors.push(Error::required(&name_at, "must be a valid object name"));
            }
            let wrong = clustertrustbundle::reference_faults(name).into_iter();
            let wrong = wrong.map(|m| format!("not a valid clustertrustbundlename: {m}"));
            errors.extend(wrong.map(|m| Error::invalid(&name_at, name, m)));
            if !part["labelSelector"].is_null() {
                let detail = "labelSelector must be unset if name is specified";
                errors.push(Error::invalid(&at.child("labelSelector"), &part["labelSelector"], detail));
            }
        }
        (None, Some(signer)) => {
            let signer_at = at.child("signerName");
            if signer.is_empty() {
                errors.push(Error::required(&signer_at, "must be a valid signer name"));
            }
            validate_signer(signer, &signer_at, errors);
            errors.extend(LabelSelector::validate(&part["labelSelector"], &at.child("labelSelector")));
        }
        (None, None) => errors.push(Error::required(at, "either name or signerName must be specified")),
    }
}
