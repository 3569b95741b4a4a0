//! A certificate authority and what it issues. ECDSA P-256 throughout, as kubeadm's `ECDSA-P256` option does.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::Error;

/// How long an authority is valid: 10 years, kubeadm's default.
const CA_DAYS: i64 = 3650;
/// Certificates begin a little in the past, for peers whose clock is behind.
const BACKDATE_MINUTES: i64 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Server,
    Client,
    /// Both ends, as a kubelet's certificate may be used.
    ServerAndClient,
}

/// What a certificate shall say.
#[derive(Clone, Debug)]
pub struct CertificateRequest {
    pub common_name: String,
    /// The group of the user, for clients. One: rcgen writes each kind of name part once.
    pub organization: Option<String>,
    pub dns_names: Vec<String>,
    pub ips: Vec<IpAddr>,
    pub usage: Usage,
    pub days: i64,
}

impl CertificateRequest {
    /// A client certificate: the common name is the user, the organization is its group.
    pub fn client(user: &str, group: Option<&str>) -> Self {
        CertificateRequest {
            common_name: user.into(),
            organization: group.map(str::to_string),
            dns_names: Vec::new(),
            ips: Vec::new(),
            usage: Usage::Client,
            days: 365,
        }
    }

    pub fn server(common_name: &str, dns_names: &[String], ips: &[IpAddr]) -> Self {
        CertificateRequest {
            common_name: common_name.into(),
            organization: None,
            dns_names: dns_names.to_vec(),
            ips: ips.to_vec(),
            usage: Usage::Server,
            days: 365,
        }
    }
}

/// A certificate and its private key, both PEM.
#[derive(Clone)]
pub struct Issued {
    pub certificate_pem: String,
    pub key_pem: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Issued { certificate and key withheld }")
    }
}

/// A certificate authority with its key in memory.
pub struct Authority {
    certificate_pem: String,
    key: KeyPair,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority { key withheld }")
    }
}

impl Authority {
    pub fn generate(common_name: &str) -> Result<Self, Error> {
        let why = |e: rcgen::Error| Error::Issue { subject: common_name.into(), why: e.to_string() };
        let key = KeyPair::generate().map_err(why)?;
        let mut params = params(common_name, None, CA_DAYS);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(why)?;
        Ok(Authority { certificate_pem: certificate.pem(), key })
    }

    /// Takes an authority from its PEM files.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, Error> {
        let key = KeyPair::from_pem(key_pem)
            .map_err(|e| Error::Pem { what: "the authority's key".into(), why: e.to_string() })?;
        Ok(Authority { certificate_pem: certificate_pem.into(), key })
    }

    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    pub fn issue(&self, request: &CertificateRequest) -> Result<Issued, Error> {
        let why = |e: rcgen::Error| Error::Issue { subject: request.common_name.clone(), why: e.to_string() };
        let key = KeyPair::generate().map_err(why)?;
        let issuer = Issuer::from_ca_cert_pem(&self.certificate_pem, &self.key).map_err(why)?;
        let mut params = params(&request.common_name, request.organization.as_deref(), request.days);
        for name in &request.dns_names {
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into().map_err(why)?));
        }
        params.subject_alt_names.extend(request.ips.iter().map(|ip| SanType::IpAddress(*ip)));
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = match request.usage {
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::ServerAndClient => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        let certificate = params.signed_by(&key, &issuer).map_err(why)?;
        Ok(Issued { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

fn params(common_name: &str, organization: Option<&str>, days: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    let now = meta::time::now();
    params.not_before = date(now - SignedDuration::from_mins(BACKDATE_MINUTES));
    params.not_after = date(now + SignedDuration::from_hours(days * 24));
    params
}

fn date(t: Timestamp) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(t.as_second()).unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity;

    #[test]
    fn an_issued_certificate_says_what_was_asked() {
        let ca = Authority::generate("kubernetes-ca").expect("authority");
        let again = Authority::from_pem(ca.certificate_pem(), &ca.key_pem()).expect("authority from its files");
        let issued = again.issue(&CertificateRequest::client("ada", Some("system:masters"))).expect("certificate");
        let user = identity::of_pem(&issued.certificate_pem).expect("identity");
        assert_eq!((user.name.as_str(), user.groups), ("ada", vec!["system:masters".to_string()]));
        assert!(!identity::expires_within(&issued.certificate_pem, 30 * 24 * 3600));
        assert!(identity::expires_within(&issued.certificate_pem, 400 * 24 * 3600));
    }
}
