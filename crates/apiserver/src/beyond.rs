//! Faults of new objects that the object alone does not show: devices taken for administration in a namespace that does
//! not allow it, requests for certificates that their key did not sign.
//!
//! Reads: namespaces. Invariant: only adds to the errors that the kind's own validation found.

use meta::field::{Error, Errors, Path};
use meta::{Status, Value};
use rustls::crypto::aws_lc_rs::default_provider;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::admission::certificates::request_block;
use crate::call::Call;
use crate::metadata;
use crate::registry::Served;

const ADMIN_LABEL: &str = "resource.kubernetes.io/admin-access";

const DEVICES: &str = "resource.k8s.io";

/// Adds what is wrong with a new object, where upstream tells it.
pub async fn check(call: &Call, served: &Served, new: &Value, errors: &mut Errors) -> Result<(), Status> {
    // Compat: of templates too the path is a claim's.
    const SHOWN: &str = "spec.devices.requests";
    let flag = ["exactly", "adminAccess"];
    match (served.info.group.as_ref(), served.kind.as_str()) {
        (DEVICES, "ResourceClaim") => {
            admin_access(call, new, new.array_at(&["spec", "devices", "requests"]), &flag, SHOWN, errors).await
        }
        (DEVICES, "ResourceClaimTemplate") => {
            admin_access(call, new, new.array_at(&["spec", "spec", "devices", "requests"]), &flag, SHOWN, errors).await
        }
        ("certificates.k8s.io", "CertificateSigningRequest") => {
            signature(new, errors);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The same of a status that is to replace that of `old`.
pub async fn check_status(
    call: &Call,
    served: &Served,
    new: &Value,
    old: &Value,
    errors: &mut Errors,
) -> Result<(), Status> {
    const RESULTS: [&str; 4] = ["status", "allocation", "devices", "results"];
    let claim = served.info.group == DEVICES && served.kind == "ResourceClaim";
    if !claim || new.at(&RESULTS) == old.at(&RESULTS) {
        return Ok(());
    }
    admin_access(call, new, new.array_at(&RESULTS), &["adminAccess"], &RESULTS.join("."), errors).await
}

/// Devices are administered from namespaces with a label only: looks at the `flag` of each of `items`, which errors show
/// below `path`.
async fn admin_access(
    call: &Call,
    object: &Value,
    items: &[Value],
    flag: &[&str],
    path: &str,
    errors: &mut Errors,
) -> Result<(), Status> {
    let Some(first) = items.iter().position(|item| item.bool_at(flag) == Some(true)) else { return Ok(()) };
    let namespace = call.shared.namespace(metadata::namespace(object)).await?;
    if namespace.is_none_or(|namespace| namespace.label(ADMIN_LABEL) != Some("true")) {
        let at = Path::new(path).index(first).child("adminAccess");
        let detail =
            format!("admin access to devices requires the `{ADMIN_LABEL}: true` label on the containing namespace");
        // Compat: one error, before all others.
        errors.insert(0, Error::forbidden(&at, detail));
    }
    Ok(())
}

/// A request for a certificate is signed by the key that it is for. A form that is wrong was told already.
fn signature(new: &Value, errors: &mut Errors) {
    let path = Path::new("spec.request");
    if errors.iter().any(|error| error.field == "spec.request") {
        return;
    }
    let wrong = new.str_at(&["spec", "request"]).and_then(wrong_signature);
    if let Some(wrong) = wrong {
        let first = errors.iter().position(|error| error.field.starts_with("spec")).unwrap_or(errors.len());
        errors.insert(first, Error::invalid(&path, &new["spec"]["request"], wrong));
    }
}

/// Go's words for a signature that does not hold. None is found with algorithms that are not known here.
fn wrong_signature(encoded: &str) -> Option<&'static str> {
    let block = request_block(encoded).ok()?;
    let (_, request) = X509CertificationRequest::from_der(&block.contents).ok()?;
    let (info, signature) = (&request.certification_request_info, &request.signature_value);
    let (key, id) = (&info.subject_pki, request.signature_algorithm.algorithm.as_bytes());
    let words = match key.algorithm.algorithm.to_id_string().as_str() {
        // Keys of less than 2048 bits can't be judged.
        "1.2.840.113549.1.1.1" if key.subject_public_key.data.len() >= 256 => "crypto/rsa: verification error",
        "1.2.840.10045.2.1" => "x509: ECDSA verification failure",
        "1.3.101.112" => "x509: Ed25519 verification failure",
        _ => return None,
    };
    let holds = |whole: &[u8], part: &[u8]| whole.windows(part.len()).any(|window| window == part);
    let algorithms = default_provider().signature_verification_algorithms.all.iter();
    let algorithm = algorithms
        .filter(|a| a.signature_alg_id().as_ref().get(2..2 + id.len()) == Some(id))
        .find(|a| holds(key.raw, a.public_key_alg_id().as_ref()))?;
    algorithm.verify_signature(&key.subject_public_key.data, info.raw, &signature.data).err().map(|_| words)
}
