//! Who a client certificate names. Source: the documentation page "Authenticating", X.509 client certificates: the
//! common name is the user, each organization a group.

use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The user of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub groups: Vec<String>,
}

/// The identity in a DER certificate; `None` when it has no common name or is no certificate.
pub fn of_der(der: &[u8]) -> Option<Identity> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_string();
    let groups = subject.iter_organization().filter_map(|o| o.as_str().ok().map(str::to_string)).collect();
    (!name.is_empty()).then_some(Identity { name, groups })
}

pub fn of_pem(pem: &str) -> Option<Identity> {
    of_der(&CertificateDer::from_pem_slice(pem.as_bytes()).ok()?)
}

/// Whether the first certificate of `pem` ends within `seconds`, or cannot be read.
pub fn expires_within(pem: &str, seconds: i64) -> bool {
    let Ok(der) = CertificateDer::from_pem_slice(pem.as_bytes()) else {
        return true;
    };
    let Ok((_, certificate)) = X509Certificate::from_der(&der) else {
        return true;
    };
    certificate.validity().not_after.timestamp() < meta::time::now().as_second() + seconds
}
