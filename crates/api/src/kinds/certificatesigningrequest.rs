//! CertificateSigningRequest.

use std::collections::HashSet;

use super::conditions;
use super::prelude::*;
use super::restore;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        AGE,
        Column::text("SignerName", "Who is asked to sign.").at("spec.signerName"),
        Column::text("Requestor", "Who asks.").at("spec.username"),
        Column::text("RequestedDuration", ".spec.expirationSeconds")
            .by(|c| c.int_at(&["spec", "expirationSeconds"]).map_or("<none>".into(), meta::time::human_seconds).into()),
        Column::text("Condition", "What became of the request.").by(condition),
    ],
    name_rule: names::path_segment,
    prepare_create: |c| c.set(&["status"], Value::object()),
    prepare_update: |new, old| {
        restore(new, old, "status");
        restore(new, old, "spec");
    },
    validate_create: |c| {
        let mut errors = Errors::new();
        validate(&c["spec"], &mut errors);
        errors
    },
    selectable: |c| vec![("spec.signerName", text(c, &["spec", "signerName"]).to_string())],
    selectable_names: &["spec.signerName"],
    ..Kind::PLAIN
};

fn condition(c: &Value) -> Cell {
    let mut shown: Vec<&str> = Vec::new();
    for ty in ["Approved", "Denied", "Failed"] {
        if conditions::find(c, ty).is_some() {
            shown.push(ty);
        }
    }
    if shown.is_empty() {
        shown.push("Pending");
    }
    if !c["status"]["certificate"].is_empty() {
        shown.push("Issued");
    }
    shown.join(",").into()
}

const USAGES: &[&str] = &[
    "any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment",
    "decipher only", "digital signature", "email protection", "encipher only", "ipsec end system", "ipsec tunnel",
    "ipsec user", "key agreement", "key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime",
    "server auth", "signing", "timestamping",
];

fn validate(spec: &Value, errors: &mut Errors) {
    use base64::Engine;
    let path = Path::new("spec");
    let request = base64::engine::general_purpose::STANDARD.decode(text(spec, &["request"])).unwrap_or_default();
    if let Some(wrong) = fault(&String::from_utf8_lossy(&request)) {
        errors.push(Error::invalid(&path.child("request"), &spec["request"], wrong));
    }
    let usages = spec.array_at(&["usages"]);
    check_at(spec, &path, &[("usages", Required(""))], errors);
    let mut known = HashSet::new();
    for (i, usage) in usages.iter().enumerate() {
        let at = path.child("usages").index(i);
        if !USAGES.contains(&usage.as_str().unwrap_or_default()) {
            errors.push(Error::not_supported(&at, usage, USAGES));
        }
        if !known.insert(usage.as_str()) {
            errors.push(Error::duplicate(&at, usage));
        }
    }
    let signer = text(spec, &["signerName"]);
    let at = path.child("signerName");
    if signer == "kubernetes.io/legacy-unknown" {
        errors.push(Error::invalid(&at, signer, "the legacy signerName is not allowed via this API version"));
    } else {
        validate_signer(signer, &at, errors);
    }
    if let Some(n) = spec.int_at(&["expirationSeconds"]).filter(|n| *n < 600) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(Error::invalid(&path.child("expirationSeconds"), n, detail));
    }
}

/// What is wrong with the form of a request; the API server looks at its signature.
fn fault(pem: &str) -> Option<&'static str> {
    use base64::Engine;
    let body = pem.split_once("-----BEGIN CERTIFICATE REQUEST-----").and_then(|(_, rest)| rest.split_once("-----END "));
    // Headers end with an empty line.
    let body = body.map(|(body, _)| body.split_once("\n\n").map_or(body, |(_, after)| after));
    let body = body.map(|body| body.split_ascii_whitespace().collect::<String>());
    let Some(der) = body.and_then(|body| base64::engine::general_purpose::STANDARD.decode(body).ok()) else {
        return Some("PEM block type must be CERTIFICATE REQUEST");
    };
    const TRUNCATED: &str = "asn1: syntax error: data truncated";
    const TAGS: &str = "asn1: structure error: tags don't match";
    let (tag, whole, after) = match element(&der) {
        Some(parts) => parts,
        None => return Some(TRUNCATED),
    };
    let mut rest = whole;
    if tag != SEQUENCE {
        return Some(TAGS);
    }
    // What is asked for, the algorithm, the signature.
    for wanted in [SEQUENCE, SEQUENCE, BIT_STRING] {
        if rest.is_empty() {
            return Some("asn1: syntax error: sequence truncated");
        }
        match element(rest) {
            Some((tag, _, after)) if tag == wanted => rest = after,
            Some(_) => return Some(TAGS),
            None => return Some(TRUNCATED),
        }
    }
    (!after.is_empty()).then_some("asn1: syntax error: trailing data")
}

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;

/// The tag and the content of the first element of DER, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, length) = (*der.first()?, usize::from(*der.get(1)?));
    let (length, start) = match length.checked_sub(0x80) {
        None => (length, 2),
        Some(bytes @ 1..=4) => {
            let digits = der.get(2..2 + bytes)?;
            (digits.iter().fold(0, |n, digit| n << 8 | usize::from(*digit)), 2 + bytes)
        }
        Some(_) => return None,
    };
    let rest = der.get(start..)?;
    (rest.len() >= length).then(|| (tag, &rest[..length], &rest[length..]))
}

const SIGNER_MAX_BYTES: usize = 571;

/// Checks a signer: a domain of at least two segments, a slash, and what it signs.
pub(super) fn validate_signer(signer: &str, at: &Path, errors: &mut Errors) {
    if signer.is_empty() {
        return errors.push(Error::required(at, ""));
    }
    let Some((domain, path)) = signer.split_once('/').filter(|(_, path)| !path.contains('/')) else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return errors.push(Error::invalid(at, signer, detail));
    };
    let mut label = |label: &str, shown: &str, wrong: Vec<String>| {
        let wrong = wrong.into_iter().map(|m| format!("validating label {label:?}: {m}"));
        errors.extend(wrong.map(|m| Error::invalid(at, shown, m)));
    };
    domain.split('.').for_each(|part| label(part, domain, names::dns1123_label(part)));
    path.split('.').for_each(|part| label(part, path, names::dns1123_subdomain(part)));
    if !domain.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        errors.push(Error::invalid(at, domain, detail));
    }
    if signer.len() > SIGNER_MAX_BYTES {
        errors.push(Error::too_long(at, SIGNER_MAX_BYTES));
    }
}
