//! CertificateApproval, CertificateSigning, ClusterTrustBundleAttest and CertificateSubjectRestriction: who may speak for a
//! signer, and what nobody may ask for.
//!
//! Asks the authorizer for the verb on `signers` of the signer's name, or of `DOMAIN/*`.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use meta::{Status, Value};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::{Pem, parse_x509_pem};
use x509_parser::prelude::FromDer;

use super::{Operation, Review};
use crate::authz::Ask;
use crate::call::Call;
use crate::registry::Served;
use crate::user;

const GROUP: &str = "certificates.k8s.io";
const REQUESTS: &str = "certificatesigningrequests";
const CLIENTS: &str = "kubernetes.io/kube-apiserver-client";

/// Says in a new request for a certificate who asks for it, whatever the client or a webhook said: approvers go by that.
pub fn set_requester(call: &Call, served: &Served, request: &mut Value) {
    if served.info.group == GROUP && served.info.plural == REQUESTS {
        let user = call.user.to_value();
        for field in ["username", "uid", "groups", "extra"] {
            match user.get(field) {
                Some(value) => request.set(&["spec", field], value.clone()),
                None => drop(request.remove(&["spec", field])),
            }
        }
    }
}

fn signer(object: &Value) -> &str {
    object.str_at(&["spec", "signerName"]).unwrap_or_default()
}

/// Whether the user may do this with the signer; `what` is how a refusal names it.
fn may(review: &Review<'_>, verb: &str, what: &str, signer: &str) -> Result<(), Status> {
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    let allowed = [signer, &format!("{domain}/*")].into_iter().any(|name| {
        let ask = Ask::Review { verb, group: GROUP, resource: "signers", subresource: "", namespace: "", name };
        review.shared.authorizer.decide(&review.call.user, &ask).allowed
    });
    let refused = || review.forbidden(format!("user not permitted to {verb} {what} {signer:?}"));
    if allowed { Ok(()) } else { Err(refused()) }
}

pub fn approval(review: &Review<'_>, _: Option<&Value>, old: Option<&Value>) -> Result<(), Status> {
    let request = old.filter(|_| review.subresource == "approval" && review.is(GROUP, REQUESTS));
    request.map_or(Ok(()), |request| may(review, "approve", "requests with signerName", signer(request)))
}

pub fn signing(review: &Review<'_>, new: Option<&Value>, old: Option<&Value>) -> Result<(), Status> {
    let changed = |old: &&Value| new.is_some_and(|new| new["status"] != old["status"]);
    let request = old.filter(|_| review.subresource == "status" && review.is(GROUP, REQUESTS)).filter(changed);
    request.map_or(Ok(()), |request| may(review, "sign", "requests with signerName", signer(request)))
}

pub fn attest(review: &Review<'_>, new: Option<&Value>, old: Option<&Value>) -> Result<(), Status> {
    let changed = |new: &&Value| old.is_none_or(|old| old["spec"] != new["spec"]) && !signer(new).is_empty();
    let bundle = new.filter(|_| review.is(GROUP, "clustertrustbundles")).filter(changed);
    bundle.map_or(Ok(()), |bundle| may(review, "attest", "for signerName", signer(bundle)))
}

/// A certificate that is good for everything is not to be had by a request.
pub fn subject(review: &Review<'_>, new: Option<&Value>, _: Option<&Value>) -> Result<(), Status> {
    let asked = review.operation == Operation::Create && review.subresource.is_empty() && review.is(GROUP, REQUESTS);
    let Some(request) = new.filter(|new| asked && signer(new) == CLIENTS) else { return Ok(()) };
    let encoded = request.str_at(&["spec", "request"]).unwrap_or_default();
    let groups = groups(encoded).map_err(|why| review.forbidden(format!("failed to parse CSR: {why}")))?;
    if groups.iter().any(|group| group == user::MASTERS) {
        let why = format!("use of {CLIENTS} signer with {} group is not allowed", user::MASTERS);
        return Err(review.forbidden(why));
    }
    Ok(())
}

/// The request in `spec.request`: PEM in base64.
pub fn request_block(encoded: &str) -> Result<Pem, String> {
    let pem = BASE64_STANDARD.decode(encoded).map_err(|e| e.to_string())?;
    let block = parse_x509_pem(&pem).ok().map(|(_, block)| block);
    block
        .filter(|block| block.label == "CERTIFICATE REQUEST")
        .ok_or_else(|| "PEM block type must be CERTIFICATE REQUEST".into())
}

fn groups(encoded: &str) -> Result<Vec<String>, String> {
    let block = request_block(encoded)?;
    let (_, request) = X509CertificationRequest::from_der(&block.contents).map_err(|e| e.to_string())?;
    let all = request.certification_request_info.subject.iter_organization();
    Ok(all.filter_map(|group| group.as_str().ok().map(str::to_string)).collect())
}
