//! ClusterTrustBundle: certificates of authorities. Compat: upstream's words (certificates.k8s.io validation).

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificatesigningrequest::validate_signer;
use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::text("SignerName", "").at("spec.signerName")],
    name_rule: |_| Vec::new(),
    rules: &[("spec.signerName", Immutable)],
    validate,
    selectable: |b| vec![("spec.signerName", signer(b).to_string())],
    selectable_names: &["spec.signerName"],
    unconditional_update: false,
    ..Kind::PLAIN
};

fn signer(bundle: &Value) -> &str {
    text(bundle, &["spec", "signerName"])
}

/// What is wrong with the name of a bundle of this signer's, or of nobody's.
fn name_faults(name: &str, signer: &str) -> Vec<String> {
    let prefix = if signer.is_empty() { String::new() } else { signer.replace('/', ":") + ":" };
    match name.strip_prefix(&prefix) {
        Some(rest) if signer.is_empty() && rest.contains(':') => {
            vec!["ClusterTrustBundle without signer name must not have \":\" in its name".into()]
        }
        Some(rest) => names::dns1123_subdomain(rest),
        None => vec![format!("ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}")],
    }
}

/// What is wrong with a name by which something refers to a bundle, whoever signed it.
pub(super) fn reference_faults(name: &str) -> Vec<String> {
    let signer = name.rsplit_once(':').map(|(signer, _)| signer.replace(':', "/"));
    name_faults(name, &signer.unwrap_or_default())
}

fn validate(bundle: &Value, errors: &mut Errors) {
    let (name, signer) = (text(bundle, &["metadata", "name"]), signer(bundle));
    let at = Path::new("metadata.name");
    errors.extend(name_faults(name, signer).into_iter().map(|detail| Error::invalid(&at, name, detail)));
    if !signer.is_empty() {
        validate_signer(signer, &Path::new("spec.signerName"), errors);
    }
    if let Err(detail) = anchors(text(bundle, &["spec", "trustBundle"])) {
        errors.push(Error::invalid(&Path::new("spec.trustBundle"), "<value omitted>", detail));
    }
}

/// What is wrong with the certificates.
fn anchors(bundle: &str) -> Result<(), String> {
    let mut seen: HashMap<Vec<u8>, usize> = HashMap::new();
    for (i, block) in blocks(bundle).enumerate() {
        if block.label != "CERTIFICATE" {
            return Err(format!("entry {i} has bad block type: {}", block.label));
        }
        if block.has_headers {
            return Err(format!("entry {i} has PEM block headers"));
        }
        match X509Certificate::from_der(&block.contents) {
            Ok(([], certificate)) => {
                if !certificate.is_ca() {
                    return Err(format!("entry {i} does not have the CA bit set"));
                }
            }
            _ => return Err(format!("entry {i} does not parse as X.509")),
        }
        if let Some(before) = seen.insert(block.contents, i) {
            return Err(format!("duplicate trust anchor (indices [{before} {i}])"));
        }
    }
    if seen.is_empty() { Err("at least one trust anchor must be provided".into()) } else { Ok(()) }
}

struct Block<'t> {
    label: &'t str,
    has_headers: bool,
    contents: Vec<u8>,
}

/// The blocks of a PEM file (RFC 7468, with the headers of RFC 1421); text around them and broken ones are passed over.
fn blocks(text: &str) -> impl Iterator<Item = Block<'_>> {
    fn mark<'t>(line: &'t str, begin: &str) -> Option<&'t str> {
        line.strip_prefix(begin)?.strip_suffix("-----")
    }
    let mut lines = text.lines().map(str::trim_end);
    std::iter::from_fn(move || {
        'next: loop {
            let label = lines.find_map(|line| mark(line, "-----BEGIN "))?;
            let (mut has_headers, mut body) = (false, String::new());
            for line in lines.by_ref() {
                match mark(line, "-----END ") {
                    Some(end) if end == label => match STANDARD.decode(&body) {
                        Ok(contents) => return Some(Block { label, has_headers, contents }),
                        Err(_) => continue 'next,
                    },
                    Some(_) => continue 'next,
                    None if body.is_empty() && line.contains(':') => has_headers = true,
                    None => body.push_str(line.trim()),
                }
            }
            return None;
        }
    })
}
